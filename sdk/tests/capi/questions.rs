//! Questions to a study.

use super::*;
use std::ffi::{c_int, c_void};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

unsafe extern "C" fn gather(piece: *const c_char, length: usize, user_data: *mut c_void) -> c_int {
    let piece = text(piece);
    assert_eq!(piece.len(), length);
    // SAFETY: the tests pass a string.
    unsafe { &mut *user_data.cast::<String>() }.push_str(piece);
    anx_flow::ANX_FLOW_CONTINUE as c_int
}

#[test]
fn an_answer_streams_what_it_says() {
    let study = study(&engine());
    let mut streamed = String::new();
    let piece_user_data = (&raw mut streamed).cast();
    let options = anx_ask_options { task: c"report".as_ptr(), piece: Some(gather), piece_user_data, ..asking() };
    let answer = ask(study, c"", &options);
    // SAFETY: live handles; the answer outlives the study.
    unsafe {
        anx_study_free(study);
        assert_eq!(text(anx_answer_text(answer)), streamed);
        assert!(!streamed.is_empty() && anx_answer_token_count(answer) > 0);
        assert_eq!(text(anx_answer_task(answer)), "report");
        assert_eq!(anx_answer_finish(answer), anx_finish::ANX_FINISH_END_OF_TURN);
        for index in 0..anx_answer_grounding_count(answer) {
            let grounding = *anx_answer_grounding(answer, index);
            assert!(!text(grounding.phrase).is_empty() && !grounding.boxes.is_null());
        }
        assert!(anx_answer_grounding(answer, anx_answer_grounding_count(answer)).is_null());
        let sentences: Vec<anx_evidence> =
            (0..anx_answer_evidence_count(answer)).map(|index| *anx_answer_evidence(answer, index)).collect();
        assert!(sentences.len() > 3 && sentences.iter().any(|of| of.support == anx_support::ANX_SUPPORT_SUPPORTED));
        for of in sentences {
            assert_eq!(text(of.sentence), &streamed[of.start..of.end]);
            assert!((0.0..=1.0).contains(&of.probability) && of.grounding_count == 0);
            for index in 0..of.structure_count {
                let found = *of.structures.add(index);
                assert!(found.index < 36 && !text(found.name).is_empty() && found.similarity > 0.0, "{found:?}");
            }
        }
        assert!(anx_answer_evidence(answer, anx_answer_evidence_count(answer)).is_null());
        assert_eq!(text((*anx_answer_provenance(answer)).decoding), "greedy, grounded, max_tokens 512, look_up on");
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
        let values = std::slice::from_raw_parts(anx_answer_log_probabilities(whole), anx_answer_token_count(whole));
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
        // A positive number that is 0 in single precision is not the default.
        let narrow = |top_p| anx_ask_options { temperature: 3.0, top_p, max_tokens: 20, seed: 1, ..asking() };
        assert_eq!(text(anx_answer_text(report(narrow(1e-10)))), text(anx_answer_text(report(narrow(1e-300)))));
        let mut answer = std::ptr::dangling_mut();
        let wild = anx_ask_options { top_p: 2.0, ..asking() };
        let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &wild, &mut answer, e));
        assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("top_p is 2"), "{status:?} {message}");
        let lost = anx_ask_options { stop_count: 1, ..asking() };
        let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &lost, &mut answer, e));
        assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.contains("options.stop"), "{message}");
        let hole = [c"x".as_ptr(), null()];
        let holed = anx_ask_options { stop: hole.as_ptr(), stop_count: 2, ..asking() };
        let (status, message, _) = failure(|e| anx_study_ask(study, c"x".as_ptr(), &holed, &mut answer, e));
        assert_eq!((status, message.as_str()), (anx_status::ANX_INVALID_ARGUMENT, "the argument options.stop[1] is NULL; pass a text"));
        let schema = anx_ask_options { json_schema: c"{\"enum\": [\"<a>\", \"<b>\"]}".as_ptr(), temperature: 3.0, ..asking() };
        let json = ask(study, c"Which?", &schema);
        assert!(["\"<a>\"", "\"<b>\""].contains(&text(anx_answer_text(json))), "{}", text(anx_answer_text(json)));
        let free = ask(study, c"Which?", &anx_ask_options { unconstrained: ON, ..asking() });
        assert_eq!(text((*anx_answer_provenance(free)).decoding), "greedy, unconstrained, max_tokens 512, look_up on");
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
    let questions = [c"Where is the left lung?".as_ptr(), c"".as_ptr(), c"Is there a pleural effusion?".as_ptr()];
    let mut streamed = String::new();
    let report = anx_ask_options { task: c"report".as_ptr(), piece: Some(gather), piece_user_data: (&raw mut streamed).cast(), ..asking() };
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
        assert!(status == anx_status::ANX_PROMPT_QUESTION && message.starts_with("questions[1]: the question is empty"), "{message}");
        assert!(answers.iter().all(|answer| answer.is_null()));
        check(anx_study_ask_many(study, null(), null(), 0, null_mut(), &mut error), error);
        let holed = [questions[0], null()];
        let wrong = anx_ask_options { task: c"poem".as_ptr(), ..asking() };
        let options = [null(), &raw const wrong];
        for (questions, options, name) in [(&holed[..], null(), "questions[1]"), (&questions[..], options.as_ptr(), "options[1].task")] {
            let (status, message, _) = failure(|e| anx_study_ask_many(study, questions.as_ptr(), options, 2, answers.as_mut_ptr(), e));
            assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.starts_with(&format!("the argument {name} is ")), "{message}");
        }
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
        assert_eq!(anx_study_turn_count(study), 2);
        assert_eq!(anx_study_rewind(study, 1, null_mut()), anx_status::ANX_OK);
        assert_eq!(anx_study_turn_count(study), 1);
        let again = ask(study, c"Is there a pleural effusion?", &follow_up);
        assert_eq!(text(anx_answer_text(again)), text(anx_answer_text(second)));

        let mut bytes = null_mut();
        assert_eq!(anx_study_save(study, &mut bytes, null_mut()), anx_status::ANX_OK);
        let (data, size) = (anx_bytes_data(bytes), anx_bytes_size(bytes));
        assert!(size > anx_engine_study_bytes(engine.0, 300));
        let mut loaded = null_mut();
        assert_eq!(anx_study_load(engine.0, data, size, &mut loaded, null_mut()), anx_status::ANX_OK);
        let (status, message, _) = failure(|e| anx_study_load(engine.0, data, size - 1, &mut null_mut(), e));
        assert!(status == anx_status::ANX_SAVED && message.contains("is damaged or is not a saved study"), "{message}");
        anx_bytes_free(bytes);
        assert_eq!((anx_study_turn_count(loaded), anx_study_width(loaded)), (0, anx_study_width(study)));
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
        let long = CString::new("very ".repeat(1200)).unwrap();
        let (status, message, _) = failure(|e| anx_study_ask(study, long.as_ptr(), null(), &mut answer, e));
        assert!(status == anx_status::ANX_DECODER_TOO_LONG && message.contains("shorten the question"), "{status:?} {message}");
        for question in [null(), c"<end_of_turn>".as_ptr()] {
            let (status, ..) = failure(|e| anx_study_ask(study, question, null(), &mut answer, e));
            assert_eq!(status, anx_status::ANX_PROMPT_QUESTION);
        }
        let report = anx_ask_options { task: c"report".as_ptr(), ..asking() };
        let (status, message, _) = failure(|e| anx_study_ask(study, c"Where is the heart?".as_ptr(), &report, &mut answer, e));
        assert!(status == anx_status::ANX_INVALID_ARGUMENT && message.starts_with("the task report has an instruction"), "{message}");
        assert!(answer.is_null());
        anx_study_free(study);
    }
}

unsafe extern "C" fn stop(_: *const c_char, _: usize, _: *mut c_void) -> c_int {
    anx_flow::ANX_FLOW_STOP as c_int
}

#[test]
fn a_callback_stops_an_answer_and_the_study_goes_on() {
    let study = study(&engine());
    let report = anx_ask_options { task: c"report".as_ptr(), ..asking() };
    let stopped = ask(study, c"", &anx_ask_options { piece: Some(stop), ..report });
    let limited = ask(study, c"", &anx_ask_options { max_tokens: 3, ..report });
    let whole = ask(study, c"", &report);
    // SAFETY: live handles.
    unsafe {
        assert_eq!(anx_answer_finish(stopped), anx_finish::ANX_FINISH_STOPPED);
        assert_eq!(anx_answer_finish(limited), anx_finish::ANX_FINISH_MAX_TOKENS);
        assert_eq!(anx_answer_token_count(limited), 3);
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
    anx_flow::ANX_FLOW_STOP as c_int
}

#[test]
fn a_study_asked_from_its_own_callback_is_busy() {
    let study = study(&engine());
    let options = anx_ask_options { task: c"report".as_ptr(), piece: Some(reenter), piece_user_data: study.cast(), ..asking() };
    let answer = ask(study, c"", &options);
    // SAFETY: live handles.
    unsafe {
        anx_answer_free(answer);
        anx_study_free(study);
    }
}

/// How a callback tells another thread that an answer has begun, and learns that it has cancelled it.
struct Signals {
    begun: Sender<()>,
    cancelled: Receiver<()>,
}

/// A callback that waits until another thread has cancelled; `user_data` is a `Signals`.
unsafe extern "C" fn linger(_: *const c_char, _: usize, user_data: *mut c_void) -> c_int {
    // SAFETY: the test passes live signals.
    let signals = unsafe { &*user_data.cast::<Signals>() };
    let _ = signals.begun.send(());
    // The first piece waits. Later ones, if there are any, find that the other thread is gone.
    let _ = signals.cancelled.recv();
    anx_flow::ANX_FLOW_CONTINUE as c_int
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
    let ((begun, has_begun), (sender, cancelled)) = (channel(), channel());
    let cancel = Cancel(cancel);
    let other = thread::spawn(move || {
        let Cancel(cancel) = { cancel };
        let started = has_begun.recv().is_ok();
        // SAFETY: live until it is freed here.
        unsafe {
            anx_cancel_request(cancel);
            anx_cancel_free(cancel);
        }
        started && sender.send(()).is_ok()
    });
    let signals = Signals { begun, cancelled };
    let piece_user_data = (&raw const signals).cast_mut().cast();
    let answer = ask(study, c"", &anx_ask_options { task: c"report".as_ptr(), piece: Some(linger), piece_user_data, ..asking() });
    assert!(other.join().expect("no panic"));
    // SAFETY: live handles.
    unsafe {
        assert_eq!(anx_answer_finish(answer), anx_finish::ANX_FINISH_STOPPED);
        anx_answer_free(answer);
        anx_study_free(study);
    }
}

#[test]
fn a_request_to_stop_before_an_ask_stops_it() {
    let study = study(&engine());
    let (mut cancel, mut error) = (null_mut(), null_mut());
    // SAFETY: live handles; every answer is freed once.
    unsafe {
        check(anx_study_cancel_handle(study, &mut cancel, &mut error), error);
        let asked = || {
            let answer = ask(study, c"Where is the left lung?", &asking());
            let ended = (anx_answer_finish(answer), anx_answer_token_count(answer) > 0);
            anx_answer_free(answer);
            ended
        };
        anx_cancel_request(cancel);
        assert_eq!(asked(), (anx_finish::ANX_FINISH_STOPPED, false));
        assert_eq!(asked(), (anx_finish::ANX_FINISH_END_OF_TURN, true));
        anx_cancel_request(cancel);
        anx_cancel_reset(cancel);
        assert_eq!(asked(), (anx_finish::ANX_FINISH_END_OF_TURN, true));
        anx_cancel_free(cancel);
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
