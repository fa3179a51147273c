//! Failures of calls, panics included.

use super::status::anx_status;
use crate::cause::panic_text;
use crate::error::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call failed; becomes an [`anx_error`](super::error::anx_error).
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub status: anx_status,
    pub message: String,
    pub cause: Option<String>,
}

impl Failure {
    /// An argument that cannot be used. The message is "the argument NAME PROBLEM".
    pub fn argument(name: &str, problem: impl std::fmt::Display) -> Self {
        Self { status: anx_status::ANX_INVALID_ARGUMENT, message: format!("the argument {name} {problem}"), cause: None }
    }

    fn panic(payload: &(dyn Any + Send)) -> Self {
        let message = "a defect in AnatomiX stopped the call; report this with the cause, and if the call was on a study, free the study";
        Self { status: anx_status::ANX_PANIC, message: message.into(), cause: Some(panic_text(payload).into()) }
    }

    /// The handle was poisoned by an earlier call.
    pub fn poisoned(name: &str) -> Self {
        let message = format!("an earlier call on this {name} ended with ANX_PANIC; free it and make a new one");
        Self { status: anx_status::ANX_POISONED, message, cause: None }
    }

    /// The handle is in use.
    pub fn busy(name: &str) -> Self {
        let message = format!("another call is using this {name}; wait for it to return, or make one for each thread");
        Self { status: anx_status::ANX_BUSY, message, cause: None }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { status: anx_status::of(&error), message: error.to_string(), cause: error.causes() }
    }
}

/// Runs something and turns a panic in it into a failure.
pub(super) fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Unwind safety: whatever the panic left half done is behind a handle that is poisoned, or was dropped. What calls on an engine
    // share (graphs, the count of memory, prepared schemas) is changed in single steps, each whole or not begun.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)))
}
