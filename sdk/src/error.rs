//! The SDK's error: one enum over the errors of its modules, which are re-exported here.

mod code;

use crate::cause;
use std::fmt;

pub use code::ErrorCode;

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
    Asked(#[from] AskedError),
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
    /// The kind of this error, the same in every language.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Radiograph(e) => radiograph(e),
            Self::Stopped(StoppedError::Cancelled) => ErrorCode::Stopped,
            Self::Stopped(StoppedError::Deadline) => ErrorCode::Deadline,
            Self::Flagged(_) => ErrorCode::RadiographFlagged,
            Self::Bundle(e) => bundle(e),
            Self::Retrieval(_) => ErrorCode::Retrieval,
            Self::Runtime(e) => runtime(e),
            Self::Prompt(e) => prompt(e),
            Self::Question(e) => question(e),
            Self::Asked(e) => e.error.code(),
            Self::Memory(_) => ErrorCode::DecoderMemory,
            Self::Decoder(DecoderError::Schema { .. }) => ErrorCode::DecoderSchema,
            Self::Decoder(_) => ErrorCode::Decoder,
            Self::Output(OutputError::Time { .. }) => ErrorCode::InvalidArgument,
            Self::Output(_) => ErrorCode::Output,
            Self::Saved(_) => ErrorCode::Saved,
        }
    }

    /// The causes on one line, from the source to the innermost one; `None` if the error has no source.
    pub fn causes(&self) -> Option<String> {
        cause::causes(self)
    }

    /// The message and its causes on one line, as the program `anatomix` prints them.
    pub fn full_message(&self) -> String {
        self.causes().map_or_else(|| self.to_string(), |causes| format!("{self}; caused by: {causes}"))
    }
}

/// The error of one of several questions that were asked at once, with [`Study::ask_many`](crate::Study::ask_many). It fails the whole
/// call.
#[derive(Debug)]
#[non_exhaustive]
pub struct AskedError {
    /// Index of the question.
    pub index: usize,
    /// Its error.
    pub error: Box<Error>,
}

impl AskedError {
    pub(crate) fn new(index: usize, error: Error) -> Self {
        Self { index, error: error.into() }
    }
}

impl fmt::Display for AskedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "questions[{}]: {}", self.index, self.error)
    }
}

impl std::error::Error for AskedError {
    /// The source of the question's error, whose own text is part of the message.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Result with the SDK's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn radiograph(error: &RadiographError) -> ErrorCode {
    use RadiographError as E;
    match error {
        E::NoPath | E::Read { .. } | E::Folder { .. } => ErrorCode::RadiographRead,
        E::UnknownFormat { .. } | E::SavedStudy { .. } => ErrorCode::RadiographFormat,
        E::Empty { .. } | E::Damaged { .. } => ErrorCode::RadiographDamaged,
        E::TooLarge { .. } | E::Sides { .. } | E::PixelCount { .. } => ErrorCode::RadiographSize,
        E::Memory { .. } => ErrorCode::RadiographMemory,
        _ => ErrorCode::Radiograph,
    }
}

fn bundle(error: &BundleError) -> ErrorCode {
    use BundleError as E;
    match error {
        E::NoPath => ErrorCode::InvalidArgument,
        E::Read { .. } => ErrorCode::BundleRead,
        E::Missing { .. } => ErrorCode::BundleMissing,
        E::Size { .. } | E::Altered { .. } | E::Changed { .. } | E::NotRegular { .. } | E::Graph { .. } => ErrorCode::BundleAltered,
        E::Unsigned { .. } | E::Signature { .. } => ErrorCode::BundleSignature,
        E::NewerSchema { .. } | E::NewerVersion { .. } => ErrorCode::BundleNewer,
        _ => ErrorCode::Bundle,
    }
}

fn question(error: &QuestionError) -> ErrorCode {
    use QuestionError as E;
    match error {
        E::Instruction { .. } | E::Unsuitable { .. } | E::Sampling { .. } | E::FollowUps => ErrorCode::InvalidArgument,
        E::TooLong { .. } => ErrorCode::DecoderTooLong,
        E::Schema { .. } => ErrorCode::DecoderSchema,
    }
}

fn runtime(error: &RuntimeError) -> ErrorCode {
    use RuntimeError as E;
    match error {
        E::TooManyThreads { .. } => ErrorCode::InvalidArgument,
        E::NotFound { .. } => ErrorCode::RuntimeNotFound,
        E::Library { .. } | E::OtherLibrary { .. } => ErrorCode::RuntimeLibrary,
        E::Provider { .. } | E::Precision { .. } => ErrorCode::RuntimeProvider,
        E::Graph { .. } | E::Missing { .. } | E::Size { .. } => ErrorCode::RuntimeGraph,
        E::Golden { .. } => ErrorCode::RuntimeGolden,
        E::Threads { .. } => ErrorCode::RuntimeThreads,
        _ => ErrorCode::Runtime,
    }
}

fn prompt(error: &PromptError) -> ErrorCode {
    use PromptError as E;
    match error {
        E::Read { .. } | E::Tokenizer { .. } | E::MissingToken { .. } => ErrorCode::PromptTokenizer,
        E::SystemPrompt { .. } => ErrorCode::Bundle,
        E::ControlToken { .. } | E::EmptyQuestion | E::LongQuestion { .. } | E::Box { .. } => ErrorCode::PromptQuestion,
        _ => ErrorCode::Prompt,
    }
}
