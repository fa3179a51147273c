//! Stopping a call from another thread.

use super::call::make;
use super::error::anx_error;
use super::handle::{Handle, read};
use super::status::anx_status;
use crate::control::CancelHandle;

/// Stops a call from any thread. Owned by the caller, who frees it with anx_cancel_free, at any time and in any order.
///
/// The handle of a study, from anx_study_cancel_handle, stops one ask or save of that study: the one that is running, or else the next one.
/// Any handle, from anx_cancel_new or of a study, stops all calls that are given it: those that make studies, by
/// anx_perceive_options.cancel, and those that open or verify a bundle, by anx_engine_options.cancel.
pub struct anx_cancel(pub(super) CancelHandle);

impl Handle for anx_cancel {
    const NAME: &'static str = "cancel";
}

impl anx_cancel {
    pub(super) fn new(handle: CancelHandle) -> Self {
        Self(handle)
    }
}

/// Makes a handle that stops perceiving, see anx_perceive_options.cancel, and opening and verifying bundles, see
/// anx_engine_options.cancel. One handle may be given to several calls.
///
/// cancel: takes the handle, which the caller frees with anx_cancel_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_new(cancel: *mut *mut anx_cancel, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { make(cancel, error, || Ok(anx_cancel::new(CancelHandle::new()))) }
}

/// Stops calls. Returns at once; cannot fail. For NULL it does nothing.
///
/// With the handle of a study: the ask that is running returns ANX_OK with the tokens decoded so far, perhaps none, and
/// ANX_FINISH_STOPPED, after the current run of the decoder (a long prefill takes several runs). An anx_study_save that prefills the
/// context fails with ANX_STOPPED. If none is running, the next one ends so at once. (A save with nothing left to compute is not stopped.)
/// The call consumes the request. After it ends none is pending, even if the request came too late to stop it. A call that fails because of
/// its arguments or its question consumes none.
/// Calls that were given the handle fail with ANX_STOPPED, perceiving within one operator of the perception module, opening and verifying
/// between two of their parts. So do all that are given it later, until anx_cancel_reset, or, with the handle of a study, until an ask or a
/// save of the study consumes the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_request(cancel: *const anx_cancel) {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(cancel, (), |c| c.0.cancel()) }
}

/// Withdraws a pending request. It does not resume calls that were already stopped. Cannot fail. For NULL it does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_reset(cancel: *const anx_cancel) {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(cancel, (), |c| c.0.reset()) }
}

/// Frees a cancel handle; the study is not touched. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_cancel_free(cancel: *mut anx_cancel) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(cancel) }
}
