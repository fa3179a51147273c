//! Calls that fail, or do nothing, before a bundle is opened.

use super::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn versions() {
    assert_eq!(text(anx_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(anx_abi_version(), ANX_ABI_VERSION);
}

#[test]
fn names_have_an_end() {
    let names = |name: extern "C" fn(usize) -> *const c_char| {
        (0..).map(|index| name(index)).take_while(|name| !name.is_null()).map(|name| text(name).to_string()).collect::<Vec<_>>()
    };
    let (structures, labels, tasks) = (names(anx_structure_name), names(anx_label_name), names(anx_task_name));
    assert_eq!((structures.len(), structures[11].as_str()), (36, "Left lung"));
    assert_eq!((labels.len(), labels[1].as_str()), (14, "Cardiomegaly"));
    assert_eq!((tasks.len(), tasks[0].as_str()), (9, "report"));
    assert!(anx_task_name(usize::MAX).is_null());
}

#[test]
fn freeing_null_does_nothing() {
    // SAFETY: NULL is allowed.
    unsafe {
        anx_engine_free(null_mut());
        anx_study_free(null_mut());
        anx_answer_free(null_mut());
        anx_cancel_free(null_mut());
        anx_error_free(null_mut());
        anx_cancel_request(null());
        anx_cancel_reset(null());
        anx_bytes_free(null_mut());
        anx_verified_bundle_free(null_mut());
    }
}

#[test]
fn reading_null_gives_nothing() {
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        assert_eq!(anx_error_code(null()), anx_status::ANX_OK);
        assert_eq!(text(anx_error_message(null())), "");
        assert!(anx_error_cause(null()).is_null());

        assert!(anx_engine_bundle_name(null()).is_null() && anx_engine_bundle_sha256(null()).is_null());
        assert!(anx_engine_provider(null()).is_null() && anx_engine_note(null(), 0).is_null());
        assert_eq!(anx_engine_note_count(null()), 0);
        assert_eq!(
            anx_engine_study_bytes(null(), 9) + anx_study_turn_count(null()) + anx_study_cache_bytes(null(), 9) + anx_bytes_size(null()),
            0
        );
        assert!(anx_bytes_data(null()).is_null());
        assert_eq!((anx_is_saved_study(null(), 0), anx_is_saved_study(null(), 9), anx_engine_batch_size(null())), (0, 0, 0));
        assert!(anx_verified_bundle_name(null()).is_null() && anx_verified_bundle_sha256(null()).is_null());
        assert_eq!((anx_verified_bundle_file_count(null()), anx_verified_bundle_bytes(null())), (0, 0));
        assert!(anx_study_embedding(null(), 0).is_null() && anx_study_embedding_width(null()) == 0);

        assert!(anx_study_name(null()).is_null() && anx_study_provenance(null()).is_null());
        assert!(anx_study_structure(null(), 0).is_null() && anx_study_label(null(), 0).is_null());
        assert!(anx_study_flag(null(), 0).is_null() && anx_study_timing(null(), 0).is_null());
        assert_eq!((anx_study_width(null()), anx_study_height(null())), (0, 0));
        assert_eq!(anx_study_structure_count(null()) + anx_study_label_count(null()), 0);
        assert_eq!(anx_study_flag_count(null()) + anx_study_timing_count(null()), 0);

        assert!(anx_answer_text(null()).is_null() && anx_answer_question(null()).is_null() && anx_answer_task(null()).is_null());
        assert!(
            anx_answer_grounding(null(), 0).is_null() && anx_answer_evidence(null(), 0).is_null() && anx_answer_flag(null(), 0).is_null()
        );
        assert!(anx_answer_timing(null(), 0).is_null() && anx_answer_provenance(null()).is_null());
        assert_eq!(anx_answer_grounding_count(null()) + anx_answer_evidence_count(null()) + anx_answer_token_count(null()), 0);
        assert_eq!(anx_answer_flag_count(null()) + anx_answer_timing_count(null()), 0);
        assert_eq!(anx_answer_finish(null()), anx_finish::ANX_FINISH_STOPPED);
    }
}

#[test]
fn a_null_argument_is_named() {
    let (status, message, _) = open_failure(null(), null());
    assert_eq!((status, message.as_str()), (anx_status::ANX_INVALID_ARGUMENT, "the argument bundle is NULL; pass a path"));

    let (mut study, mut answer, mut cancel, mut bytes) = (null_mut(), null_mut(), null_mut(), null_mut());
    let (path, pixels) = (c"x.dcm".as_ptr(), [0u8; 4]);
    // SAFETY: NULL or valid pointers.
    let messages = unsafe {
        [
            (failure(|e| anx_engine_open(path, null(), null_mut(), e)), "engine"),
            (failure(|e| anx_study_from_file(null(), path, null(), &mut study, e)), "engine"),
            (failure(|e| anx_study_from_file(null(), path, null(), null_mut(), e)), "study"),
            (failure(|e| anx_studies_from_files(null(), &path, 1, null(), &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_studies_from_files(null(), &path, 1, null(), null_mut(), null_mut(), e)), "studies"),
            (failure(|e| anx_studies_from_bytes(null(), null(), 1, null(), &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_studies_from_pixels(null(), null(), 1, null(), &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_study_from_bytes(null(), pixels.as_ptr(), 4, null(), null(), &mut study, e)), "engine"),
            (failure(|e| anx_study_from_pixels(null(), null(), null(), &mut study, e)), "engine"),
            (failure(|e| anx_cancel_new(null_mut(), e)), "cancel"),
            (failure(|e| anx_study_ask(null_mut(), path, null(), &mut answer, e)), "study"),
            (failure(|e| anx_study_ask(null_mut(), path, null(), null_mut(), e)), "answer"),
            (failure(|e| anx_study_cancel_handle(null(), &mut cancel, e)), "study"),
            (failure(|e| anx_study_cancel_handle(null(), null_mut(), e)), "cancel"),
            (failure(|e| anx_study_rewind(null_mut(), 0, e)), "study"),
            (failure(|e| anx_study_save(null_mut(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_save(null_mut(), null_mut(), e)), "bytes"),
            (failure(|e| anx_study_structured_report(null(), null(), 0, null(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_structured_report(null(), null(), 0, null(), null_mut(), e)), "bytes"),
            (failure(|e| anx_study_presentation_state(null(), null(), 0, null(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_presentation_state(null(), null(), 0, null(), null_mut(), e)), "bytes"),
            (failure(|e| anx_study_secondary_capture(null(), null(), null(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_secondary_capture(null(), null(), null(), null_mut(), e)), "bytes"),
            (failure(|e| anx_study_fhir(null(), null(), 0, null(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_fhir(null(), null(), 0, null(), null_mut(), e)), "bytes"),
            (failure(|e| anx_study_load(null(), pixels.as_ptr(), 4, &mut study, e)), "engine"),
            (failure(|e| anx_study_load(null(), pixels.as_ptr(), 4, null_mut(), e)), "study"),
        ]
    };
    for ((status, message, _), name) in messages {
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        assert!(message.starts_with(&format!("the argument {name} is NULL; ")), "{message}");
    }
}

#[test]
fn an_error_may_be_left_out() {
    let mut engine = null_mut();
    // SAFETY: valid pointers, and NULL for what is optional.
    assert_eq!(unsafe { anx_engine_open(c"no such bundle".as_ptr(), null(), &mut engine, null_mut()) }, anx_status::ANX_BUNDLE_READ);
    assert!(engine.is_null());
}

#[test]
fn a_bad_path_is_named_with_its_cause() {
    let (status, message, cause) = open_failure(c"/no/such/bundle".as_ptr(), null());
    assert_eq!(status, anx_status::ANX_BUNDLE_READ);
    assert!(message.contains("/no/such/bundle") && message.contains("check"), "{message}");
    let cause = cause.expect("the operating system's error");
    assert!(cause.contains("No such file") && !message.contains(&cause), "{message}, {cause}");

    // What a parser said is the cause; our own words have none.
    let folder = tempfile::tempdir().unwrap();
    let path = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
    for (manifest, problem, told) in [("{", "it is not JSON", Some("EOF while parsing")), ("{}", "no schema number", None)] {
        std::fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        let (status, message, cause) = open_failure(path.as_ptr(), null());
        assert!(status == anx_status::ANX_BUNDLE && message.contains(problem), "{message}");
        assert_eq!(cause.is_some(), told.is_some());
        assert!(told.is_none_or(|told| cause.unwrap().contains(told) && !message.contains(told)), "{message}");
    }

    // A folder that lacks the manifest is a bundle that lacks a file.
    std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let (status, message, _) = open_failure(path.as_ptr(), null());
    assert!(status == anx_status::ANX_BUNDLE_MISSING && message.contains("manifest.json is missing"), "{message}");
    let (status, message, _) = open_failure(c"".as_ptr(), null());
    assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("path of the bundle is empty"), "{message}");

    // Control characters do not reach a terminal.
    let (_, message, _) = open_failure(c"/no/such/\x1b[31m\nbundle".as_ptr(), null());
    assert!(message.contains(r"/no/such/\u{1b}[31m\nbundle") && !message.contains(char::is_control), "{message}");

    // A path need not be valid UTF-8.
    let path = CString::new(OsStr::from_bytes(b"/no/such/\xff\xfe").as_bytes()).expect("no NUL");
    let (status, message, _) = open_failure(path.as_ptr(), null());
    assert_eq!(status, anx_status::ANX_BUNDLE_READ);
    assert!(message.contains("/no/such/"), "{message}");
}

#[test]
fn more_threads_than_cores_are_refused_before_anything_is_read() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let with = |threads| open_failure(c"/no/such/bundle".as_ptr(), &anx_engine_options { threads, ..options() });
    for threads in [cores + 1, 100_000, usize::MAX] {
        let (status, message, _) = with(threads);
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT, "{message}");
        assert!(message.starts_with(&format!("{threads} threads")) && message.contains(&format!("1 to {cores},")), "{message}");
    }
    // 0 is the default.
    for threads in [0, 1, cores] {
        assert_eq!(with(threads).0, anx_status::ANX_BUNDLE_READ);
    }
}

#[test]
fn options_of_other_versions() {
    let path = c"/no/such/bundle".as_ptr();
    // Options are valid if the error is about the bundle, which is checked next.
    let accepted = |options: *const anx_engine_options| open_failure(path, options).0 == anx_status::ANX_BUNDLE_READ;
    assert!(accepted(null()) && accepted(&options()));

    let unknown = c"gpu".as_ptr();
    let (status, message, _) = open_failure(path, &anx_engine_options { provider: unknown, ..options() });
    assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
    assert!(message.contains("options.provider") && message.contains("tensorrt"), "{message}");
    // A smaller struct ends before the provider, which is therefore not read.
    assert!(accepted(&anx_engine_options { struct_size: size_of::<usize>(), provider: unknown, ..options() }));

    let off = anx_switch::ANX_SWITCH_OFF as usize;
    assert!(accepted(&anx_engine_options { golden_check: off, look_up: off, memory_limit: 1 << 30, ..options() }));
    let (status, message, _) = open_failure(path, &anx_engine_options { look_up: 3, ..options() });
    assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("options.look_up is 3;"), "{message}");

    for size in [0, 3, 1 << 20] {
        let (status, message, _) = open_failure(path, &anx_engine_options { struct_size: size, ..options() });
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        assert!(message.contains("sizeof(anx_engine_options)"), "{message}");
    }

    #[repr(C)]
    struct Later {
        known: anx_engine_options,
        unknown: usize,
    }
    let later = |unknown| Later { known: anx_engine_options { struct_size: size_of::<Later>(), ..options() }, unknown };
    let (harmless, unknown) = (later(0), later(1));
    assert!(accepted((&raw const harmless).cast()));
    let (status, message, _) = open_failure(path, (&raw const unknown).cast());
    assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
    assert!(message.contains("update the library") && !message.contains("struct_size"), "{message}");
}

#[test]
fn a_public_key_is_read_and_asked_for_a_signature() {
    let bundle = file("examples/reference-bundle");
    for wrong in [c"", c"RWQ", c"a comment\nRWQ"] {
        let options = anx_engine_options { public_key: wrong.as_ptr(), ..options() };
        let (status, message, _) = open_failure(bundle.as_ptr(), &options);
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        assert!(message.starts_with("the argument options.public_key cannot be used"), "{message}");
    }
    let key = c"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let options = anx_engine_options { public_key: key.as_ptr(), ..options() };
    let (status, message, _) = open_failure(bundle.as_ptr(), &options);
    assert_eq!(status, anx_status::ANX_BUNDLE_SIGNATURE);
    assert!(message.contains("manifest.json.minisig"), "{message}");
}
