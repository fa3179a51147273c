//! Results as JSON, and pictures of them.

use super::answer::anx_answer;
use super::call::make;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::with;
use super::saved::anx_bytes;
use super::status::anx_status;
use super::study::anx_study;
use crate::error::Error;
use crate::output::{AskRecord, Overlay};
use crate::radiograph::Radiograph;
use std::sync::Arc;

/// The study as JSON, the same as "anatomix perceive --json" prints: UTF-8 without line breaks.
///
/// bytes: takes the JSON, which the caller frees with anx_bytes_free; NULL on failure. There is no NUL at the end: anx_bytes_size says
/// where that is.
/// Fails with ANX_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_json(study: *const anx_study, bytes: *mut *mut anx_bytes, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { make(bytes, error, || with(study, |study| Ok(anx_bytes::new(study.output.to_json().into_bytes())))) }
}

/// The answer as JSON, the same as "anatomix ask --json" prints: UTF-8 without line breaks.
///
/// bytes: as that of anx_study_json.
/// Fails with ANX_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_json(answer: *const anx_answer, bytes: *mut *mut anx_bytes, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { make(bytes, error, || with(answer, |answer| Ok(anx_bytes::new(AskRecord::from(&answer.result).to_json().into_bytes())))) }
}

/// Draws the radiograph with boxes of the main structures and of those with a finding, as "anatomix perceive --overlay" does.
///
/// study: one that was made with anx_perceive_options.keep_radiograph. bytes: takes a PNG file, which the caller frees with
/// anx_bytes_free; NULL on failure. Its longest side has 1,100 to 1,650 pixels. It shows the patient, and the name that the study has:
/// protect it as you protect the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_overlay(study: *const anx_study, bytes: *mut *mut anx_bytes, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        make(bytes, error, || {
            with(study, |study| {
                let radiograph = kept(&study.radiograph, "study")?;
                png(&Overlay::of_study(&study.perceived, radiograph).map_err(Error::from)?)
            })
        })
    }
}

/// Draws the radiograph with the answer's boxes, each labelled with its phrase, as "anatomix ask --overlay" does.
///
/// answer: one to a study that was made with anx_perceive_options.keep_radiograph; the study need not exist any more. bytes: as that of
/// anx_study_overlay.
/// Fails with ANX_INVALID_ARGUMENT, also if the answer holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_overlay(
    answer: *const anx_answer,
    bytes: *mut *mut anx_bytes,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        make(bytes, error, || {
            with(answer, |answer| {
                let radiograph = kept(&answer.radiograph, "answer")?;
                png(&Overlay::of_answer(&answer.result, radiograph).map_err(Error::from)?)
            })
        })
    }
}

/// The radiograph that a handle holds, or the error that it holds none.
pub(super) fn kept<'a>(radiograph: &'a Option<Arc<Radiograph>>, argument: &str) -> Result<&'a Radiograph, Failure> {
    radiograph.as_deref().ok_or_else(|| {
        let problem = "holds no radiograph to draw on; make the study with anx_perceive_options.keep_radiograph on";
        Failure::argument(argument, problem)
    })
}

fn png(overlay: &Overlay) -> Result<anx_bytes, Failure> {
    Ok(anx_bytes::new(overlay.to_png().map_err(Error::from)?))
}
