//! Errors of parameters.

use std::path::PathBuf;

/// Parameters do not fit a model or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// Names or shapes do not fit.
    #[error("{path} does not fit the model: {}; check that the configuration is the one it was trained with", .problems.join("; "))]
    Misfit {
        /// Path of the file or folder of the parameters.
        path: PathBuf,
        /// One entry for each name that is missing, extra or of another shape.
        problems: Vec<String>,
    },
    /// The file cannot be read or written.
    #[error("cannot use {path}: {message}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        message: String,
    },
}
