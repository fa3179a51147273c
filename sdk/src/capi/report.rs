//! Documents for other systems: structured reports, presentation states, secondary captures, FHIR.

use super::answer::anx_answer;
use super::call::make;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::with;
use super::options::{Options, read_options, switch};
use super::output::kept;
use super::saved::anx_bytes;
use super::status::anx_status;
use super::strings::optional_text;
use super::study::{anx_study, array};
use crate::answer::Answer;
use crate::output::{FhirBundle, OutputError, Overlay, PresentationState, ReportClass, SecondaryCapture, StructuredReport};
use crate::study::Study;
use std::ffi::c_char;

/// Options of anx_study_structured_report. Set struct_size to sizeof(anx_report_options) and everything else to zero but what you want to
/// change.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_report_options {
    /// sizeof(anx_report_options).
    pub struct_size: usize,
    /// The time at which the results were made, as "YYYYMMDDhhmmss", or NULL for that of the radiograph.
    pub content_time: *const c_char,
    /// An anx_switch, by default off: the report is a Comprehensive SR (1.2.840.10008.5.1.4.1.1.88.33), for viewers that do not know
    /// Comprehensive 3D SR (1.2.840.10008.5.1.4.1.1.88.34). The content is the same.
    pub comprehensive_sr: usize,
}

// SAFETY: words only, and zero is valid in each of them.
unsafe impl Options for anx_report_options {
    const NAME: &'static str = "anx_report_options";
}

/// Makes a DICOM structured report (TID 1500) of the study and of answers about it, in the study that the radiograph belongs to: a region
/// for each structure and each box of the answers, questions and answers, flags and scores. Equal results give equal bytes.
///
/// answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
/// defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
/// as you protect the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
/// study, series or image, or has a name or number of the patient that is not valid (it may have none).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_structured_report(
    study: *const anx_study,
    answers: *const *const anx_answer,
    count: usize,
    options: *const anx_report_options,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make(bytes, error, || {
            with(study, |study| {
                let options = read_options(options)?;
                let time = optional_text(options.content_time, "options.content_time")?;
                let is_2d = switch(options.comprehensive_sr, false, "options.comprehensive_sr")?;
                let answers = given(answers, count)?;
                let class = if is_2d { ReportClass::Comprehensive } else { ReportClass::Comprehensive3d };
                let report = StructuredReport::of(&study.perceived, &answers).class(class);
                let report = time.map_or(report, |time| report.content_time(time));
                Ok(anx_bytes::new(report.to_bytes().map_err(crate::Error::from)?))
            })
        })
    }
}

/// Options of anx_study_presentation_state, anx_study_secondary_capture and anx_study_fhir. Set struct_size to
/// sizeof(anx_document_options) and everything else to zero but what you want to change.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_document_options {
    /// sizeof(anx_document_options).
    pub struct_size: usize,
    /// The time at which the results were made, as "YYYYMMDDhhmmss", or NULL for that of the radiograph.
    pub content_time: *const c_char,
}

// SAFETY: words only, and zero is valid in each of them.
unsafe impl Options for anx_document_options {
    const NAME: &'static str = "anx_document_options";
}

/// Makes a DICOM Grayscale Softcopy Presentation State (1.2.840.10008.5.1.4.1.1.11.1) of the study and of answers about it, in the study
/// that the radiograph belongs to: the boxes of the structures and of the answers with their labels, which viewers draw over the image.
/// Equal results give equal bytes.
///
/// answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
/// defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
/// as you protect the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
/// study, series or image, or has a name or number of the patient that is not valid (it may have none).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_presentation_state(
    study: *const anx_study,
    answers: *const *const anx_answer,
    count: usize,
    options: *const anx_document_options,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
) -> anx_status {
    let write = |study: &Study, answers: &[Answer], time: Option<&str>| {
        let state = PresentationState::of(study, answers);
        time.map_or(state, |time| state.content_time(time)).to_bytes()
    };
    // SAFETY: NULL or valid pointers, as the header asks.
    unsafe { document(study, answers, count, options, bytes, error, write) }
}

/// Makes a DICOM Secondary Capture image (1.2.840.10008.5.1.4.1.1.7) in the study that the radiograph belongs to: the picture that
/// anx_study_overlay or anx_answer_overlay draws, in RGB of 8 bits, for viewers that show neither structured reports nor presentation
/// states. Equal results give equal bytes.
///
/// study: one that was made with anx_perceive_options.keep_radiograph. answer: the answer that is shown, or NULL for the structures of the
/// study. options: NULL for the defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It
/// shows the patient: protect it as you protect the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT: the radiograph is
/// no DICOM file, its header lacks a valid UID or has an invalid patient, or the answer is about another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_secondary_capture(
    study: *const anx_study,
    answer: *const anx_answer,
    options: *const anx_document_options,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make(bytes, error, || {
            with(study, |study| {
                let options = read_options(options)?;
                let time = optional_text(options.content_time, "options.content_time")?;
                let radiograph = kept(&study.radiograph, "study")?;
                let drawn = answer.as_ref().map(|answer| Overlay::of_answer(&answer.result, radiograph));
                let overlay = drawn.unwrap_or_else(|| Overlay::of_study(&study.perceived, radiograph)).map_err(crate::Error::from)?;
                let capture = SecondaryCapture::of(&study.perceived, &overlay);
                let capture = time.map_or(capture, |time| capture.content_time(time));
                Ok(anx_bytes::new(capture.to_bytes().map_err(crate::Error::from)?))
            })
        })
    }
}

/// Makes a FHIR R4 bundle of the study and of answers about it: a DiagnosticReport with an Observation for each structure, label, flag,
/// answer and box, and the Patient, ImagingStudy and Device that they refer to. Equal results give equal bytes.
///
/// answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
/// defaults. bytes: takes JSON in UTF-8, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
/// as you protect the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
/// study, series or image, or has a name or number of the patient that is not valid (it may have none).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_fhir(
    study: *const anx_study,
    answers: *const *const anx_answer,
    count: usize,
    options: *const anx_document_options,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
) -> anx_status {
    let write = |study: &Study, answers: &[Answer], time: Option<&str>| {
        let bundle = FhirBundle::of(study, answers);
        time.map_or(bundle, |time| bundle.content_time(time)).to_bytes()
    };
    // SAFETY: NULL or valid pointers, as the header asks.
    unsafe { document(study, answers, count, options, bytes, error, write) }
}

/// Makes a document with `write`, which gets the study, the answers and the content time.
///
/// # Safety
/// All pointers are NULL or valid, as the header asks.
unsafe fn document(
    study: *const anx_study,
    answers: *const *const anx_answer,
    count: usize,
    options: *const anx_document_options,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
    write: impl FnOnce(&Study, &[Answer], Option<&str>) -> Result<Vec<u8>, OutputError>,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the caller promises; every helper looks for NULL.
    unsafe {
        make(bytes, error, || {
            with(study, |study| {
                let options = read_options(options)?;
                let time = optional_text(options.content_time, "options.content_time")?;
                let answers = given(answers, count)?;
                Ok(anx_bytes::new(write(&study.perceived, &answers, time).map_err(crate::Error::from)?))
            })
        })
    }
}

/// The answers that a caller passes.
///
/// # Safety
/// `answers` is NULL or an array of `count` pointers, each of which is NULL or a live handle.
unsafe fn given(answers: *const *const anx_answer, count: usize) -> Result<Vec<Answer>, Failure> {
    let missing = || Failure::argument("answers", "holds NULL; pass count pointers to answers");
    // SAFETY: as the caller promises.
    let handles = unsafe { array(answers, count, "answers")? };
    // SAFETY: as the caller promises.
    let answers = handles.iter().map(|answer| unsafe { answer.as_ref() }.ok_or_else(missing));
    answers.map(|answer| answer.map(|answer| answer.result.clone())).collect()
}
