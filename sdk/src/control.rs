//! Ways to stop a call: the streaming callback of an answer, a cancel handle, and the deadline.

use crate::answer::Finish;
use crate::runtime::StopSignal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What the callback of a streamed answer returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Decoding continues.
    Continue,
    /// The answer ends.
    Stop,
}

/// Stops calls from any thread. Clones stop the same calls. No request is lost because it comes before the call that it is meant for.
///
/// The handle of a study ([`Study::cancel_handle`](crate::Study::cancel_handle)) stops one call: the one that is running on the study, or
/// else the next one, which then ends at once. That call consumes the request. After it ends none is pending, even if the request came too
/// late to stop it.
///
/// Any handle stops all perceiving calls that it is given to ([`PerceiveOptions::cancel`](crate::PerceiveOptions::cancel)), and the opening
/// of engines ([`EngineBuilder::cancel`](crate::EngineBuilder::cancel)): those that are running, and those that begin later. These calls
/// leave the request in place. On a handle from [`CancelHandle::new`] it stays until [`CancelHandle::reset`]; on a study's handle it stays
/// until the next question or save.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    requested: AtomicBool,
    /// Runs of graphs that are to be stopped.
    runs: Mutex<Vec<Weak<StopSignal>>>,
}

impl CancelHandle {
    /// Makes a handle for perceiving and for opening engines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the stop. An answer stops after the current run of the decoder; a long prefill consists of several runs. Perceiving
    /// stops within one operator of the perception module. Opening stops after the part that it is at: a mebibyte of a file that is
    /// hashed, one graph.
    pub fn cancel(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        let runs = std::mem::take(&mut *self.0.runs.lock().unwrap_or_else(PoisonError::into_inner));
        runs.iter().filter_map(Weak::upgrade).for_each(|run| run.request());
    }

    /// Stops these runs when the handle is cancelled, at once if it was cancelled before.
    pub(crate) fn watch(&self, run: &Arc<StopSignal>) {
        let mut runs = self.0.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(run));
        drop(runs);
        if self.is_cancelled() {
            run.request();
        }
    }

    /// Withdraws a pending request. It does not resume calls that were already stopped.
    pub fn reset(&self) {
        self.0.requested.store(false, Ordering::SeqCst);
    }

    /// Takes the request, or the next one until then, when the returned value is dropped.
    pub(crate) fn take_at_end(&self) -> impl Drop + use<> {
        struct Take(CancelHandle);
        impl Drop for Take {
            fn drop(&mut self) {
                self.0.reset();
            }
        }
        Take(self.clone())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }
}

/// A call that was stopped before it was finished: opening an engine, verifying a bundle, perceiving a radiograph, or saving a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoppedError {
    /// Its cancel handle was used.
    #[error("the call was cancelled before it was finished; call again for the result")]
    Cancelled,
    /// Its deadline passed.
    #[error("the deadline passed before the call was finished; allow more time")]
    Deadline,
}

/// What ends a call: its cancel handle or its deadline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Until {
    pub cancel: Option<CancelHandle>,
    pub end: Option<Instant>,
}

impl Until {
    /// The limits of a call that begins now. A deadline later than the clock can represent counts as no deadline.
    pub fn begin(cancel: Option<&CancelHandle>, deadline: Option<Duration>) -> Self {
        Self { cancel: cancel.cloned(), end: deadline.and_then(|time| Instant::now().checked_add(time)) }
    }

    /// Checks that the call may go on.
    ///
    /// # Errors
    /// If it was cancelled or its deadline has passed.
    pub fn check(&self) -> Result<(), StoppedError> {
        if self.cancel.as_ref().is_some_and(CancelHandle::is_cancelled) {
            return Err(StoppedError::Cancelled);
        }
        self.end.filter(|&end| end <= Instant::now()).map_or(Ok(()), |_| Err(StoppedError::Deadline))
    }
}

/// What ends the answers of one call early: the cancel handle, and the deadline of each question.
#[derive(Clone, Copy)]
pub(crate) struct StopCondition<'a> {
    pub cancel: &'a CancelHandle,
    /// When the call began. Deadlines count from here.
    pub start: Instant,
}

impl StopCondition<'_> {
    pub fn is_cancelled(self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Why an answer with this deadline ends now; `None` if it was not cancelled and its deadline has not passed.
    pub fn reached(self, deadline: Option<Duration>) -> Option<Finish> {
        if self.is_cancelled() {
            return Some(Finish::Stopped);
        }
        deadline.filter(|&time| self.start.elapsed() >= time).map(|_| Finish::Deadline)
    }
}
