//! Why parameters cannot be used.

use std::path::PathBuf;

/// Parameters do not fit a model or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// Names or shapes do not fit.
    #[error("{path} does not fit the model: {}; check that the configuration is the one it was trained with", .problems.join("; "))]
    Misfit {
        /// Where they came from.
        path: PathBuf,
        /// Every missing, extra or misshaped name.
        problems: Vec<String>,
    },
    /// The file cannot be read or written.
    #[error("cannot use {path}: {message}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}
