//! The callback that receives how far a call has come.

use super::strings::c_string;
use crate::progress::Progress;
use std::ffi::{c_char, c_void};

/// Receives how far a call has come. phase: what the call is doing, NUL-terminated, valid during this call only. done: how much of the
/// phase is done, 0 to total; it never decreases within a phase. total: how much there is to do in the phase. user_data: progress_user_data
/// of the options.
///
/// Phases: "hashes", bytes of the bundle's files whose hashes are compared; "sentences", the check of the sentence database, 1 of 1;
/// "graphs", graphs that are loaded; "golden_check", graphs that the golden input ran through; "perceive", radiographs that are perceived
/// or failed. Later versions may add some. A phase begins with 0, and one with nothing to do may be left out.
///
/// It is called during the call only, by one thread at a time, which may be another than the caller's. The call waits for it. It must
/// return normally: no exception, no longjmp. Of the library's functions it may call anx_cancel_request.
pub type anx_progress_callback = Option<unsafe extern "C" fn(phase: *const c_char, done: u64, total: u64, user_data: *mut c_void)>;

/// A callback with its user data.
pub(super) struct Observer {
    pub callback: anx_progress_callback,
    pub user_data: *mut c_void,
}

// SAFETY: the header says that another thread than the caller's may call it. It is not called after the call.
unsafe impl Send for Observer {}
// SAFETY: the library's callers of it wait for each other.
unsafe impl Sync for Observer {}

impl Observer {
    /// What the call reports to; `None` if no callback was given.
    pub fn into_callback(self) -> Option<impl Fn(Progress) + Send + Sync + 'static> {
        let callback = self.callback?;
        let observer = self;
        Some(move |Progress { phase, done, total }| {
            let phase = c_string(phase.name());
            // The closure owns all of `observer`, not only the pointer in it, which alone is not Send.
            let Observer { user_data, .. } = &observer;
            // SAFETY: the header asks for a valid callback; the name is NUL-terminated and outlives the call.
            unsafe { callback(phase.as_ptr(), done, total, *user_data) }
        })
    }
}
