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
        assert_eq!((anx_is_saved(saved.as_ptr(), saved.len()), anx_is_saved(of_study.as_ptr(), of_study.len())), (1, 0));
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
