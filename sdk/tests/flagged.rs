//! A radiograph that is flagged as not a chest, not frontal or not for display is perceived, but questions on it need `accept_flags`.

#![allow(unsafe_code)]

use anatomix::capi::*;
use anatomix::error::AskedError;
use anatomix::{Engine, Error, FlagCode, Provider, Question, Radiograph, Study, Task};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

/// The phantom as a DICOM file with one attribute changed.
fn phantom(tag: dicom_core::Tag, value: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm");
    let mut file = dicom_object::open_file(path).unwrap();
    file.put(DataElement::new(tag, VR::CS, value));
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).unwrap();
    bytes
}

fn study(engine: &Engine, tag: dicom_core::Tag, value: &str) -> Study {
    engine.study(&Radiograph::from_bytes(&phantom(tag, value), "phantom.dcm").unwrap()).unwrap()
}

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle")
}

#[test]
fn a_question_to_what_is_flagged_needs_consent() {
    let engine = Engine::builder().provider(Provider::Cpu).golden_check(false).open(bundle()).unwrap();
    let cases = [
        (tags::BODY_PART_EXAMINED, "HAND", FlagCode::NotChest, "HAND"),
        (tags::MODALITY, "CT", FlagCode::NotChest, "CT"),
        (tags::VIEW_POSITION, "LL", FlagCode::NotFrontal, "LL"),
        (tags::PATIENT_ORIENTATION, "A\\F", FlagCode::NotFrontal, "A\\F"),
        (tags::PRESENTATION_INTENT_TYPE, "FOR PROCESSING", FlagCode::ForProcessing, "not meant for display"),
    ];
    for (tag, value, code, shown) in cases {
        let mut study = study(&engine, tag, value);
        assert_eq!((study.structures().len(), study.flags()[0].code), (36, code));
        let many = study.ask_many(["Where is the heart?", "Is it enlarged?"]).unwrap_err();
        let Error::Asked(AskedError { index: 0, error: many, .. }) = many else { panic!("{many}") };
        for error in [study.ask(Task::Report).unwrap_err(), *many] {
            let Error::Flagged(flagged) = &error else { panic!("{error}") };
            assert_eq!((flagged.flag.code, flagged.name.as_str()), (code, "phantom.dcm"));
            let message = error.to_string();
            assert!(message.contains(code.name()) && message.contains(shown) && message.contains("accept"), "{message}");
        }
        let answer = study.ask(Question::from(Task::Report).accept_flags()).unwrap();
        assert!(!answer.text.is_empty() && answer.flags[0].code == code);
        // `accept_flags` applies to one question only, also in a saved study.
        assert!(study.ask("Where is the heart?").is_err());
        let bytes = study.save().unwrap();
        assert!(matches!(engine.load_study(&bytes).unwrap().ask("Where is the heart?"), Err(Error::Flagged(_))));
    }
    // Other flags do not prevent answers.
    let mut mirrored = study(&engine, tags::PATIENT_ORIENTATION, "R\\F");
    assert_eq!(mirrored.flags()[0].code, FlagCode::Mirrored);
    assert!(mirrored.ask("Where is the heart?").is_ok());
}

#[test]
fn c_has_the_same_choice() {
    let bundle = CString::new(bundle().display().to_string()).unwrap();
    let bytes = phantom(tags::BODY_PART_EXAMINED, "HAND");
    // SAFETY: zeroed options mean the defaults, pointers are valid, and each handle is freed once.
    unsafe {
        let options = anx_engine_options {
            struct_size: size_of::<anx_engine_options>(),
            golden_check: anx_switch::ANX_SWITCH_OFF as usize,
            ..std::mem::zeroed()
        };
        let asking = anx_ask_options { struct_size: size_of::<anx_ask_options>(), ..std::mem::zeroed() };
        let (mut engine, mut study, mut answer, mut error) = (null_mut(), null_mut(), null_mut(), null_mut());
        assert_eq!(anx_engine_open(bundle.as_ptr(), &options, &mut engine, &mut error), anx_status::ANX_OK);
        let status =
            anx_study_from_bytes(engine, bytes.as_ptr(), bytes.len(), c"hand.dcm".as_ptr(), std::ptr::null(), &mut study, &mut error);
        assert_eq!(status, anx_status::ANX_OK);
        assert_eq!(CStr::from_ptr((*anx_study_flag(study, 0)).code), c"not_chest");
        let question = c"Where is the heart?".as_ptr();
        assert_eq!(anx_study_ask(study, question, &asking, &mut answer, &mut error), anx_status::ANX_RADIOGRAPH_FLAGGED);
        let message = CStr::from_ptr(anx_error_message(error)).to_str().unwrap();
        assert!(answer.is_null() && message.contains("hand.dcm is flagged not_chest"), "{message}");
        anx_error_free(error);
        let asking = anx_ask_options { accept_flags: anx_switch::ANX_SWITCH_ON as usize, ..asking };
        assert_eq!(anx_study_ask(study, question, &asking, &mut answer, &mut error), anx_status::ANX_OK);
        anx_answer_free(answer);
        anx_study_free(study);
        anx_engine_free(engine);
    }
}
