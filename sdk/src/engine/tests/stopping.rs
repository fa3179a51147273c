//! A run of the perception module that is in flight is stopped by a cancel handle or a deadline.

use crate::answer::Finish;
use crate::control::{CancelHandle, StoppedError};
use crate::engine::limits::{Limits, PerceiveOptions, Timer};
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};
use crate::radiograph::Radiograph;
use crate::runtime::{Meeting, Provider};
use crate::study::Study;
use crate::task::Task;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// Waits until something is so; a test that waits in vain fails.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(600), "not within ten minutes: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// An engine whose first run of the perception module is held back until the test arrives at the meeting, too.
fn held_back() -> (Engine, Arc<Meeting>) {
    let mut engine = Engine::builder().provider(Provider::Cpu).golden_check(false).open(example("reference-bundle")).unwrap();
    let meeting = Arc::new(Meeting::of(2));
    let inner: &mut Inner = Arc::get_mut(&mut engine.0).unwrap();
    inner.module.graph().meeting = Some(Arc::clone(&meeting));
    (engine, meeting)
}

fn stopped(outcome: Result<Study>) -> Option<StoppedError> {
    match outcome {
        Err(Error::Stopped(error)) => Some(error),
        Err(error) => panic!("{}", error.full_message()),
        Ok(_) => None,
    }
}

#[test]
fn a_cancel_handle_stops_a_run_in_flight() {
    let (engine, meeting) = held_back();
    let radiographs = vec![Radiograph::open(example("phantom.dcm")).unwrap(); 2];
    let cancel = CancelHandle::new();
    let options = PerceiveOptions::new().cancel(&cancel).deadline(Duration::from_secs(600));
    scope(|scope| {
        let caller = scope.spawn(|| engine.studies_with(&radiographs, &options).unwrap());
        wait_until("a run is in flight", || meeting.present() == 1);
        cancel.cancel();
        meeting.arrive();
        let outcomes = caller.join().unwrap().into_iter().map(stopped).collect::<Vec<_>>();
        assert_eq!(outcomes, [Some(StoppedError::Cancelled); 2]);
    });
    // The failed run was not repeated for each radiograph: it alone and the test were at the meeting.
    assert_eq!(meeting.present(), 2);
    assert_eq!(engine.studies(&radiographs).into_iter().filter(Result::is_ok).count(), 2);
}

/// The request is withdrawn, or taken by a question to the study whose handle it is, before the run notices it.
#[test]
fn a_run_in_flight_is_cancelled_even_if_the_request_is_gone() {
    let (engine, meeting) = held_back();
    let radiographs = vec![Radiograph::open(example("phantom.dcm")).unwrap(); 2];
    let cancel = CancelHandle::new();
    let options = PerceiveOptions::new().cancel(&cancel);
    scope(|scope| {
        let caller = scope.spawn(|| engine.studies_with(&radiographs, &options).unwrap());
        wait_until("a run is in flight", || meeting.present() == 1);
        cancel.cancel();
        cancel.reset();
        meeting.arrive();
        let outcomes = caller.join().unwrap().into_iter().map(stopped).collect::<Vec<_>>();
        assert_eq!(outcomes, [Some(StoppedError::Cancelled); 2]);
    });
    // A study's handle stops perceiving, too, until a question takes the request.
    let mut study = engine.study(&radiographs[0]).unwrap();
    let options = PerceiveOptions::new().cancel(&study.cancel_handle());
    study.cancel_handle().cancel();
    for _ in 0..2 {
        assert_eq!(stopped(engine.study_with(&radiographs[0], &options)), Some(StoppedError::Cancelled));
    }
    assert_eq!(study.ask("Where is the left lung?").unwrap().finish, Finish::Stopped);
    assert_eq!(stopped(engine.study_with(&radiographs[0], &options)), None);
}

#[test]
fn a_deadline_stops_a_run_in_flight() {
    let (engine, meeting) = held_back();
    let radiograph = Radiograph::open(example("phantom.dcm")).unwrap();
    // A deadline that passes before the run is in flight is tried again with more time.
    for seconds in [1, 10, 100] {
        let limits = engine.limits(&PerceiveOptions::new().deadline(Duration::from_secs(seconds)), 1).unwrap();
        scope(|scope| {
            let caller = scope.spawn(|| engine.study_within(&radiograph, &limits));
            wait_until("its stop is requested", || limits.stop().unwrap().is_requested());
            wait_until("a run is in flight, or none will be", || meeting.present() == 1 || caller.is_finished());
            if meeting.present() == 1 {
                meeting.arrive();
            }
            assert_eq!(stopped(caller.join().unwrap()), Some(StoppedError::Deadline));
        });
        if meeting.present() == 2 {
            break;
        }
    }
    assert_eq!(meeting.present(), 2, "no run came to be in flight");
    assert!(engine.study(&radiograph).is_ok());
}

/// A study of an engine whose first run of the decoder, the beginning of the context's prefill, is held back until the test arrives, too.
fn held_back_at_prefill() -> (Study, Arc<Meeting>) {
    let mut engine = Engine::builder().provider(Provider::Cpu).golden_check(false).open(example("reference-bundle")).unwrap();
    let meeting = Arc::new(Meeting::of(2));
    let inner: &mut Inner = Arc::get_mut(&mut engine.0).unwrap();
    let [_, decoder] = Arc::get_mut(&mut inner.model).unwrap().decoder.graphs();
    decoder.meeting = Some(Arc::clone(&meeting));
    (engine.study(&Radiograph::open(example("phantom.dcm")).unwrap()).unwrap(), meeting)
}

/// Makes a call on the study, and cancels it while the first run of the context's prefill is in flight.
fn cancelled_at_prefill<T>(study: &mut Study, meeting: &Meeting, call: impl FnOnce(&mut Study) -> T) -> T {
    let cancel = study.cancel_handle();
    scope(|scope| {
        scope.spawn(|| {
            wait_until("a run is in flight", || meeting.present() == 1);
            cancel.cancel();
            meeting.arrive();
        });
        call(study)
    })
}

#[test]
fn a_context_that_is_computed_can_be_stopped() {
    let (mut study, meeting) = held_back_at_prefill();
    let answer = cancelled_at_prefill(&mut study, &meeting, |study| study.ask(Task::Report)).unwrap();
    assert_eq!((answer.finish, answer.tokens, answer.prefilled), (Finish::Stopped, 0, 0));
    assert_eq!(study.ask(Task::Report).unwrap().finish, Finish::EndOfTurn);
}

#[test]
fn saving_can_be_stopped() {
    let (mut study, meeting) = held_back_at_prefill();
    let outcome = cancelled_at_prefill(&mut study, &meeting, Study::save);
    assert!(matches!(outcome, Err(Error::Stopped(StoppedError::Cancelled))), "{:?}", outcome.map(|bytes| bytes.len()));
    // The study is as before: it has no context yet, and it can be saved and asked.
    let saved = study.save().unwrap();
    // Nothing is left to compute, so nothing is stopped.
    study.cancel_handle().cancel();
    assert!(study.save().unwrap() == saved);
    assert_eq!(study.ask(Task::Report).unwrap().finish, Finish::EndOfTurn);
}

#[test]
fn nothing_runs_after_a_stop() {
    let (engine, meeting) = held_back();
    let radiographs = vec![Radiograph::open(example("phantom.dcm")).unwrap(); 2];
    let cancelled = CancelHandle::new();
    cancelled.cancel();
    for (options, expected) in [
        (PerceiveOptions::new().deadline(Duration::ZERO), StoppedError::Deadline),
        (PerceiveOptions::new().cancel(&cancelled), StoppedError::Cancelled),
    ] {
        assert_eq!(stopped(engine.study_with(&radiographs[0], &options)), Some(expected));
        for outcome in engine.studies_with(&radiographs, &options).unwrap() {
            assert_eq!(stopped(outcome), Some(expected));
        }
    }
    assert_eq!(meeting.present(), 0);
    // A deadline beyond the clock's range is none.
    scope(|scope| {
        scope.spawn(|| meeting.arrive());
        // A request that was withdrawn stops nothing.
        cancelled.reset();
        let options = PerceiveOptions::new().deadline(Duration::MAX).cancel(&cancelled);
        assert_eq!(stopped(engine.study_with(&radiographs[0], &options)), None);
    });
}

#[test]
fn a_timer_requests_stops_in_the_order_of_their_deadlines() {
    Engine::builder().golden_check(false).open(example("reference-bundle")).unwrap();
    let timer = Timer::default();
    let limits = |time| Limits::new(&PerceiveOptions::new().deadline(time), 1, &timer).unwrap();
    let [late, early] = [Duration::from_secs(600), Duration::from_millis(1)].map(limits);
    wait_until("the early stop is requested", || early.stop().unwrap().is_requested());
    assert!(!late.stop().unwrap().is_requested());
}
