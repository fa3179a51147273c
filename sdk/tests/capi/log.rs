//! Messages about what an engine does.

use super::*;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Messages {
    lines: Mutex<Vec<(anx_log_level, String)>>,
    freed: AtomicUsize,
}

unsafe extern "C" fn receive(level: anx_log_level, message: *const c_char, length: usize, user_data: *mut c_void) {
    let message = text(message);
    assert_eq!(message.len(), length);
    // SAFETY: the tests pass live messages.
    unsafe { &*user_data.cast::<Messages>() }.lines.lock().unwrap().push((level, message.into()));
}

unsafe extern "C" fn free(user_data: *mut c_void) {
    // SAFETY: the tests pass live messages.
    unsafe { &*user_data.cast::<Messages>() }.freed.fetch_add(1, Ordering::Relaxed);
}

fn logging(messages: &Messages) -> anx_engine_options {
    let provider = c"cpu".as_ptr();
    anx_engine_options {
        provider,
        log: Some(receive),
        log_user_data: (&raw const *messages).cast_mut().cast(),
        log_free: Some(free),
        ..options()
    }
}

#[test]
fn an_engine_logs_until_its_last_study_is_freed() {
    let messages = Messages::default();
    let (mut engine, mut error) = (null_mut(), null_mut());
    let bundle = file("examples/reference-bundle");
    // SAFETY: valid pointers; live handles, freed once.
    let (hash, question) = unsafe {
        check(anx_engine_open(bundle.as_ptr(), &logging(&messages), &mut engine, &mut error), error);
        let study = study(&Engine(engine));
        assert_eq!(messages.freed.load(Ordering::Relaxed), 0);
        let answer = ask(study, c"Where is the left lung?", &asking());
        let question = text(anx_answer_question(answer)).to_string();
        anx_answer_free(answer);
        let hash = text((*anx_study_provenance(study)).input_sha256).to_string();
        anx_study_free(study);
        (hash, question)
    };
    assert_eq!(messages.freed.load(Ordering::Relaxed), 1);
    let lines = messages.lines.into_inner().unwrap();
    let of = |level| lines.iter().filter(|line| line.0 == level).map(|line| line.1.as_str()).collect::<Vec<_>>().join("\n");
    let opening = of(anx_log_level::ANX_LOG_INFO);
    for part in ["computes on cpu, with ONNX Runtime 1.", "libonnxruntime", "golden check 0."] {
        assert!(opening.contains(part), "{opening}");
    }
    let done = of(anx_log_level::ANX_LOG_DEBUG);
    for part in [&format!("study {}: ", &hash[..12]), "preprocess", "tokens prefilled", "end_of_turn"] {
        assert!(done.contains(part), "{done}");
    }
    assert!(!done.contains("phantom") && !done.contains(&question) && !done.contains("lung"), "{done}");
}

#[test]
fn the_user_data_of_an_engine_that_is_not_opened_are_freed_once() {
    let messages = Messages::default();
    let missing = c"no such bundle".as_ptr();
    let failed = [
        failure(|error| unsafe { anx_engine_open(missing, &logging(&messages), &mut null_mut(), error) }),
        failure(|error| unsafe { anx_engine_open(null(), &logging(&messages), &mut null_mut(), error) }),
        failure(|error| unsafe { anx_engine_open(missing, &logging(&messages), null_mut(), error) }),
        failure(|error| unsafe {
            anx_engine_open(missing, &anx_engine_options { look_up: 9, ..logging(&messages) }, &mut null_mut(), error)
        }),
    ];
    assert_eq!(messages.freed.load(Ordering::Relaxed), failed.len());
    // Without a callback, too.
    failure(|error| unsafe { anx_engine_open(missing, &anx_engine_options { log: None, ..logging(&messages) }, &mut null_mut(), error) });
    assert_eq!(messages.freed.load(Ordering::Relaxed), failed.len() + 1);
}
