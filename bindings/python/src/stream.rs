//! An answer that is decoded while its text is used.

use crate::answer::Answer;
use crate::errors::{Failure, defect, poisoned};
use crate::waiting::TICK;
use anatomix::{CancelHandle, Flow, Question, Radiograph, Study};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyCFunction;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

/// An iterator over the pieces of an answer's text, from ``Study.stream``. The pieces add up to ``answer.text``.
///
/// It is used by one thread at a time.
#[pyclass(frozen, module = "anatomix")]
pub struct Stream {
    events: Mutex<Receiver<Event>>,
    turn: Arc<Turn>,
    radiograph: Option<Arc<Radiograph>>,
    /// How the answer ended: an `Answer`, or the exception.
    outcome: PyOnceLock<Result<Py<Answer>, Py<PyAny>>>,
}

enum Event {
    Piece(String),
    End(Box<Result<anatomix::Answer, Failure>>),
}

/// What stops an answer and no other one of its study.
struct Turn {
    stopped: AtomicBool,
    /// Whether the study is answering this question.
    running: Mutex<bool>,
    cancel: CancelHandle,
}

impl Turn {
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // While this lock is held, the study cannot go on to another question.
        if *self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            self.cancel.cancel();
        }
    }

    fn set_running(&self, running: bool) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

/// The answers that are being decoded, to be stopped when Python exits.
static RUNNING: Mutex<Vec<(Weak<Turn>, JoinHandle<()>)>> = Mutex::new(Vec::new());

impl Stream {
    /// Starts to answer on a thread of its own.
    pub fn start(
        py: Python<'_>,
        study: Arc<Mutex<Study>>,
        cancel: CancelHandle,
        question: Question,
        radiograph: Option<Arc<Radiograph>>,
    ) -> PyResult<Self> {
        let (send, events) = channel();
        let turn = Arc::new(Turn { stopped: AtomicBool::new(false), running: Mutex::new(false), cancel });
        let own = Arc::clone(&turn);
        let body = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| answer(&study, question, &own, &send)));
            own.set_running(false);
            drop(study);
            // Nobody receives if the stream was deleted.
            let _ = send.send(Event::End(Box::new(outcome.unwrap_or_else(|payload| Err(defect(&*payload))))));
        };
        let handle = thread::Builder::new().name("anatomix stream".into()).spawn(body).map_err(|error| Failure::Thread(error).raise(py))?;
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((Arc::downgrade(&turn), handle));
        Ok(Self { events: Mutex::new(events), turn, radiograph, outcome: PyOnceLock::new() })
    }

    /// The next piece; `None` at the end, when the outcome is known.
    fn next(&self, py: Python<'_>) -> PyResult<Option<String>> {
        loop {
            if self.outcome.get(py).is_some() {
                return Ok(None);
            }
            // Not only while nothing arrives: pieces can follow one another without a pause.
            py.check_signals().inspect_err(|_| self.turn.stop())?;
            let event = py.detach(|| self.events.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(TICK));
            let outcome = match event {
                Ok(Event::Piece(piece)) => return Ok(Some(piece)),
                Ok(Event::End(outcome)) => *outcome,
                Err(RecvTimeoutError::Disconnected) => Err(Failure::Defect("the thread of the answer ended early".into())),
                Err(RecvTimeoutError::Timeout) => continue,
            };
            let outcome = match outcome {
                Ok(answer) => Ok(Py::new(py, Answer { answer, radiograph: self.radiograph.clone() })?),
                Err(failure) => Err(failure.object(py)),
            };
            let _ = self.outcome.set(py, outcome);
        }
    }

    /// The answer, when its end was reached.
    fn ended(&self, py: Python<'_>) -> PyResult<Option<Py<Answer>>> {
        match self.outcome.get(py) {
            Some(Ok(answer)) => Ok(Some(answer.clone_ref(py))),
            Some(Err(error)) => Err(PyErr::from_value(error.bind(py).clone())),
            None => Ok(None),
        }
    }
}

/// Answers a question as soon as no other call uses the study, and sends its pieces until nobody receives them.
fn answer(study: &Mutex<Study>, question: Question, turn: &Turn, send: &Sender<Event>) -> Result<anatomix::Answer, Failure> {
    let mut study = study.lock().map_err(poisoned)?;
    turn.set_running(true);
    let answer = study.ask_streaming(question, |piece| {
        let received = send.send(Event::Piece(piece.into())).is_ok();
        if received && !turn.stopped.load(Ordering::SeqCst) { Flow::Continue } else { Flow::Stop }
    });
    // Before the study is unlocked: a late stop must not end the next question.
    turn.set_running(false);
    if turn.stopped.load(Ordering::SeqCst) {
        turn.cancel.reset();
    }
    Ok(answer?)
}

#[pymethods]
impl Stream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let piece = self.next(py)?;
        if piece.is_none() {
            self.ended(py)?;
        }
        Ok(piece)
    }

    /// The answer. It waits for the end if that was not reached; pieces that were not used are dropped then.
    ///
    /// Raises what ``Study.ask`` raises.
    #[getter]
    fn answer(&self, py: Python<'_>) -> PyResult<Option<Py<Answer>>> {
        while self.next(py)?.is_some() {}
        self.ended(py)
    }

    /// Stops the answer after the current run of the decoder. The pieces end there, and `answer` holds the text so far.
    fn cancel(&self) {
        self.turn.stop();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.turn.stop();
    }
}

/// Registers that running answers are stopped when Python exits: a thread that computes while the process frees its libraries would crash.
pub fn end_at_exit(py: Python<'_>) -> PyResult<()> {
    let end = PyCFunction::new_closure(py, None, None, |arguments, _| {
        arguments.py().detach(|| {
            let running = std::mem::take(&mut *RUNNING.lock().unwrap_or_else(PoisonError::into_inner));
            running.iter().filter_map(|(turn, _)| turn.upgrade()).for_each(|turn| turn.stop());
            running.into_iter().for_each(|(_, handle)| _ = handle.join());
        });
    })?;
    py.import("atexit")?.call_method1("register", (end,))?;
    Ok(())
}
