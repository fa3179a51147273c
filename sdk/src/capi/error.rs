//! Errors of calls.

use super::failure::Failure;
use super::handle::{Handle, read};
use super::status::anx_status;
use super::strings::c_string;
use crate::text::escaped;
use std::ffi::{CString, c_char};
use std::ptr::null;

/// Why a call failed. Owned by the caller, who frees it with anx_error_free. It never changes, so threads may share it.
pub struct anx_error {
    status: anx_status,
    message: CString,
    cause: Option<CString>,
}

impl Handle for anx_error {
    const NAME: &'static str = "error";
}

impl From<Failure> for anx_error {
    fn from(failure: Failure) -> Self {
        let Failure { status, message, cause } = failure;
        let text = |text: &str| c_string(&escaped(text));
        Self { status, message: text(&message), cause: cause.as_deref().map(text) }
    }
}

/// The status that the failed call returned; ANX_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_error_code(error: *const anx_error) -> anx_status {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(error, anx_status::ANX_OK, |e| e.status) }
}

/// One line for a person: the path or argument, what is wrong with it and what to do. Control characters in names of files and the like are
/// written as \u{1b}, so that a terminal does not obey them. Empty for NULL. Borrowed
/// from the error. The wording may change between versions; programs decide by the code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_error_message(error: *const anx_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(error, c"".as_ptr(), |e| e.message.as_ptr()) }
}

/// What the operating system, ONNX Runtime or a parser said, on one line, from the nearest cause to the innermost one; the message does
/// not repeat it. NULL if the error has no cause, and for NULL. Borrowed from the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_error_cause(error: *const anx_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(error, null(), |e| e.cause.as_ref().map_or(null(), |c| c.as_ptr())) }
}

/// Frees an error and its strings. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_error_free(error: *mut anx_error) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(error) }
}
