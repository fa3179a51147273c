//! Failures of calls, and the exceptions that they become. The classes are defined in `python/anatomix/_errors.py`.

use anatomix::Error;
use anatomix::error::ErrorCode;
use pyo3::prelude::*;
use std::any::Any;
use std::sync::PoisonError;

/// Why a call failed.
pub enum Failure {
    /// The SDK returned an error.
    Sdk(Error),
    /// A defect: what a panic said.
    Defect(String),
    /// An earlier call on the study ended with a defect.
    Poisoned,
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Sdk(error.into())
    }
}

/// The failure of a call on a study whose lock is poisoned.
pub fn poisoned<T>(_: PoisonError<T>) -> Failure {
    Failure::Poisoned
}

/// The failure of a call that panicked.
pub fn defect(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    Failure::Defect(text.unwrap_or("no message").into())
}

impl Failure {
    /// The exception.
    pub fn raise(self, py: Python<'_>) -> PyErr {
        let made = match self {
            Self::Sdk(error) => exception(py, class(&error), (error.to_string(), error.code().name(), error.causes())),
            Self::Defect(said) => {
                let message = "a defect in AnatomiX stopped the call; report this with the cause, and make a new study";
                exception(py, "InternalError", (message.into(), "panic", Some(said)))
            }
            Self::Poisoned => {
                let message = "an earlier call on this study was stopped by a defect in AnatomiX; make a new study";
                exception(py, "InternalError", (message.into(), "poisoned", None))
            }
            Self::Thread(error) => return error.into(),
        };
        made.map_or_else(|error| error, PyErr::from_value)
    }

    /// The exception as an object.
    pub fn object(self, py: Python<'_>) -> Py<PyAny> {
        self.raise(py).into_value(py).into_any()
    }
}

fn exception<'py>(py: Python<'py>, class: &str, arguments: (String, &str, Option<String>)) -> PyResult<Bound<'py, PyAny>> {
    py.import("anatomix._errors")?.getattr(class)?.call1(arguments)
}

/// The class of an error.
fn class(error: &Error) -> &'static str {
    match (error, error.code()) {
        (Error::Asked(asked), _) => class(&asked.error),
        (_, ErrorCode::PromptTokenizer) => "BundleError",
        (_, ErrorCode::DecoderSchema) => "QuestionError",
        (Error::Radiograph(_), _) => "RadiographError",
        (Error::Flagged(_), _) => "FlaggedError",
        (Error::Stopped(_), _) => "StoppedError",
        (Error::Bundle(_), _) => "BundleError",
        (Error::Retrieval(_), _) => "RetrievalError",
        (Error::Runtime(_), _) => "OnnxRuntimeError",
        (Error::Prompt(_) | Error::Question(_), _) => "QuestionError",
        (Error::Memory(_) | Error::Decoder(_), _) => "DecoderError",
        (Error::Saved(_), _) => "SavedError",
        (Error::Output(_), _) => "OutputError",
        _ => "Error",
    }
}
