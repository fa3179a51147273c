//! Structured reports and other documents.

use super::{ON, ask, asking, engine, failure, file, study};
use anatomix::capi::*;
use std::ptr::{null, null_mut};

fn options() -> anx_report_options {
    let struct_size = size_of::<anx_report_options>();
    // SAFETY: the header promises that all zero means every default.
    anx_report_options { struct_size, ..unsafe { std::mem::zeroed() } }
}

/// The bytes of a report.
fn report(study: *const anx_study, answers: &[*const anx_answer], options: &anx_report_options) -> Vec<u8> {
    let (mut bytes, mut error) = (null_mut(), null_mut());
    // SAFETY: live handles; the bytes are freed once.
    unsafe {
        let status = anx_study_structured_report(study, answers.as_ptr(), answers.len(), options, &mut bytes, &mut error);
        super::check(status, error);
        let copied = std::slice::from_raw_parts(anx_bytes_data(bytes), anx_bytes_size(bytes)).to_vec();
        anx_bytes_free(bytes);
        copied
    }
}

/// A function that makes a document.
type Make = unsafe extern "C" fn(
    *const anx_study,
    *const *const anx_answer,
    usize,
    *const anx_document_options,
    *mut *mut anx_bytes,
    *mut *mut anx_error,
) -> anx_status;

const MAKES: [Make; 2] = [anx_study_presentation_state, anx_study_fhir];

/// The bytes of a document.
fn document(make: Make, study: *const anx_study, answers: &[*const anx_answer], options: *const anx_document_options) -> Vec<u8> {
    let (mut bytes, mut error) = (null_mut(), null_mut());
    // SAFETY: live handles; the bytes are freed once.
    unsafe {
        let status = make(study, answers.as_ptr(), answers.len(), options, &mut bytes, &mut error);
        super::check(status, error);
        let copied = std::slice::from_raw_parts(anx_bytes_data(bytes), anx_bytes_size(bytes)).to_vec();
        anx_bytes_free(bytes);
        copied
    }
}

#[test]
fn documents_hold_the_answers_that_they_are_given() {
    let engine = engine();
    let study = study(&engine);
    let answer = ask(study, c"Where is the left lung?", &asking()).cast_const();
    for make in MAKES {
        let (alone, whole) = (document(make, study, &[], null()), document(make, study, &[answer], null()));
        assert_eq!(whole, document(make, study, &[answer], null()));
        assert!(holds(&whole, "Where is the left lung?") && !holds(&alone, "Where is the left lung?") && holds(&alone, "Phantom"));
        let timed = anx_document_options { struct_size: size_of::<anx_document_options>(), content_time: c"20271126093000".as_ptr() };
        let later = document(make, study, &[], &timed);
        assert!(later != alone && (holds(&later, "20271126") || holds(&later, "2027-11-26")));
        let mut bytes = null_mut();
        // SAFETY: valid pointers or NULL.
        unsafe {
            let late = anx_document_options { content_time: c"tomorrow".as_ptr(), ..timed };
            let (status, message, _) = failure(|e| make(study, null(), 0, &late, &mut bytes, e));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("\"tomorrow\" is not a date and time"), "{message}");
            let (status, message, _) = failure(|e| make(study, [null()].as_ptr(), 1, null(), &mut bytes, e));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("answers holds NULL"), "{message}");
        }
    }
    // SAFETY: freed once.
    unsafe {
        anx_answer_free(answer.cast_mut());
        anx_study_free(study);
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_report_holds_the_answers_that_it_is_given() {
    let engine = engine();
    let study = study(&engine);
    let answer = ask(study, c"Where is the left lung?", &asking());
    let alone = report(study, &[], &options());
    let whole = report(study, &[answer.cast_const()], &options());
    assert_eq!(&whole[128..132], b"DICM");
    assert_eq!(whole, report(study, &[answer.cast_const()], &options()));
    let question = "Where is the left lung?";
    assert!(holds(&whole, question) && !holds(&alone, question) && holds(&alone, "Phantom^Synthetic"));
    let other = report(study, &[], &anx_report_options { comprehensive_sr: ON, content_time: c"20261126093000".as_ptr(), ..options() });
    let (class_3d, class_2d) = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33");
    assert!(holds(&alone, class_3d) && !holds(&other, class_3d) && holds(&other, class_2d) && holds(&other, "093000"));
    // SAFETY: freed once.
    unsafe {
        anx_answer_free(answer);
        anx_study_free(study);
    }
}

#[test]
fn reports_that_cannot_be_made() {
    let engine = engine();
    let study = study(&engine);
    let (mut pixels, mut bytes) = (null_mut(), std::ptr::dangling_mut());
    let values = vec![100u8; 64 * 64];
    // SAFETY: valid pointers or NULL; everything is freed once.
    unsafe {
        let image = anx_pixels {
            struct_size: size_of::<anx_pixels>(),
            values: values.as_ptr().cast(),
            size: values.len(),
            width: 64,
            height: 64,
            bits_allocated: 8,
            ..std::mem::zeroed()
        };
        super::check(anx_study_from_pixels(engine.0, &image, null(), &mut pixels, null_mut()), null_mut());
        let (status, message, _) = failure(|e| anx_study_structured_report(pixels, null(), 0, null(), &mut bytes, e));
        assert!(status == anx_status::ANX_OUTPUT && bytes.is_null(), "{message}");
        assert!(message.contains("it was given as pixels; give the DICOM file"), "{message}");
        let (status, message, _) = failure(|e| anx_study_structured_report(study, [null()].as_ptr(), 1, null(), &mut bytes, e));
        assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("answers holds NULL"), "{message}");
        let (status, ..) = failure(|e| anx_study_structured_report(study, null(), 1, null(), &mut bytes, e));
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        let late = anx_report_options { content_time: c"tomorrow".as_ptr(), ..options() };
        let (status, message, _) = failure(|e| anx_study_structured_report(study, null(), 0, &late, &mut bytes, e));
        assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("\"tomorrow\" is not a date and time"), "{message}");
        // An answer about another radiograph.
        let mut other = null_mut();
        let radiograph = file(".deps/radiographs/RG1_UNCI.dcm");
        super::check(anx_study_from_file(engine.0, radiograph.as_ptr(), null(), &mut other, null_mut()), null_mut());
        let answer = ask(study, c"Where is the heart?", &asking());
        let (status, message, _) =
            failure(|e| anx_study_structured_report(other, [answer.cast_const()].as_ptr(), 1, null(), &mut bytes, e));
        assert!(status == anx_status::ANX_OUTPUT && message.contains("about another radiograph"), "{message}");
        anx_answer_free(answer);
        [study, pixels, other].into_iter().for_each(|study| anx_study_free(study));
    }
}
