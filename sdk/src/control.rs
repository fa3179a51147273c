//! How an answer that is being decoded is stopped: by its listener, from another thread, or by its deadline.

use crate::answer::Finish;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a listener to a streamed answer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More.
    Continue,
    /// No more.
    Stop,
}

/// Stops a study's running answer from another thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Stops the answer that runs now, within one step of the language model, or one part of the context or of a long question while
    /// that is computed. Without one it does nothing.
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

/// How long answers are waited for.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    pub cancel: &'a CancelHandle,
    /// When they were asked for.
    pub asked: Instant,
}

impl Patience<'_> {
    pub fn is_cancelled(self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Why an answer ends now, if it was cancelled or its time is over.
    pub fn over(self, deadline: Option<Duration>) -> Option<Finish> {
        if self.is_cancelled() {
            return Some(Finish::Stopped);
        }
        deadline.filter(|&time| self.asked.elapsed() >= time).map(|_| Finish::Deadline)
    }
}
