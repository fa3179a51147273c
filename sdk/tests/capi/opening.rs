//! Verifying bundles, and the progress, the deadline and the cancel handle of opening them.

use super::*;
use std::ffi::c_void;

/// What a progress callback received, and the handle that it cancels when a phase begins.
#[derive(Default)]
struct Seen {
    progress: Vec<(String, u64, u64)>,
    cancel: Option<(&'static str, *mut anx_cancel)>,
}

unsafe extern "C" fn on_progress(phase: *const c_char, done: u64, total: u64, user_data: *mut c_void) {
    // SAFETY: the tests pass a `Seen` that outlives the call, and the library calls one at a time.
    let seen = unsafe { &mut *user_data.cast::<Seen>() };
    seen.progress.push((text(phase).into(), done, total));
    if let Some((wanted, cancel)) = seen.cancel
        && wanted == text(phase)
    {
        // SAFETY: a live handle.
        unsafe { anx_cancel_request(cancel) };
    }
}

fn verifying() -> anx_verify_options {
    let struct_size = size_of::<anx_verify_options>();
    // SAFETY: the header promises that all zero means every default.
    anx_verify_options { struct_size, ..unsafe { std::mem::zeroed() } }
}

fn watched(seen: &mut Seen) -> anx_engine_options {
    anx_engine_options { progress: Some(on_progress), progress_user_data: std::ptr::from_mut(seen).cast(), ..options() }
}

#[test]
fn a_bundle_is_verified_without_an_engine() {
    let (mut bundle, mut error, mut seen) = (null_mut(), null_mut(), Seen::default());
    let watched = anx_verify_options { progress: Some(on_progress), progress_user_data: (&raw mut seen).cast(), ..verifying() };
    // SAFETY: valid pointers; handles are freed once.
    unsafe {
        let status = anx_verify_bundle(file("examples/reference-bundle").as_ptr(), &watched, &mut bundle, &mut error);
        check(status, error);
        let size = anx_verified_bundle_bytes(bundle);
        assert_eq!((text(anx_verified_bundle_sha256(bundle)).len(), anx_verified_bundle_file_count(bundle)), (64, 9));
        assert!(!text(anx_verified_bundle_name(bundle)).is_empty());
        assert_eq!(seen.progress[0], ("hashes".into(), 0, size));
        assert_eq!(seen.progress.last(), Some(&("sentences".into(), 1, 1)));

        let opened = engine();
        assert_eq!(text(anx_verified_bundle_sha256(bundle)), text(anx_engine_bundle_sha256(opened.0)));
        assert_eq!(anx_engine_batch_size(opened.0), 8);
        anx_verified_bundle_free(bundle);
    }
    let verify = |options: &anx_verify_options| {
        let mut bundle = std::ptr::dangling_mut();
        // SAFETY: valid pointers.
        let given = failure(|error| unsafe { anx_verify_bundle(file("examples/reference-bundle").as_ptr(), options, &mut bundle, error) });
        assert!(bundle.is_null());
        given
    };
    // minisign's own example.
    let public_key = c"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".as_ptr();
    assert_eq!(verify(&anx_verify_options { public_key, ..verifying() }).0, anx_status::ANX_BUNDLE_SIGNATURE);
    let (status, message, _) = verify(&anx_verify_options { public_key: c"key".as_ptr(), ..verifying() });
    assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
    assert!(message.starts_with("the argument options.public_key cannot be used"), "{message}");
}

#[test]
fn opening_and_verifying_are_stopped() {
    let (mut cancel, mut error) = (null_mut(), null_mut());
    // SAFETY: valid pointers.
    check(unsafe { anx_cancel_new(&mut cancel, &mut error) }, error);
    let folder = file("examples/reference-bundle");
    let verify = |options: &anx_verify_options| {
        let mut bundle = null_mut();
        // SAFETY: valid pointers.
        failure(|error| unsafe { anx_verify_bundle(folder.as_ptr(), options, &mut bundle, error) }).0
    };
    for phase in ["hashes", "graphs", "golden_check"] {
        let mut seen = Seen { cancel: Some((phase, cancel)), ..Seen::default() };
        let (status, message, _) = open_failure(folder.as_ptr(), &anx_engine_options { cancel, ..watched(&mut seen) });
        assert_eq!(status, anx_status::ANX_STOPPED, "{message}");
        assert_eq!(seen.progress.last().map(|(phase, ..)| phase.as_str()), Some(phase));
        // The request stays until it is withdrawn.
        assert_eq!(verify(&anx_verify_options { cancel, ..verifying() }), anx_status::ANX_STOPPED);
        // SAFETY: a live handle.
        unsafe { anx_cancel_reset(cancel) };
    }
    // Reading the bundle takes longer than a millisecond.
    let late = anx_engine_options { deadline_ms: 1, ..options() };
    assert_eq!(open_failure(folder.as_ptr(), &late).0, anx_status::ANX_DEADLINE);
    assert_eq!(verify(&anx_verify_options { deadline_ms: 1, ..verifying() }), anx_status::ANX_DEADLINE);
    for draft_cost in [-0.1, 1.1, f64::NAN] {
        let (status, message, _) = open_failure(folder.as_ptr(), &anx_engine_options { draft_cost, ..options() });
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        assert!(message.starts_with("the argument options.draft_cost is "), "{message}");
    }
    // SAFETY: freed once.
    unsafe { anx_cancel_free(cancel) };
}

#[test]
fn perceiving_several_files_tells_how_many_are_done() {
    let engine = engine();
    let (phantom, missing) = (file("examples/phantom.dcm"), file("no/such.dcm"));
    // A file that fails counts, too.
    let mut paths = [phantom.as_ptr(); 10];
    paths[3] = missing.as_ptr();
    let (mut studies, mut seen) = ([null_mut(); 10], Seen::default());
    let struct_size = size_of::<anx_perceive_options>();
    // SAFETY: the header promises that all zero means every default.
    let options = anx_perceive_options { struct_size, ..unsafe { std::mem::zeroed() } };
    let options = anx_perceive_options { progress: Some(on_progress), progress_user_data: (&raw mut seen).cast(), ..options };
    // SAFETY: valid pointers; handles are freed once.
    unsafe {
        let status = anx_studies_from_files(engine.0, paths.as_ptr(), paths.len(), &options, studies.as_mut_ptr(), null_mut(), null_mut());
        assert_eq!(status, anx_status::ANX_RADIOGRAPH_READ);
        studies.into_iter().for_each(|study| anx_study_free(study));
    }
    let done = [0, 1, 8, 10].map(|done| ("perceive".to_string(), done, 10));
    assert_eq!(seen.progress, done);
}
