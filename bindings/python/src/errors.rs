//! Failures of calls, and the exceptions that they become. The classes are defined in `python/anatomix/_errors.py`.

use anatomix::Error;
use anatomix::error::{BundleError, PromptError, QuestionError, RadiographError, RuntimeError, StoppedError};
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
            Self::Sdk(error) => {
                let (class, code) = kind(&error);
                exception(py, class, (error.to_string(), code, error.causes()))
            }
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

/// The class and the code of an error. Codes are the names of the C interface's statuses, in lower case and without `ANX_`.
fn kind(error: &Error) -> (&'static str, &'static str) {
    match error {
        Error::Radiograph(error) => ("RadiographError", radiograph(error)),
        Error::Flagged(_) => ("FlaggedError", "radiograph_flagged"),
        Error::Stopped(StoppedError::Deadline) => ("StoppedError", "deadline"),
        Error::Stopped(_) => ("StoppedError", "stopped"),
        Error::Bundle(error) => ("BundleError", bundle(error)),
        Error::Retrieval(_) => ("RetrievalError", "retrieval"),
        Error::Runtime(error) => ("OnnxRuntimeError", runtime(error)),
        Error::Prompt(error) => prompt(error),
        Error::Question(error) => ("QuestionError", question(error)),
        Error::Memory(_) => ("DecoderError", "decoder_memory"),
        Error::Decoder(_) => ("DecoderError", "decoder"),
        Error::Saved(_) => ("SavedError", "saved"),
        Error::Output(_) => ("OutputError", "output"),
        _ => ("Error", "error"),
    }
}

fn radiograph(error: &RadiographError) -> &'static str {
    use RadiographError::*;
    match error {
        Read { .. } | Folder { .. } => "radiograph_read",
        UnknownFormat { .. } => "radiograph_format",
        Empty { .. } | Damaged { .. } => "radiograph_damaged",
        TooLarge { .. } | Sides { .. } | PixelCount { .. } => "radiograph_size",
        Memory { .. } => "radiograph_memory",
        _ => "radiograph",
    }
}

fn bundle(error: &BundleError) -> &'static str {
    use BundleError::*;
    match error {
        NoPath => "invalid_argument",
        Read { .. } => "bundle_read",
        Missing { .. } => "bundle_missing",
        Size { .. } | Altered { .. } | NotRegular { .. } | Graph { .. } => "bundle_altered",
        Unsigned { .. } | Signature { .. } => "bundle_signature",
        NewerSchema { .. } | NewerVersion { .. } => "bundle_newer",
        _ => "bundle",
    }
}

fn runtime(error: &RuntimeError) -> &'static str {
    use RuntimeError::*;
    match error {
        TooManyThreads { .. } => "invalid_argument",
        NotFound { .. } => "runtime_not_found",
        Library { .. } | OtherLibrary { .. } => "runtime_library",
        Provider { .. } | Precision { .. } => "runtime_provider",
        Graph { .. } | Port { .. } => "runtime_graph",
        Golden { .. } => "runtime_golden",
        Threads { .. } => "runtime_threads",
        _ => "runtime",
    }
}

fn question(error: &QuestionError) -> &'static str {
    use QuestionError::*;
    match error {
        Sampling { .. } | FollowUps => "invalid_argument",
        TooLong { .. } => "decoder_too_long",
        Schema { .. } => "decoder_schema",
        _ => "decoder",
    }
}

fn prompt(error: &PromptError) -> (&'static str, &'static str) {
    use PromptError::*;
    match error {
        ControlToken { .. } | EmptyQuestion | LongQuestion { .. } | Box { .. } => ("QuestionError", "prompt_question"),
        Tokenizer { .. } | MissingToken { .. } => ("BundleError", "prompt_tokenizer"),
        _ => ("QuestionError", "prompt"),
    }
}
