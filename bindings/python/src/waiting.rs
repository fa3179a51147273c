//! Calls that take time: the work runs on a thread of its own, and the calling thread waits without the GIL and looks for signals.
//!
//! Python runs a signal's handler on its main thread only, and only when that thread asks. A prefill takes seconds and has no callback,
//! so the main thread must not compute itself.

use crate::errors::{Failure, defect};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::cell::Cell;
use std::process;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often a waiting thread looks for signals. A decode step of a large model takes longer than this.
pub const TICK: Duration = Duration::from_millis(20);

thread_local! {
    /// Whether this thread runs an engine's log callback, which would wait for itself if it called the engine.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a callback, in which calls of this module are refused.
pub fn within_callback<T>(callback: impl FnOnce() -> T) -> T {
    IN_CALLBACK.set(true);
    let outcome = callback();
    IN_CALLBACK.set(false);
    outcome
}

/// The process in which the first call was made.
static PROCESS: OnceLock<u32> = OnceLock::new();

/// Fails if a call would wait for ever: inside a callback, and in a process that was forked after a call. Of the threads that ONNX
/// Runtime and the SDK compute with, a forked process has none.
///
/// # Errors
/// Python's `RuntimeError`.
pub fn check() -> PyResult<()> {
    if IN_CALLBACK.get() {
        return Err(PyRuntimeError::new_err("the log callback cannot call an engine or a study; note what it should do and return"));
    }
    if *PROCESS.get_or_init(process::id) != process::id() {
        let message = "this process was forked from one that had used AnatomiX; start it by multiprocessing.get_context(\"spawn\"), \
                       or use AnatomiX in the child only";
        return Err(PyRuntimeError::new_err(message));
    }
    Ok(())
}

/// Runs `work` while this thread waits. After a signal whose handler raises, as Ctrl-C does, `stop` is called until the work has ended.
///
/// # Errors
/// What the handler raised, or the failure of the work.
pub fn run<T: Send>(py: Python<'_>, stop: impl Fn() + Sync, work: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    check()?;
    let (interrupted, outcome) = py.detach(|| {
        thread::scope(|scope| {
            let (done, wait) = channel();
            let body = move || {
                let outcome = work();
                // The receiver outlives this thread.
                let _ = done.send(());
                outcome
            };
            let worker = match thread::Builder::new().name("anatomix".into()).spawn_scoped(scope, body) {
                Ok(worker) => worker,
                Err(error) => return (None, Err(Failure::Thread(error))),
            };
            let mut interrupted = None;
            while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if interrupted.is_none() {
                    interrupted = Python::attach(|py| py.check_signals()).err();
                }
                if interrupted.is_some() {
                    stop();
                }
            }
            (interrupted, worker.join().unwrap_or_else(|payload| Err(defect(&*payload))))
        })
    });
    match interrupted {
        Some(error) => Err(error),
        None => outcome.map_err(|failure| failure.raise(py)),
    }
}
