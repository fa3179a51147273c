//! Stopping runs of graphs from another thread.

use super::error::RuntimeError;
use crate::cause::source;
use ort::AsPointer;
use ort::session::RunOptions;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops the runs of graphs that it is passed to. ONNX Runtime checks it between two operators. A run that begins after the request stops
/// at once.
pub(crate) struct StopSignal {
    options: RunOptions,
    requested: AtomicBool,
}

impl StopSignal {
    /// Makes one that is not requested yet.
    ///
    /// # Errors
    /// If ONNX Runtime cannot allocate its options of a run.
    pub fn new() -> Result<Self, RuntimeError> {
        let options = RunOptions::new().map_err(|e| RuntimeError::Run { graph: "a run that can be stopped".into(), source: source(e) })?;
        Ok(Self { options, requested: AtomicBool::new(false) })
    }

    /// Stops the runs. Any thread may call this.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        // ONNX Runtime sets a flag; it has no way to fail.
        let _ = self.options.terminate();
    }

    /// Whether [`StopSignal::request`] was called.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// What a run takes.
    pub(super) fn ptr(&self) -> *const ort::sys::OrtRunOptions {
        self.options.ptr()
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopSignal").field(&self.is_requested()).finish()
    }
}
