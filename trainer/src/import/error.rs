//! Errors of importing checkpoints.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A checkpoint cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Names, shapes or types do not fit the model.
    #[error("{} does not fit its model:\n  {}", .path.display(), .problems.join("\n  "))]
    Misfit {
        /// Path of the file or folder.
        path: PathBuf,
        /// One line for each name that is missing, extra, or of another shape or type.
        problems: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}: {message}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        message: String,
    },
    /// The model has a property that is not supported.
    #[error("{} has {what}; this cannot be imported", .path.display())]
    Unsupported {
        /// Path of the file or folder.
        path: PathBuf,
        /// The property.
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
