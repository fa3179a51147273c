//! One error type over those of the rooms.

use crate::bundle::BundleError;
use crate::decoder::DecoderError;
use crate::output::OutputError;
use crate::perception::flags::FlaggedError;
use crate::prompt::PromptError;
use crate::radiograph::RadiographError;
use crate::retrieval::RetrievalError;
use crate::runtime::RuntimeError;
use crate::saved::SavedError;

/// Anything that can go wrong. Messages name the path, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Radiograph(#[from] RadiographError),
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
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Saved(#[from] SavedError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
