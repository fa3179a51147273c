//! The SDK's error: one enum over the errors of its modules, which are re-exported here.

use crate::cause;

pub use crate::bundle::BundleError;
pub use crate::control::StoppedError;
pub use crate::decoder::{DecoderError, MemoryError, QuestionError};
pub use crate::output::OutputError;
pub use crate::perception::flags::FlaggedError;
pub use crate::prompt::PromptError;
pub use crate::radiograph::RadiographError;
pub use crate::retrieval::RetrievalError;
pub use crate::runtime::RuntimeError;
pub use crate::saved::SavedError;

/// Any error of the SDK.
///
/// The message names the path or argument, what is wrong with it and what to do. What ONNX Runtime, a parser or the operating system said
/// is not part of the message but the error's [`source`](std::error::Error::source), as one line of at most 240 characters.
/// [`Error::full_message`] is both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Radiograph(#[from] RadiographError),
    #[error(transparent)]
    Stopped(#[from] StoppedError),
    #[error(transparent)]
    Flagged(#[from] FlaggedError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Saved(#[from] SavedError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Error {
    /// The causes on one line, from the source to the innermost one; `None` if the error has no source.
    pub fn causes(&self) -> Option<String> {
        cause::causes(self)
    }

    /// The message and its causes on one line, as the program `anatomix` prints them.
    pub fn full_message(&self) -> String {
        self.causes().map_or_else(|| self.to_string(), |causes| format!("{self}; caused by: {causes}"))
    }
}

/// Result with the SDK's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
