//! Results as JSON, overlays and embeddings.

use super::*;

/// A study of the phantom that holds its radiograph.
fn keeping(engine: &Engine) -> *mut anx_study {
    let (mut study, mut error) = (null_mut(), null_mut());
    let struct_size = size_of::<anx_perceive_options>();
    // SAFETY: the header promises that all zero means every default, and the pointers are valid.
    unsafe {
        let options = anx_perceive_options { struct_size, keep_radiograph: ON, ..std::mem::zeroed() };
        check(anx_study_from_file(engine.0, file("examples/phantom.dcm").as_ptr(), &options, &mut study, &mut error), error);
    }
    study
}

fn bytes(call: impl FnOnce(*mut *mut anx_bytes, *mut *mut anx_error) -> anx_status) -> Vec<u8> {
    let (mut bytes, mut error) = (null_mut(), null_mut());
    check(call(&mut bytes, &mut error), error);
    // SAFETY: live until it is freed, once.
    unsafe {
        let copied = std::slice::from_raw_parts(anx_bytes_data(bytes), anx_bytes_size(bytes)).to_vec();
        anx_bytes_free(bytes);
        copied
    }
}

#[test]
fn results_are_json() {
    let engine = engine();
    let study = study(&engine);
    let answer = ask(study, c"Where is the left lung?", &asking());
    // SAFETY: live handles, freed once.
    unsafe {
        let study_json = bytes(|out, error| anx_study_json(study, out, error));
        let answer_json = bytes(|out, error| anx_answer_json(answer, out, error));
        let (perceived, asked): (serde_json::Value, serde_json::Value) =
            (serde_json::from_slice(&study_json).unwrap(), serde_json::from_slice(&answer_json).unwrap());
        assert_eq!(perceived["structures"][11]["sentence"], text((*anx_study_structure(study, 11)).sentence));
        assert_eq!(perceived["provenance"]["input_sha256"], text((*anx_study_provenance(study)).input_sha256));
        assert_eq!((&asked["text"], &asked["finish"]), (&text(anx_answer_text(answer)).into(), &"end_of_turn".into()));
        anx_study_free(study);
        // An answer needs no study.
        assert_eq!(bytes(|out, error| anx_answer_json(answer, out, error)), answer_json);
        anx_answer_free(answer);
    }
}

#[test]
fn overlays_are_drawn_where_the_radiograph_is_kept() {
    let engine = engine();
    let (keeping, plain) = (keeping(&engine), study(&engine));
    let [answer, other] = [keeping, plain].map(|study| ask(study, c"Where is the left lung?", &asking()));
    // SAFETY: live handles, freed once.
    unsafe {
        let of_study = bytes(|out, error| anx_study_overlay(keeping, out, error));
        let captures = [null(), answer.cast_const()]
            .map(|answer| bytes(|out, error| anx_study_secondary_capture(keeping, answer, null(), out, error)));
        assert!(captures[0] != captures[1] && captures.iter().all(|capture| &capture[128..132] == b"DICM"));
        // A saved study does not hold it.
        let saved = bytes(|out, error| anx_study_save(keeping, out, error));
        assert_eq!((anx_is_saved_study(saved.as_ptr(), saved.len()), anx_is_saved_study(of_study.as_ptr(), of_study.len())), (1, 0));
        let (mut loaded, mut error) = (null_mut(), null_mut());
        check(anx_study_load(engine.0, saved.as_ptr(), saved.len(), &mut loaded, &mut error), error);
        anx_study_free(keeping);
        let of_answer = bytes(|out, error| anx_answer_overlay(answer, out, error));
        for png in [&of_study, &of_answer] {
            assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        }
        assert_ne!(of_study, of_answer);
        let mut none = null_mut();
        for (status, message, _) in [
            failure(|error| anx_study_overlay(plain, &mut none, error)),
            failure(|error| anx_study_overlay(loaded, &mut none, error)),
            failure(|error| anx_study_secondary_capture(plain, null(), null(), &mut none, error)),
            failure(|error| anx_answer_overlay(other, &mut none, error)),
        ] {
            assert_eq!(status, anx_status::ANX_INVALID_ARGUMENT);
            assert!(message.contains("anx_perceive_options.keep_radiograph"), "{message}");
        }
        [answer, other].into_iter().for_each(|answer| anx_answer_free(answer));
        [plain, loaded].into_iter().for_each(|study| anx_study_free(study));
    }
}

#[test]
fn each_structure_has_an_embedding() {
    let engine = engine();
    let study = study(&engine);
    // SAFETY: a live handle, freed once; there are `width` values.
    unsafe {
        let width = anx_study_embedding_width(study);
        let of = |index| std::slice::from_raw_parts(anx_study_embedding(study, index), width);
        assert!(width > 8 && of(0) != of(35) && of(35).iter().all(|value| value.is_finite()));
        assert!(anx_study_embedding(study, 36).is_null());
        anx_study_free(study);
    }
}

/// How a study of the phantom is made.
fn turned(inverted: bool, mirrored: bool) -> anx_perceive_options {
    let switch = |on| if on { ON } else { 0 };
    let struct_size = size_of::<anx_perceive_options>();
    let (inverted, mirrored) = (switch(inverted), switch(mirrored));
    // SAFETY: the header promises that all zero means every default.
    anx_perceive_options { struct_size, keep_radiograph: ON, inverted, mirrored, ..unsafe { std::mem::zeroed() } }
}

/// The intensities of a study, and the hash of what was perceived.
fn displayed(study: *mut anx_study) -> (Vec<f32>, String) {
    // SAFETY: a live handle, and room for as many values as are said.
    unsafe {
        let mut values = vec![-1.0; (anx_study_width(study) * anx_study_height(study)) as usize];
        let mut error = null_mut();
        check(anx_study_intensities(study, values.as_mut_ptr(), values.len(), &mut error), error);
        (values, text((*anx_study_provenance(study)).input_sha256).into())
    }
}

#[test]
fn the_radiograph_can_be_turned_and_is_given_as_it_is_displayed() {
    let engine = engine();
    let path = file("examples/phantom.dcm");
    let expected = |inverted, mirrored| {
        let mut radiograph = anatomix::Radiograph::open(path.to_str().unwrap()).unwrap();
        radiograph = if mirrored { radiograph.mirrored().unwrap() } else { radiograph };
        radiograph = if inverted { radiograph.inverted() } else { radiograph };
        (radiograph.intensities().unwrap().iter().copied().collect::<Vec<f32>>(), radiograph.sha256().to_string())
    };
    let mut seen = Vec::new();
    for (inverted, mirrored) in [(false, false), (true, false), (false, true), (true, true)] {
        let options = turned(inverted, mirrored);
        let (mut study, mut several, mut error) = (null_mut(), null_mut(), null_mut());
        // SAFETY: valid pointers and live handles, each freed once.
        unsafe {
            check(anx_study_from_file(engine.0, path.as_ptr(), &options, &mut study, &mut error), error);
            check(anx_studies_from_files(engine.0, &path.as_ptr(), 1, &options, &mut several, null_mut(), &mut error), error);
            for study in [study, several] {
                assert_eq!(displayed(study), expected(inverted, mirrored));
                // What refers to pixels of the file is not made of its mirror image.
                let mut report = null_mut();
                let status = anx_study_structured_report(study, null(), 0, null(), &mut report, null_mut());
                assert_eq!(status, if mirrored { anx_status::ANX_OUTPUT } else { anx_status::ANX_OK });
                anx_bytes_free(report);
            }
            seen.push(displayed(study).1);
            [study, several].into_iter().for_each(|study| anx_study_free(study));
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn intensities_need_room_and_a_kept_radiograph() {
    let engine = engine();
    let (keeping, plain) = (keeping(&engine), study(&engine));
    // SAFETY: live handles, freed once; nothing is written on failure.
    unsafe {
        let count = (anx_study_width(keeping) * anx_study_height(keeping)) as usize;
        let mut values = vec![-1.0; count];
        let odd = values.as_mut_ptr().cast::<u8>().wrapping_add(1).cast();
        for (study, values, count, reason) in [
            (keeping, values.as_mut_ptr(), count - 1, "the argument count is"),
            (keeping, values.as_mut_ptr(), usize::MAX, "the argument count is"),
            (keeping, null_mut(), count, "the argument values is NULL"),
            (keeping, odd, count, "the argument values is not aligned"),
            (plain, values.as_mut_ptr(), count, "anx_perceive_options.keep_radiograph"),
            (null_mut(), values.as_mut_ptr(), count, "the argument study is NULL"),
        ] {
            let (status, message, _) = failure(|error| anx_study_intensities(study, values, count, error));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains(reason), "{message}");
        }
        assert!(values.iter().all(|&value| value == -1.0));
        [keeping, plain].into_iter().for_each(|study| anx_study_free(study));
        let mut study = null_mut();
        for options in
            [anx_perceive_options { inverted: 3, ..turned(false, false) }, anx_perceive_options { mirrored: 9, ..turned(false, false) }]
        {
            let path = file("examples/phantom.dcm");
            let (status, message, _) = failure(|error| anx_study_from_file(engine.0, path.as_ptr(), &options, &mut study, error));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("the argument options."), "{message}");
        }
    }
}

#[test]
fn structures_have_sides_and_counterparts() {
    for one in anatomix::Structure::all() {
        let side = match one.side() {
            None => anx_side::ANX_SIDE_NONE,
            Some(anatomix::Side::Left) => anx_side::ANX_SIDE_LEFT,
            Some(_) => anx_side::ANX_SIDE_RIGHT,
        };
        assert_eq!(anx_structure_side(one.index()), side);
        assert_eq!(anx_structure_counterpart(one.index()), one.counterpart().unwrap_or(one).index());
    }
    assert_eq!((anx_structure_side(36), anx_structure_counterpart(usize::MAX)), (anx_side::ANX_SIDE_NONE, usize::MAX));
}
