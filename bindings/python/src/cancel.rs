//! Handles that stop calls from another thread.

use pyo3::prelude::*;

/// Stops calls from any thread.
///
/// A handle that is made by calling the class stops the perceiving calls that it is given to (``Engine.study(..., cancel=handle)``), also
/// those that begin after it was cancelled. ``Study.cancel_handle()`` is a handle that stops one call on that study: the one that is
/// running, or else the next one.
#[pyclass(frozen, module = "anatomix")]
pub struct CancelHandle(pub anatomix::CancelHandle);

#[pymethods]
impl CancelHandle {
    #[new]
    fn new() -> Self {
        Self(anatomix::CancelHandle::new())
    }

    /// Stops the call.
    ///
    /// Decoding stops after the current run of the decoder, and perceiving within one operator of the perception module.
    fn cancel(&self) {
        self.0.cancel();
    }

    /// Withdraws a pending request. It does not resume calls that were already stopped.
    fn reset(&self) {
        self.0.reset();
    }
}
