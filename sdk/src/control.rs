//! Ways to stop an answer while it is decoded: the streaming callback, a cancel handle, and the deadline.

use crate::answer::Finish;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the callback of a streamed answer returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Decoding continues.
    Continue,
    /// The answer ends.
    Stop,
}

/// Stops a study's running answer from another thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Stops the answer that is being decoded, after the current run of the decoder: one step, or one chunk of a prefill. If no answer is
    /// being decoded, this does nothing.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
