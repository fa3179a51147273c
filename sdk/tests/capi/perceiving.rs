//! Deadlines and cancel handles of perceiving.

use super::*;
use std::ffi::c_void;

fn perceiving() -> anx_perceive_options {
    let struct_size = size_of::<anx_perceive_options>();
    // SAFETY: the header promises that all zero means every default.
    anx_perceive_options { struct_size, ..unsafe { std::mem::zeroed() } }
}

fn cancel() -> *mut anx_cancel {
    let (mut cancel, mut error) = (null_mut(), null_mut());
    // SAFETY: valid pointers.
    check(unsafe { anx_cancel_new(&mut cancel, &mut error) }, error);
    cancel
}

#[test]
fn perceiving_ends_with_its_deadline_or_cancel_handle_and_the_engine_goes_on() {
    let engine = engine();
    let phantom = file("examples/phantom.dcm");
    let cancel = cancel();
    let open = |options: &anx_perceive_options, study: &mut *mut anx_study, error| {
        // SAFETY: valid pointers.
        unsafe { anx_study_from_file(engine.0, phantom.as_ptr(), options, study, error) }
    };
    let cancelled = anx_perceive_options { cancel, ..perceiving() };
    let patient = anx_perceive_options { cancel, deadline_ms: 600_000, ..perceiving() };
    for (stopped, status) in [
        // Reading and preprocessing take longer than a millisecond.
        (anx_perceive_options { deadline_ms: 1, ..perceiving() }, anx_status::ANX_DEADLINE),
        (cancelled, anx_status::ANX_STOPPED),
        (patient, anx_status::ANX_STOPPED),
    ] {
        let mut study = null_mut();
        if !stopped.cancel.is_null() {
            // SAFETY: a live handle.
            unsafe { anx_cancel_request(cancel) };
        }
        let (found, message, _) = failure(|error| open(&stopped, &mut study, error));
        assert_eq!((found, study.is_null()), (status, true), "{message}");
        // Without the handle, with another one, and with time the engine perceives as before.
        let other = self::cancel();
        let (mut study, mut error) = (null_mut(), null_mut());
        check(open(&anx_perceive_options { cancel: other, deadline_ms: 600_000, ..perceiving() }, &mut study, &mut error), error);
        // SAFETY: live handles, freed once.
        unsafe {
            assert_eq!(anx_study_structure_count(study), 36);
            anx_study_free(study);
            anx_cancel_free(other);
        }
    }
    // SAFETY: a live handle, freed once; a handle may be freed before the study's.
    unsafe { anx_cancel_free(cancel) };
}

/// Cancels when the first study is logged. `user_data` is the cancel handle.
unsafe extern "C" fn cancel_at_first_study(_: anx_log_level, message: *const c_char, _: usize, user_data: *mut c_void) {
    if text(message).starts_with("study ") {
        // SAFETY: the test passes a live handle.
        unsafe { anx_cancel_request(user_data.cast()) };
    }
}

#[test]
fn a_stop_ends_the_batch_and_keeps_what_is_finished() {
    let cancel = cancel();
    let options = anx_engine_options { log: Some(cancel_at_first_study), log_user_data: cancel.cast(), ..options() };
    let (mut engine, mut error) = (null_mut(), null_mut());
    let bundle = file("examples/reference-bundle");
    // SAFETY: valid pointers.
    check(unsafe { anx_engine_open(bundle.as_ptr(), &options, &mut engine, &mut error) }, error);
    let engine = Engine(engine);
    let phantom = file("examples/phantom.dcm");
    let paths = [phantom.as_ptr(); 20];
    let (mut studies, mut errors) = ([null_mut(); 20], [null_mut(); 20]);
    let limited = anx_perceive_options { cancel, ..perceiving() };
    let (status, message, _) = failure(|error| {
        // SAFETY: valid pointers, as many as are said.
        unsafe { anx_studies_from_files(engine.0, paths.as_ptr(), 20, &limited, studies.as_mut_ptr(), errors.as_mut_ptr(), error) }
    });
    assert_eq!(status, anx_status::ANX_STOPPED, "{message}");
    // One run takes 8 of them; the handle was used while the first 8 became studies.
    let made = studies.iter().take_while(|study| !study.is_null()).count();
    assert!((1..=8).contains(&made) && studies[made..].iter().all(|study| study.is_null()), "{made} studies");
    // SAFETY: live handles, freed once.
    unsafe {
        assert!(errors[made..].iter().all(|&error| anx_error_code(error) == anx_status::ANX_STOPPED));
        studies.into_iter().for_each(|study| anx_study_free(study));
        errors.into_iter().for_each(|error| anx_error_free(error));
        anx_study_free(study(&engine));
        drop(engine);
        anx_cancel_free(cancel);
    }
}
