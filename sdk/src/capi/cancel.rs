//! Stopping an answer from another thread.

use super::handle::{Handle, read};
use crate::control::CancelHandle;

/// Stops a study's running answer; may be used from any thread. Owned by the caller, free it with anx_cancel_free. It may
/// outlive its study and then does nothing.
pub struct anx_cancel(CancelHandle);

impl Handle for anx_cancel {
    const NAME: &'static str = "cancel";
}

impl anx_cancel {
    pub(super) fn new(handle: CancelHandle) -> Self {
        Self(handle)
    }
}

/// Stops the ask that is running on the study now: within one step of the language model, or one part of the context or of a long
/// question while that is computed, that call returns ANX_OK with what was decoded so far, be it nothing, and ANX_FINISH_STOPPED.
/// An anx_study_save that computes the context fails with ANX_DECODER. Returns at once; cannot fail. While nothing is running, and
/// for NULL, it does nothing: what starts later is not stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_request(cancel: *const anx_cancel) {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(cancel, (), |c| c.0.cancel()) }
}

/// Frees a cancel handle; the study is not touched. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_free(cancel: *mut anx_cancel) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(cancel) }
}
