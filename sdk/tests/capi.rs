//! The C interface from a caller's side, including NULLs and misuse. The first tests need no bundle; those of the module `with_bundle` need
//! `examples/reference-bundle` and ONNX Runtime, and fail without them.
#![allow(unsafe_code)]

use anatomix::capi::*;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

/// A file of the repository.
fn file(path: &str) -> CString {
    CString::new(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).expect("no NUL")
}

fn text<'a>(borrowed: *const c_char) -> &'a str {
    assert!(!borrowed.is_null());
    // SAFETY: the library lends NUL-terminated strings; tests keep their handles long enough.
    unsafe { CStr::from_ptr(borrowed) }.to_str().expect("UTF-8")
}

/// Runs a call that must fail. Returns status, message and cause.
fn failure(call: impl FnOnce(*mut *mut anx_error) -> anx_status) -> (anx_status, String, Option<String>) {
    let mut error = null_mut();
    let status = call(&mut error);
    assert_ne!(status, anx_status::ANX_OK);
    // SAFETY: a failed call gives an error, which is freed once.
    unsafe {
        assert_eq!(anx_error_code(error), status);
        let cause = anx_error_cause(error);
        let given = (status, text(anx_error_message(error)).to_string(), (!cause.is_null()).then(|| text(cause).to_string()));
        anx_error_free(error);
        given
    }
}

fn open_failure(bundle: *const c_char, options: *const anx_engine_options) -> (anx_status, String, Option<String>) {
    // Must be overwritten by NULL.
    let mut engine = std::ptr::dangling_mut();
    // SAFETY: the tests pass valid pointers or NULL.
    let given = failure(|error| unsafe { anx_engine_open(bundle, options, &mut engine, error) });
    assert!(engine.is_null());
    given
}

fn options() -> anx_engine_options {
    anx_engine_options {
        struct_size: size_of::<anx_engine_options>(),
        provider: null(),
        threads: 0,
        library: null(),
        memory_limit: 0,
        golden_check: 0,
        look_up: 0,
    }
}

#[test]
fn versions() {
    assert_eq!(text(anx_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(anx_abi_version(), ANX_ABI_VERSION);
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
        anx_bytes_free(null_mut());
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
        assert_eq!(anx_engine_study_bytes(null(), 9) + anx_study_turns(null()) + anx_bytes_size(null()), 0);
        assert!(anx_bytes_data(null()).is_null());

        assert!(anx_study_name(null()).is_null() && anx_study_provenance(null()).is_null());
        assert!(anx_study_structure(null(), 0).is_null() && anx_study_label(null(), 0).is_null());
        assert!(anx_study_flag(null(), 0).is_null() && anx_study_timing(null(), 0).is_null());
        assert_eq!((anx_study_width(null()), anx_study_height(null())), (0, 0));
        assert_eq!(anx_study_structure_count(null()) + anx_study_label_count(null()), 0);
        assert_eq!(anx_study_flag_count(null()) + anx_study_timing_count(null()), 0);

        assert!(anx_answer_text(null()).is_null() && anx_answer_question(null()).is_null() && anx_answer_task(null()).is_null());
        assert!(anx_answer_grounding(null(), 0).is_null() && anx_answer_flag(null(), 0).is_null());
        assert!(anx_answer_timing(null(), 0).is_null() && anx_answer_provenance(null()).is_null());
        assert_eq!(anx_answer_grounding_count(null()) + anx_answer_tokens(null()), 0);
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
            (failure(|e| anx_study_from_file(null(), path, &mut study, e)), "engine"),
            (failure(|e| anx_study_from_file(null(), path, null_mut(), e)), "study"),
            (failure(|e| anx_studies_from_files(null(), &path, 1, &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_studies_from_files(null(), &path, 1, null_mut(), null_mut(), e)), "studies"),
            (failure(|e| anx_studies_from_bytes(null(), null(), 1, &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_studies_from_pixels(null(), null(), 1, &mut study, null_mut(), e)), "engine"),
            (failure(|e| anx_study_from_bytes(null(), pixels.as_ptr(), 4, null(), &mut study, e)), "engine"),
            (failure(|e| anx_study_from_pixels_u8(null(), 2, 2, pixels.as_ptr(), 4, &mut study, e)), "engine"),
            (failure(|e| anx_study_from_pixels_u16(null(), 2, 2, null(), 4, &mut study, e)), "engine"),
            (failure(|e| anx_study_ask(null_mut(), path, null(), &mut answer, e)), "study"),
            (failure(|e| anx_study_ask(null_mut(), path, null(), null_mut(), e)), "answer"),
            (failure(|e| anx_study_cancel_handle(null(), &mut cancel, e)), "study"),
            (failure(|e| anx_study_cancel_handle(null(), null_mut(), e)), "cancel"),
            (failure(|e| anx_study_rewind(null_mut(), 0, e)), "study"),
            (failure(|e| anx_study_save(null_mut(), &mut bytes, e)), "study"),
            (failure(|e| anx_study_save(null_mut(), null_mut(), e)), "bytes"),
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

    let off = anx_switch::ANX_OFF as usize;
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
    assert!(message.contains("too old"), "{message}");
}

mod with_bundle {
    use super::*;
    use std::ffi::{c_int, c_void};
    use std::thread;
    use std::time::Duration;

    const ON: usize = anx_switch::ANX_ON as usize;

    struct Engine(*mut anx_engine);
    // SAFETY: the header lets threads share an engine.
    unsafe impl Sync for Engine {}
    impl Drop for Engine {
        fn drop(&mut self) {
            // SAFETY: freed once.
            unsafe { anx_engine_free(self.0) }
        }
    }

    fn check(status: anx_status, error: *mut anx_error) {
        // SAFETY: NULL or live.
        assert_eq!(status, anx_status::ANX_OK, "{}", text(unsafe { anx_error_message(error) }));
        assert!(error.is_null());
    }

    fn engine() -> Engine {
        let (mut engine, mut error) = (null_mut(), null_mut());
        let options = anx_engine_options { provider: c"cpu".as_ptr(), ..options() };
        // SAFETY: valid pointers.
        let status = unsafe { anx_engine_open(file("examples/reference-bundle").as_ptr(), &options, &mut engine, &mut error) };
        check(status, error);
        Engine(engine)
    }

    fn study(engine: &Engine) -> *mut anx_study {
        let (mut study, mut error) = (null_mut(), null_mut());
        // SAFETY: valid pointers.
        let status = unsafe { anx_study_from_file(engine.0, file("examples/phantom.dcm").as_ptr(), &mut study, &mut error) };
        check(status, error);
        study
    }

    #[test]
    fn several_files_give_a_study_each_or_an_error() {
        let engine = engine();
        let [phantom, missing] = ["examples/phantom.dcm", "examples/no such.dcm"].map(file);
        let open = |paths: &[*const c_char], studies: &mut [*mut anx_study], error| {
            assert_eq!(paths.len(), studies.len());
            // SAFETY: valid pointers, as many as are said.
            unsafe { anx_studies_from_files(engine.0, paths.as_ptr(), paths.len(), studies.as_mut_ptr(), null_mut(), error) }
        };
        let mut studies = [null_mut(); 10];
        let mut error = null_mut();
        let status = open(&[phantom.as_ptr(); 10], &mut studies, &mut error);
        check(status, error);
        let alone = study(&engine);
        for study in studies {
            // SAFETY: live handles, freed once.
            unsafe {
                assert_eq!(anx_study_structure_count(study), 36);
                let [a, b] = [study, alone].map(|study| anx_study_structure(study, 11));
                assert_eq!((text((*a).sentence), (*a).bounds.x0.round()), (text((*b).sentence), (*b).bounds.x0.round()));
                anx_study_free(study);
            }
        }
        // SAFETY: freed once.
        unsafe { anx_study_free(alone) };
        // A radiograph that fails does not affect those before or after it.
        let (mut studies, mut errors) = ([std::ptr::dangling_mut(); 3], [std::ptr::dangling_mut(); 3]);
        let paths = [&phantom, &missing, &phantom].map(|path| path.as_ptr());
        let (status, message, _) = failure(|error| {
            // SAFETY: valid pointers, as many as are said.
            unsafe { anx_studies_from_files(engine.0, paths.as_ptr(), 3, studies.as_mut_ptr(), errors.as_mut_ptr(), error) }
        });
        assert_eq!(status, anx_status::ANX_RADIOGRAPH_READ);
        assert!(message.contains("no such.dcm"), "{message}");
        assert_eq!(studies.map(|study| study.is_null()), [false, true, false]);
        assert_eq!(errors.map(|error| error.is_null()), [true, false, true]);
        // SAFETY: live handles, freed once.
        unsafe {
            assert_eq!((anx_error_code(errors[1]), text(anx_error_message(errors[1]))), (status, message.as_str()));
            anx_error_free(errors[1]);
            studies.into_iter().for_each(|study| anx_study_free(study));
        }
        let mut studies = [std::ptr::dangling_mut(); 2];
        let (status, message, _) = failure(|error| open(&[phantom.as_ptr(), null()], &mut studies, error));
        assert_eq!((status, message.as_str()), (anx_status::ANX_INVALID_ARGUMENT, "the argument paths is NULL; pass a path"));
        assert!(studies.iter().all(|study| study.is_null()));
        let status = open(&[], &mut [], &mut error);
        check(status, error);
    }

    #[test]
    fn several_images_are_what_they_are_alone() {
        let engine = engine();
        let radiograph = anatomix::Radiograph::open(file("examples/phantom.dcm").to_str().unwrap()).unwrap();
        let shown = radiograph.intensities().unwrap();
        let coarse: Vec<u8> = shown.iter().map(|v| (v * 255.0) as u8).collect();
        let fine: Vec<u16> = shown.iter().map(|v| (v * 65535.0) as u16).collect();
        let (width, height, count) = (radiograph.width(), radiograph.height(), fine.len());
        let images = [
            anx_pixels { values: coarse.as_ptr().cast(), count, width, height, bits: 8 },
            anx_pixels { values: fine.as_ptr().cast(), count, width, height, bits: 16 },
        ];
        let open = |images: &[anx_pixels], studies: &mut [*mut anx_study], error| {
            // SAFETY: valid pointers, as many as are said.
            unsafe { anx_studies_from_pixels(engine.0, images.as_ptr(), images.len(), studies.as_mut_ptr(), null_mut(), error) }
        };
        let (mut studies, mut error) = ([null_mut(); 2], null_mut());
        let status = open(&images, &mut studies, &mut error);
        check(status, error);
        let (mut alone, mut error) = (null_mut(), null_mut());
        // SAFETY: valid pointers; live handles, freed once.
        unsafe {
            let status = anx_study_from_pixels_u16(engine.0, width, height, fine.as_ptr(), count, &mut alone, &mut error);
            check(status, error);
            let [a, b] = [studies[1], alone].map(|study| anx_study_structure(study, 11));
            assert_eq!((text((*a).sentence), (*a).bounds.x0.round()), (text((*b).sentence), (*b).bounds.x0.round()));
            assert_eq!(anx_study_width(studies[0]), width);
            [studies[0], studies[1], alone].into_iter().for_each(|study| anx_study_free(study));
        }
        let odd = fine.as_ptr().wrapping_byte_add(1);
        let few = anx_pixels { count: count - 1, ..images[1] };
        let (_, message, _) = failure(|error| open(&[images[0], few], &mut studies, error));
        assert!(message.contains("pixels") && !studies[0].is_null() && studies[1].is_null(), "{message}");
        // SAFETY: a live handle, freed once.
        unsafe { anx_study_free(studies[0]) };
        for (wrong, what) in [
            (anx_pixels { bits: 12, ..images[1] }, "12 bits"),
            (anx_pixels { values: odd.cast(), ..images[1] }, "aligned"),
            (anx_pixels { values: null(), ..images[0] }, "images.values is NULL"),
        ] {
            let mut studies = [std::ptr::dangling_mut(); 2];
            let (_, message, _) = failure(|error| open(&[images[0], wrong], &mut studies, error));
            assert!(message.contains(what) && studies.iter().all(|study| study.is_null()), "{message}");
        }
    }

    #[test]
    fn several_files_in_memory_are_what_they_are_alone() {
        let engine = engine();
        let phantom = std::fs::read(file("examples/phantom.dcm").to_str().unwrap()).unwrap();
        let whole = anx_file { bytes: phantom.as_ptr(), size: phantom.len(), name: c"first".as_ptr() };
        let open = |files: &[anx_file], studies: &mut [*mut anx_study], error| {
            assert_eq!(files.len(), studies.len());
            // SAFETY: valid pointers, as many as are said.
            unsafe { anx_studies_from_bytes(engine.0, files.as_ptr(), files.len(), studies.as_mut_ptr(), null_mut(), error) }
        };
        let (mut studies, mut error) = ([null_mut(); 2], null_mut());
        let status = open(&[whole, anx_file { name: null(), ..whole }], &mut studies, &mut error);
        check(status, error);
        let alone = study(&engine);
        for (study, name) in studies.into_iter().zip(["first", "bytes"]) {
            // SAFETY: live handles, freed once.
            unsafe {
                assert_eq!(text(anx_study_name(study)), name);
                let [a, b] = [study, alone].map(|study| anx_study_structure(study, 11));
                assert_eq!((text((*a).sentence), (*a).bounds.x0.round()), (text((*b).sentence), (*b).bounds.x0.round()));
                anx_study_free(study);
            }
        }
        // SAFETY: freed once.
        unsafe { anx_study_free(alone) };
        let cut = anx_file { size: 200, name: c"cut short".as_ptr(), ..whole };
        let mut studies = [std::ptr::dangling_mut(); 2];
        let (_, message, _) = failure(|error| open(&[cut, whole], &mut studies, error));
        assert!(message.contains("cut short") && studies[0].is_null() && !studies[1].is_null(), "{message}");
        // SAFETY: a live handle, freed once.
        unsafe { anx_study_free(studies[1]) };
        let (status, message, _) = failure(|error| open(&[whole, anx_file { bytes: null(), ..whole }], &mut studies, error));
        assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
        assert_eq!(message, "the argument files is NULL; pass the address of the data");
    }

    fn ask(study: *mut anx_study, question: &CStr, options: &anx_ask_options) -> *mut anx_answer {
        let (mut answer, mut error) = (null_mut(), null_mut());
        // SAFETY: valid pointers.
        let status = unsafe { anx_study_ask(study, question.as_ptr(), options, &mut answer, &mut error) };
        check(status, error);
        answer
    }

    fn asking() -> anx_ask_options {
        let struct_size = size_of::<anx_ask_options>();
        // SAFETY: the header promises that all zero means every default.
        anx_ask_options { struct_size, ..unsafe { std::mem::zeroed() } }
    }

    #[test]
    fn an_engine_tells_what_it_is() {
        let engine = engine();
        // SAFETY: a live handle.
        unsafe {
            assert!(!text(anx_engine_bundle_name(engine.0)).is_empty());
            assert_eq!(text(anx_engine_bundle_sha256(engine.0)).len(), 64);
            assert_eq!(text(anx_engine_provider(engine.0)), "cpu");
            assert!(anx_engine_note(engine.0, anx_engine_note_count(engine.0)).is_null());
        }
    }

    #[test]
    fn a_study_outlives_its_engine_and_lends_what_it_found() {
        let study = study(&engine());
        // SAFETY: a live handle, and what it lends while it lives.
        unsafe {
            let (width, height) = (anx_study_width(study) as f32, anx_study_height(study) as f32);
            assert!(width >= 32.0 && height >= 32.0 && text(anx_study_name(study)).ends_with("phantom.dcm"));
            assert_eq!((anx_study_structure_count(study), anx_study_label_count(study)), (36, 14));
            for index in 0..36 {
                let structure = *anx_study_structure(study, index);
                assert_eq!(structure.index as usize, index);
                let b = structure.bounds;
                assert!(0.0 <= b.x0 && b.x0 <= b.x1 && b.x1 <= width && 0.0 <= b.y0 && b.y0 <= b.y1 && b.y1 <= height, "{b:?}");
                assert!(!text(structure.name).is_empty() && !text(structure.sentence).is_empty());
                assert!((-1.01..=1.01).contains(&structure.similarity) && structure.margin >= 0.0);
            }
            assert_eq!(text((*anx_study_structure(study, 11)).name), "Left lung");
            assert_eq!(text((*anx_study_label(study, 9)).name), "Pleural Effusion");
            assert!((0.0..=1.0).contains(&(*anx_study_label(study, 0)).score));
            assert!(anx_study_structure(study, 36).is_null() && anx_study_label(study, usize::MAX).is_null());
            assert!(anx_study_flag(study, anx_study_flag_count(study)).is_null());
            for index in 0..anx_study_flag_count(study) {
                assert!(!text((*anx_study_flag(study, index)).message).is_empty());
            }
            assert!(anx_study_timing_count(study) > 0 && (*anx_study_timing(study, 0)).milliseconds >= 0.0);
            let provenance = *anx_study_provenance(study);
            assert_eq!(text(provenance.intended_use), "research use, not a medical device");
            assert!(text(provenance.onnx_runtime).starts_with("1."), "{}", text(provenance.onnx_runtime));
            assert_eq!(text(provenance.input_sha256).len(), 64);
            anx_study_free(study);
        }
    }

    #[test]
    fn radiographs_that_cannot_be_used() {
        use anx_status::*;
        let engine = engine();
        let mut study = std::ptr::dangling_mut();
        let pixels = vec![0u16; 64 * 64];
        // SAFETY: valid pointers or NULL; counts are true or refused.
        unsafe {
            let engine = engine.0;
            let (words, bytes) = (pixels.as_ptr(), pixels.as_ptr().cast::<u8>());
            let cases = [
                (failure(|e| anx_study_from_file(engine, c"/no/such.dcm".as_ptr(), &mut study, e)), ANX_RADIOGRAPH_READ),
                (failure(|e| anx_study_from_bytes(engine, b"text".as_ptr(), 4, null(), &mut study, e)), ANX_RADIOGRAPH_FORMAT),
                (failure(|e| anx_study_from_bytes(engine, b"".as_ptr(), 0, null(), &mut study, e)), ANX_RADIOGRAPH_DAMAGED),
                (failure(|e| anx_study_from_pixels_u8(engine, 8, 8, bytes, 64, &mut study, e)), ANX_RADIOGRAPH_SIZE),
                (failure(|e| anx_study_from_pixels_u16(engine, 64, 65, words, 4096, &mut study, e)), ANX_RADIOGRAPH_SIZE),
                (failure(|e| anx_study_from_pixels_u16(engine, 64, 64, words, usize::MAX, &mut study, e)), ANX_INVALID_ARGUMENT),
                (failure(|e| anx_study_from_pixels_u16(engine, 64, 64, words.byte_add(1), 64, &mut study, e)), ANX_INVALID_ARGUMENT),
                (failure(|e| anx_study_from_pixels_u8(engine, 64, 64, null(), 4096, &mut study, e)), ANX_INVALID_ARGUMENT),
            ];
            for ((status, message, _), expected) in cases {
                assert_eq!(status, expected, "{message}");
            }
        }
        assert!(study.is_null());
    }

    #[test]
    fn pixels_of_both_depths_agree() {
        let engine = engine();
        let narrow: Vec<u8> = (0..256 * 200).map(|i| ((i % 256) ^ (i / 256)) as u8).collect();
        let wide: Vec<u16> = narrow.iter().map(|&v| u16::from(v) * 257).collect();
        let (mut a, mut b, mut error) = (null_mut(), null_mut(), null_mut());
        // SAFETY: valid pointers, true counts, live handles.
        unsafe {
            check(anx_study_from_pixels_u8(engine.0, 256, 200, narrow.as_ptr(), narrow.len(), &mut a, &mut error), error);
            check(anx_study_from_pixels_u16(engine.0, 256, 200, wide.as_ptr(), wide.len(), &mut b, &mut error), error);
            let (left, right) = ((*anx_study_structure(a, 4)).bounds, (*anx_study_structure(b, 4)).bounds);
            assert!((left.x0 - right.x0).abs() < 0.5 && (left.y1 - right.y1).abs() < 0.5, "{left:?} {right:?}");
            anx_study_free(a);
            anx_study_free(b);
        }
    }

    unsafe extern "C" fn gather(piece: *const c_char, length: usize, user_data: *mut c_void) -> c_int {
        let piece = text(piece);
        assert_eq!(piece.len(), length);
        // SAFETY: the tests pass a string.
        unsafe { &mut *user_data.cast::<String>() }.push_str(piece);
        anx_flow::ANX_CONTINUE as c_int
    }

    #[test]
    fn an_answer_streams_what_it_says() {
        let study = study(&engine());
        let mut streamed = String::new();
        let options =
            anx_ask_options { task: c"report".as_ptr(), callback: Some(gather), user_data: (&raw mut streamed).cast(), ..asking() };
        let answer = ask(study, c"", &options);
        // SAFETY: live handles; the answer outlives the study.
        unsafe {
            anx_study_free(study);
            assert_eq!(text(anx_answer_text(answer)), streamed);
            assert!(!streamed.is_empty() && anx_answer_tokens(answer) > 0);
            assert_eq!(text(anx_answer_task(answer)), "report");
            assert_eq!(anx_answer_finish(answer), anx_finish::ANX_FINISH_END_OF_TURN);
            for index in 0..anx_answer_grounding_count(answer) {
                let grounding = *anx_answer_grounding(answer, index);
                assert!(!text(grounding.phrase).is_empty() && !grounding.boxes.is_null());
            }
            assert!(anx_answer_grounding(answer, anx_answer_grounding_count(answer)).is_null());
            assert_eq!(text((*anx_answer_provenance(answer)).decoding), "greedy, grounded");
            anx_answer_free(answer);
        }
    }

    #[test]
    fn options_say_how_an_answer_is_decoded() {
        let study = study(&engine());
        let report = |options: anx_ask_options| ask(study, c"", &anx_ask_options { task: c"report".as_ptr(), ..options });
        let stops = [c"never said".as_ptr(), c"Impression".as_ptr()];
        // SAFETY: live handles; every answer is freed once.
        unsafe {
            let whole = report(anx_ask_options { log_probabilities: ON, ..asking() });
            let values = std::slice::from_raw_parts(anx_answer_log_probabilities(whole), anx_answer_tokens(whole));
            assert!(values.iter().all(|&value| value <= 0.0 && value.is_finite()), "{values:?}");
            let cut = report(anx_ask_options { stop: stops.as_ptr(), stop_count: stops.len(), ..asking() });
            assert_eq!(anx_answer_finish(cut), anx_finish::ANX_FINISH_STOP_TEXT);
            assert_eq!(text(anx_answer_text(whole)).split("Impression").next(), Some(text(anx_answer_text(cut))));
            assert!(anx_answer_log_probabilities(cut).is_null());
            let late = report(anx_ask_options { deadline_ms: 1, ..asking() });
            assert_eq!(anx_answer_finish(late), anx_finish::ANX_FINISH_DEADLINE);
            let drawn = [1, 2, 1].map(|seed| report(anx_ask_options { temperature: 3.0, max_tokens: 40, seed, ..asking() }));
            let [one, two, again] = drawn.map(|answer| text(anx_answer_text(answer)));
            assert!(one == again && one != two, "{one:?} {two:?} {again:?}");
            let mut answer = std::ptr::dangling_mut();
            let wild = anx_ask_options { top_p: 2.0, ..asking() };
            let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &wild, &mut answer, e));
            assert!(status == anx_status::ANX_DECODER && message.contains("top_p is 2"), "{status:?} {message}");
            let lost = anx_ask_options { stop_count: 1, ..asking() };
            let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &lost, &mut answer, e));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("options.stop"), "{message}");
            let schema = anx_ask_options { json_schema: c"{\"enum\": [\"<a>\", \"<b>\"]}".as_ptr(), temperature: 3.0, ..asking() };
            let json = ask(study, c"Which?", &schema);
            assert!(["\"<a>\"", "\"<b>\""].contains(&text(anx_answer_text(json))), "{}", text(anx_answer_text(json)));
            let free = ask(study, c"Which?", &anx_ask_options { unconstrained: ON, ..asking() });
            assert_eq!(text((*anx_answer_provenance(free)).decoding), "greedy, unconstrained");
            let (status, message, _) =
                failure(|e| anx_study_ask(study, c"x".as_ptr(), &anx_ask_options { unconstrained: ON, ..schema }, &mut answer, e));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("options.unconstrained"), "{message}");
            let bad = anx_ask_options { json_schema: c"{\"type\": 1}".as_ptr(), ..asking() };
            let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &bad, &mut answer, e));
            assert!(status == anx_status::ANX_DECODER_SCHEMA && message.contains("JSON schema"), "{status:?} {message}");
            for answer in [whole, cut, late, json, free].into_iter().chain(drawn) {
                anx_answer_free(answer);
            }
            anx_study_free(study);
        }
    }

    #[test]
    fn questions_are_asked_together() {
        let study = study(&engine());
        let questions = [c"Where is the left lung?".as_ptr(), null(), c"Is there a pleural effusion?".as_ptr()];
        let mut streamed = String::new();
        let report =
            anx_ask_options { task: c"report".as_ptr(), callback: Some(gather), user_data: (&raw mut streamed).cast(), ..asking() };
        let options = [null(), &raw const report, null()];
        let mut answers = [std::ptr::dangling_mut(); 3];
        // SAFETY: live handles, arrays of the counts that are passed; every answer is freed once.
        unsafe {
            let mut error = null_mut();
            check(anx_study_ask_many(study, questions.as_ptr(), options.as_ptr(), 3, answers.as_mut_ptr(), &mut error), error);
            let alone = [
                ask(study, c"Where is the left lung?", &asking()),
                ask(study, c"", &anx_ask_options { task: c"report".as_ptr(), ..asking() }),
                ask(study, c"Is there a pleural effusion?", &asking()),
            ];
            for (together, alone) in answers.into_iter().zip(alone) {
                assert_eq!(text(anx_answer_text(together)), text(anx_answer_text(alone)));
                assert_eq!(anx_answer_grounding_count(together), anx_answer_grounding_count(alone));
                anx_answer_free(alone);
            }
            assert_eq!(text(anx_answer_text(answers[1])), streamed);
            answers.into_iter().for_each(|answer| anx_answer_free(answer));

            // One invalid question is an error for all of them, and no questions give no answers.
            let (status, message, _) = failure(|e| anx_study_ask_many(study, questions.as_ptr(), null(), 3, answers.as_mut_ptr(), e));
            assert!(status == anx_status::ANX_PROMPT_QUESTION && message.contains("empty"), "{status:?} {message}");
            assert!(answers.iter().all(|answer| answer.is_null()));
            check(anx_study_ask_many(study, null(), null(), 0, null_mut(), &mut error), error);
            let mut too_many = vec![std::ptr::dangling_mut(); 1025];
            for (questions, count, answers, name) in [
                (null(), 1, answers.as_mut_ptr(), "questions"),
                (questions.as_ptr(), 1, null_mut(), "answers"),
                (questions.as_ptr(), 1025, too_many.as_mut_ptr(), "count"),
            ] {
                let (status, message, _) = failure(|e| anx_study_ask_many(study, questions, null(), count, answers, e));
                assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains(name), "{message}");
            }
            assert!(too_many.iter().all(|answer| answer.is_null()));
            anx_study_free(study);
        }
    }

    #[test]
    fn conversations_go_on_go_back_and_are_saved() {
        let engine = engine();
        let study = study(&engine);
        let follow_up = anx_ask_options { follow_up: ON, ..asking() };
        // SAFETY: live handles; everything is freed once.
        unsafe {
            let first = ask(study, c"Where is the left lung?", &asking());
            let second = ask(study, c"Is there a pleural effusion?", &follow_up);
            assert_eq!(anx_study_turns(study), 2);
            assert_eq!(anx_study_rewind(study, 1, null_mut()), anx_status::ANX_OK);
            assert_eq!(anx_study_turns(study), 1);
            let again = ask(study, c"Is there a pleural effusion?", &follow_up);
            assert_eq!(text(anx_answer_text(again)), text(anx_answer_text(second)));

            let mut bytes = null_mut();
            assert_eq!(anx_study_save(study, &mut bytes, null_mut()), anx_status::ANX_OK);
            let (data, size) = (anx_bytes_data(bytes), anx_bytes_size(bytes));
            assert!(size > anx_engine_study_bytes(engine.0, 300));
            let mut loaded = null_mut();
            assert_eq!(anx_study_load(engine.0, data, size, &mut loaded, null_mut()), anx_status::ANX_OK);
            let (status, message, _) = failure(|e| anx_study_load(engine.0, data, size - 1, &mut null_mut(), e));
            assert!(status == anx_status::ANX_SAVED && message.contains("is damaged, or no saved study"), "{message}");
            anx_bytes_free(bytes);
            assert_eq!((anx_study_turns(loaded), anx_study_width(loaded)), (0, anx_study_width(study)));
            let other = ask(loaded, c"Where is the left lung?", &asking());
            assert_eq!(text(anx_answer_text(other)), text(anx_answer_text(first)));
            for answer in [first, second, again, other] {
                anx_answer_free(answer);
            }
            anx_study_free(loaded);
            anx_study_free(study);
        }
    }

    #[test]
    fn questions_that_cannot_be_asked() {
        let study = study(&engine());
        let mut answer = std::ptr::dangling_mut();
        let unknown = anx_ask_options { task: c"poem".as_ptr(), ..asking() };
        let short = anx_ask_options { struct_size: 0, ..asking() };
        // SAFETY: valid pointers or NULL.
        unsafe {
            let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &unknown, &mut answer, e));
            assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
            assert!(message.contains("\"poem\"") && message.contains("phrase_grounding"), "{message}");
            let (status, ..) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &short, &mut answer, e));
            assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
            let (status, message, _) = failure(|e| anx_study_ask(study, c"\xff".as_ptr(), null(), &mut answer, e));
            assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
            assert!(message.contains("question"), "{message}");
            for question in [null(), c"<end_of_turn>".as_ptr()] {
                let (status, ..) = failure(|e| anx_study_ask(study, question, null(), &mut answer, e));
                assert_eq!(status, anx_status::ANX_PROMPT_QUESTION);
            }
            assert!(answer.is_null());
            anx_study_free(study);
        }
    }

    unsafe extern "C" fn stop(_: *const c_char, _: usize, _: *mut c_void) -> c_int {
        anx_flow::ANX_STOP as c_int
    }

    #[test]
    fn a_callback_stops_an_answer_and_the_study_goes_on() {
        let study = study(&engine());
        let report = anx_ask_options { task: c"report".as_ptr(), ..asking() };
        let stopped = ask(study, c"", &anx_ask_options { callback: Some(stop), ..report });
        let limited = ask(study, c"", &anx_ask_options { max_tokens: 3, ..report });
        let whole = ask(study, c"", &report);
        // SAFETY: live handles.
        unsafe {
            assert_eq!(anx_answer_finish(stopped), anx_finish::ANX_FINISH_STOPPED);
            assert_eq!(anx_answer_finish(limited), anx_finish::ANX_FINISH_MAX_TOKENS);
            assert_eq!(anx_answer_tokens(limited), 3);
            assert_eq!(anx_answer_finish(whole), anx_finish::ANX_FINISH_END_OF_TURN);
            assert!(text(anx_answer_text(whole)).starts_with(text(anx_answer_text(stopped))));
            for answer in [stopped, limited, whole] {
                anx_answer_free(answer);
            }
            anx_study_free(study);
        }
    }

    /// A callback that uses the study while it is being asked; `user_data` is the study.
    unsafe extern "C" fn reenter(_: *const c_char, _: usize, user_data: *mut c_void) -> c_int {
        let mut answer = null_mut();
        // SAFETY: the tests pass a live study.
        unsafe {
            let study = user_data.cast::<anx_study>();
            let (status, ..) = failure(|e| anx_study_ask(study, c"Again?".as_ptr(), null(), &mut answer, e));
            assert_eq!(status, anx_status::ANX_BUSY);
            assert_eq!(anx_study_structure_count(study), 36);
        }
        anx_flow::ANX_STOP as c_int
    }

    #[test]
    fn a_study_asked_from_its_own_callback_is_busy() {
        let study = study(&engine());
        let options = anx_ask_options { task: c"report".as_ptr(), callback: Some(reenter), user_data: study.cast(), ..asking() };
        let answer = ask(study, c"", &options);
        // SAFETY: live handles.
        unsafe {
            anx_answer_free(answer);
            anx_study_free(study);
        }
    }

    /// A callback that waits until another thread cancels; `user_data` is a `Sender`.
    unsafe extern "C" fn linger(_: *const c_char, _: usize, user_data: *mut c_void) -> c_int {
        // SAFETY: the test passes a live sender.
        let _ = unsafe { &*user_data.cast::<std::sync::mpsc::Sender<()>>() }.send(());
        thread::sleep(Duration::from_millis(20));
        anx_flow::ANX_CONTINUE as c_int
    }

    #[test]
    fn another_thread_cancels() {
        struct Cancel(*mut anx_cancel);
        // SAFETY: the header lets any thread use a cancel handle.
        unsafe impl Send for Cancel {}

        let study = study(&engine());
        let (mut cancel, mut error) = (null_mut(), null_mut());
        // SAFETY: valid pointers.
        check(unsafe { anx_study_cancel_handle(study, &mut cancel, &mut error) }, error);
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let cancel = Cancel(cancel);
        let other = thread::spawn(move || {
            let Cancel(cancel) = { cancel };
            let started = receiver.recv_timeout(Duration::from_secs(60)).is_ok();
            // SAFETY: live until it is freed here.
            unsafe {
                anx_cancel_request(cancel);
                anx_cancel_free(cancel);
            }
            started
        });
        let user_data = (&raw const sender).cast_mut().cast();
        let answer = ask(study, c"", &anx_ask_options { task: c"report".as_ptr(), callback: Some(linger), user_data, ..asking() });
        assert!(other.join().expect("no panic"));
        // SAFETY: live handles.
        unsafe {
            assert_eq!(anx_answer_finish(answer), anx_finish::ANX_FINISH_STOPPED);
            anx_answer_free(answer);
            anx_study_free(study);
        }
    }

    #[test]
    fn callers_side_by_side_get_what_each_gets_alone() {
        let engine = engine();
        let work = || {
            let study = study(&engine);
            let answer = ask(study, c"Where is the left lung?", &asking());
            // SAFETY: live handles.
            unsafe {
                let found = ((*anx_study_structure(study, 11)).bounds, text(anx_answer_text(answer)).to_owned());
                anx_answer_free(answer);
                anx_study_free(study);
                found
            }
        };
        let alone = work();
        thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            callers.into_iter().for_each(|caller| assert_eq!(caller.join().expect("no panic"), alone));
        });
    }
}
