//! Why a checkpoint cannot be imported.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A checkpoint cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Names or shapes do not fit.
    #[error("{} does not fit its model:\n  {}", .path.display(), .problems.join("\n  "))]
    Misfit {
        /// The file or folder.
        path: PathBuf,
        /// Every missing, extra or misshaped name.
        problems: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}: {message}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A model of another kind.
    #[error("{} has {what}; this cannot be imported", .path.display())]
    Unsupported {
        /// Where it is.
        path: PathBuf,
        /// What it has that these models do not.
        what: String,
    },
}

impl ImportError {
    pub(super) fn file(path: &Path, message: impl Display) -> Self {
        Self::File { path: path.into(), message: message.to_string() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into() }
    }
}
