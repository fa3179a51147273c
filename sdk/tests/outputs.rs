//! Outputs of the C interface are NULL after each failure, so that they can be freed. These tests need no bundle.
#![allow(unsafe_code)]

use anatomix::capi::*;
use std::collections::BTreeSet;
use std::ffi::c_char;
use std::ptr::{dangling_mut, null, null_mut};

/// Names of the functions in the header with output handles.
fn with_outputs() -> BTreeSet<String> {
    let header = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../include/anatomix.h")).unwrap();
    let declarations = header.split("\nanx_status anx_").skip(1).filter_map(|rest| rest.split_once(';')).map(|(one, _)| one);
    let gives =
        |parameters: &str| parameters.split(',').any(|one| one.contains(" **") && !one.contains("anx_error") && !one.contains("const"));
    let named = declarations.filter_map(|one| one.split_once('(')).filter(|(_, parameters)| gives(parameters));
    named.map(|(name, _)| format!("anx_{name}")).collect()
}

/// Size of the array of outputs in each call. It is larger than needed, to show that a function does not write beyond its outputs.
const COUNT: usize = 1100;

/// Calls a function that must fail, with outputs that are not NULL before.
fn check<H>(name: &str, count: usize, call: impl FnOnce(*mut *mut H, *mut *mut anx_error) -> anx_status) -> String {
    let mut outputs = vec![dangling_mut::<H>(); COUNT];
    let mut error = null_mut();
    assert_ne!(call(outputs.as_mut_ptr(), &mut error), anx_status::ANX_OK, "{name}");
    let (given, behind) = outputs.split_at(count);
    assert!(given.iter().all(|output| output.is_null()), "{name} leaves outputs as they were");
    assert!(behind.iter().all(|&output| output == dangling_mut()), "{name} writes behind its outputs");
    // SAFETY: a failed call returns an error, which is freed once.
    unsafe { anx_error_free(error) };
    name.into()
}

/// The same for a function that also returns an error for each radiograph.
fn check_each<H>(name: &str, call: impl FnOnce(*mut *mut H, *mut *mut anx_error, *mut *mut anx_error) -> anx_status) -> String {
    let mut errors = vec![dangling_mut::<anx_error>(); COUNT];
    let name = check(name, 3, |outputs, error| call(outputs, errors.as_mut_ptr(), error));
    assert!(errors[..3].iter().all(|error| error.is_null()) && errors[3..].iter().all(|&error| error == dangling_mut()), "{name}");
    name
}

#[test]
fn outputs_are_null_after_every_failure() {
    let path = c"no such file".as_ptr();
    let (paths, texts): ([*const c_char; 3], _) = ([path; 3], [path; COUNT]);
    let (engine, study, pixels) = (null(), null_mut(), [0u8; 4]);
    let (files, images) = (null::<anx_file>(), null::<*const anx_pixels>());
    // SAFETY: pointers are valid or NULL, and the arrays are at least as long as the counts.
    let called = unsafe {
        [
            check("anx_engine_open", 1, |out, error| anx_engine_open(path, null(), out, error)),
            check("anx_engine_open", 1, |out, error| anx_engine_open(null(), null(), out, error)),
            check("anx_verify_bundle", 1, |out, error| anx_verify_bundle(path, null(), out, error)),
            check("anx_verify_bundle", 1, |out, error| anx_verify_bundle(null(), null(), out, error)),
            check("anx_study_from_file", 1, |out, error| anx_study_from_file(engine, path, null(), out, error)),
            check("anx_study_from_bytes", 1, |out, error| anx_study_from_bytes(engine, pixels.as_ptr(), 4, path, null(), out, error)),
            check("anx_study_from_pixels", 1, |out, error| anx_study_from_pixels(engine, null(), null(), out, error)),
            check("anx_study_cancel_handle", 1, |out, error| anx_study_cancel_handle(study, out, error)),
            check_each("anx_studies_from_files", |out, each, error| {
                anx_studies_from_files(engine, paths.as_ptr(), 3, null(), out, each, error)
            }),
            check_each("anx_studies_from_bytes", |out, each, error| anx_studies_from_bytes(engine, files, 3, null(), out, each, error)),
            check_each("anx_studies_from_pixels", |out, each, error| anx_studies_from_pixels(engine, images, 3, null(), out, each, error)),
            check("anx_study_ask", 1, |out, error| anx_study_ask(study, path, null(), out, error)),
            check("anx_study_ask_many", 3, |out, error| anx_study_ask_many(study, texts.as_ptr(), null(), 3, out, error)),
            check("anx_study_ask_many", COUNT, |out, error| anx_study_ask_many(study, texts.as_ptr(), null(), COUNT, out, error)),
            check("anx_study_structured_report", 1, |out, error| anx_study_structured_report(study, null(), 0, null(), out, error)),
            check("anx_study_presentation_state", 1, |out, error| anx_study_presentation_state(study, null(), 0, null(), out, error)),
            check("anx_study_secondary_capture", 1, |out, error| anx_study_secondary_capture(study, null(), null(), out, error)),
            check("anx_study_fhir", 1, |out, error| anx_study_fhir(study, null(), 0, null(), out, error)),
            check("anx_study_json", 1, |out, error| anx_study_json(study, out, error)),
            check("anx_study_overlay", 1, |out, error| anx_study_overlay(study, out, error)),
            check("anx_answer_json", 1, |out, error| anx_answer_json(null(), out, error)),
            check("anx_answer_overlay", 1, |out, error| anx_answer_overlay(null(), out, error)),
            check("anx_study_save", 1, |out, error| anx_study_save(study, out, error)),
            check("anx_study_load", 1, |out, error| anx_study_load(engine, pixels.as_ptr(), 4, out, error)),
        ]
    };
    // It fails for want of an output alone.
    let called = called.into_iter().chain(["anx_cancel_new".into()]);
    assert_eq!(called.collect::<BTreeSet<_>>(), with_outputs(), "functions of the header that are not called here, or the other way round");
}
