//! Engines, and studies that they make.

use super::*;

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
        let compression = [
            provenance.lossy_image_compression,
            provenance.lossy_image_compression_ratio,
            provenance.lossy_image_compression_method,
            provenance.burned_in_annotation,
            provenance.window,
        ];
        assert_eq!(compression.map(text), ["00", "", "", "YES", "1"]);
        anx_study_free(study);
    }
}

#[test]
fn a_window_is_chosen_by_an_option() {
    let engine = engine();
    let path = file("examples/phantom.dcm");
    // SAFETY: all zero means every default; pointers are valid, and what is made is freed once.
    unsafe {
        let options = |window| anx_perceive_options { struct_size: size_of::<anx_perceive_options>(), window, ..std::mem::zeroed() };
        for (window, expected) in [(0, anx_status::ANX_OK), (1, anx_status::ANX_OK), (2, anx_status::ANX_RADIOGRAPH)] {
            let (mut study, mut error) = (null_mut(), null_mut());
            assert_eq!(anx_study_from_file(engine.0, path.as_ptr(), &options(window), &mut study, &mut error), expected);
            let mut studies = [null_mut()];
            let (paths, options) = ([path.as_ptr()], options(window));
            let several = anx_studies_from_files(engine.0, paths.as_ptr(), 1, &options, studies.as_mut_ptr(), null_mut(), null_mut());
            assert_eq!((several, studies[0].is_null()), (expected, study.is_null()));
            if expected != anx_status::ANX_OK {
                assert!(text(anx_error_message(error)).contains("window 2 was chosen"));
            }
            anx_error_free(error);
            anx_study_free(study);
            anx_study_free(studies[0]);
        }
        let values = [0u8; 64 * 64];
        let pixels = anx_pixels {
            struct_size: size_of::<anx_pixels>(),
            values: values.as_ptr().cast(),
            size: values.len(),
            width: 64,
            height: 64,
            bits_allocated: 8,
            ..std::mem::zeroed()
        };
        let (mut study, mut error) = (null_mut(), null_mut());
        assert_eq!(anx_study_from_pixels(engine.0, &pixels, &options(2), &mut study, &mut error), anx_status::ANX_INVALID_ARGUMENT);
        assert!(text(anx_error_message(error)).contains("options.window"));
        anx_error_free(error);
    }
}

#[test]
fn several_files_give_a_study_each_or_an_error() {
    let engine = engine();
    let [phantom, missing] = ["examples/phantom.dcm", "examples/no such.dcm"].map(file);
    let open = |paths: &[*const c_char], studies: &mut [*mut anx_study], error| {
        assert_eq!(paths.len(), studies.len());
        // SAFETY: valid pointers, as many as are said.
        unsafe { anx_studies_from_files(engine.0, paths.as_ptr(), paths.len(), null(), studies.as_mut_ptr(), null_mut(), error) }
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
        unsafe { anx_studies_from_files(engine.0, paths.as_ptr(), 3, null(), studies.as_mut_ptr(), errors.as_mut_ptr(), error) }
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
    assert_eq!((status, message.as_str()), (anx_status::ANX_INVALID_ARGUMENT, "the argument paths[1] is NULL; pass a path"));
    assert!(studies.iter().all(|study| study.is_null()));
    let status = open(&[], &mut [], &mut error);
    check(status, error);
}

#[test]
fn several_files_in_memory_are_what_they_are_alone() {
    let engine = engine();
    let phantom = std::fs::read(file("examples/phantom.dcm").to_str().unwrap()).unwrap();
    let whole = anx_file { bytes: phantom.as_ptr(), size: phantom.len(), name: c"first\x1b[31m".as_ptr() };
    let open = |files: &[anx_file], studies: &mut [*mut anx_study], error| {
        assert_eq!(files.len(), studies.len());
        // SAFETY: valid pointers, as many as are said.
        unsafe { anx_studies_from_bytes(engine.0, files.as_ptr(), files.len(), null(), studies.as_mut_ptr(), null_mut(), error) }
    };
    let (mut studies, mut error) = ([null_mut(); 2], null_mut());
    let status = open(&[whole, anx_file { name: null(), ..whole }], &mut studies, &mut error);
    check(status, error);
    let alone = study(&engine);
    for (study, name) in studies.into_iter().zip([r"first\u{1b}[31m", "bytes"]) {
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
    let empty = anx_file { bytes: null(), size: 0, name: c"empty".as_ptr() };
    let (_, message, _) = failure(|error| open(&[empty, whole], &mut studies, error));
    assert!(message.contains("empty is empty") && studies[0].is_null() && !studies[1].is_null(), "{message}");
    // SAFETY: a live handle, freed once.
    unsafe { anx_study_free(studies[1]) };
    let (status, message, _) = failure(|error| open(&[whole, anx_file { bytes: null(), ..whole }], &mut studies, error));
    assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
    assert_eq!(message, "the argument files[1].bytes is NULL; pass the address of the data");
}

#[test]
fn radiographs_that_cannot_be_used() {
    use anx_status::*;
    let engine = engine();
    let mut study = std::ptr::dangling_mut();
    // SAFETY: valid pointers or NULL; counts are true or refused.
    unsafe {
        let engine = engine.0;
        let cases = [
            (failure(|e| anx_study_from_file(engine, c"/no/such.dcm".as_ptr(), null(), &mut study, e)), ANX_RADIOGRAPH_READ),
            (failure(|e| anx_study_from_bytes(engine, b"text".as_ptr(), 4, null(), null(), &mut study, e)), ANX_RADIOGRAPH_FORMAT),
            (failure(|e| anx_study_from_bytes(engine, b"".as_ptr(), 0, null(), null(), &mut study, e)), ANX_RADIOGRAPH_DAMAGED),
            (failure(|e| anx_study_from_bytes(engine, b"".as_ptr(), usize::MAX, null(), null(), &mut study, e)), ANX_INVALID_ARGUMENT),
        ];
        for ((status, message, _), expected) in cases {
            assert_eq!(status, expected, "{message}");
        }
    }
    assert!(study.is_null());
}
