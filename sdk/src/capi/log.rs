//! The callback that receives an engine's messages.

use super::strings::c_string;
use crate::log::LogLevel;
use std::ffi::{c_char, c_void};

/// How important a message is. Later versions may add values.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_log_level {
    /// A study or an answer: its size, times and flags.
    ANX_LOG_DEBUG = 0,
    /// The opening of an engine.
    ANX_LOG_INFO = 1,
    /// Something that may make results wrong or slow.
    ANX_LOG_WARNING = 2,
    /// A failure that ONNX Runtime reports. The call that failed returns an error, too.
    ANX_LOG_ERROR = 3,
}

/// Receives what an engine does, one message a call: when it is opened, the provider and why it was chosen, the version and path of ONNX
/// Runtime, and seconds of each step; of each study its size, times and codes of flags; of each answer its tokens, times and why it ended;
/// warnings; warnings and errors of ONNX Runtime. A message holds no data of patients: no names of files, texts, findings or pixels.
/// A radiograph is named by the first 12 digits of its SHA-256.
///
/// message: one line, UTF-8, NUL-terminated, valid during this call only; its wording may change. length: its bytes without the NUL.
/// user_data: anx_engine_options.log_user_data. Any thread may call it, also several at once. The engine waits for it. It must return
/// normally: no exception, no longjmp. Of the library's functions it may call anx_cancel_request.
pub type anx_log_callback =
    Option<unsafe extern "C" fn(level: anx_log_level, message: *const c_char, length: usize, user_data: *mut c_void)>;

/// Frees what user_data points to.
pub type anx_free_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A callback with its user data, which it frees when it is dropped.
pub(super) struct Receiver {
    pub callback: anx_log_callback,
    pub user_data: *mut c_void,
    pub free: anx_free_callback,
}

// SAFETY: the header asks for a callback that any thread may call, several at once, and lets the last of them free the user data.
unsafe impl Send for Receiver {}
// SAFETY: the same.
unsafe impl Sync for Receiver {}

impl Receiver {
    /// What the engine calls; `None` if no callback was given.
    pub fn into_callback(self) -> Option<impl Fn(LogLevel, &str) + Send + Sync + 'static> {
        let callback = self.callback?;
        let receiver = self;
        Some(move |level, message: &str| {
            let level = match level {
                LogLevel::Debug => anx_log_level::ANX_LOG_DEBUG,
                LogLevel::Info => anx_log_level::ANX_LOG_INFO,
                LogLevel::Warning => anx_log_level::ANX_LOG_WARNING,
                LogLevel::Error => anx_log_level::ANX_LOG_ERROR,
            };
            let message = c_string(message);
            // The closure owns all of `receiver`, not only the pointer in it, so that the user data is freed after the last call.
            let Receiver { user_data, .. } = &receiver;
            // SAFETY: the header asks for a valid callback; the message is NUL-terminated and outlives the call.
            unsafe { callback(level, message.as_ptr(), message.count_bytes(), *user_data) }
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the header asks for a valid function. The user data is not used any more, and freed here alone.
            unsafe { free(self.user_data) }
        }
    }
}
