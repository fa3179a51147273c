//! Errors of saved studies.

use crate::cause::{Source, advice};
use std::path::PathBuf;

/// Version of the layout. Earlier layouts are refused: 1 and 2 have no checksum, 3 does not say which DICOM image was perceived.
pub(super) const VERSION: u32 = 4;

/// Why a saved study cannot be used, or a study cannot be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SavedError {
    #[error("cannot read {path}; {}", advice(.source, "check that it is a study that was saved with the open bundle"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{name} is damaged or is not a saved study: {message}; perceive the radiograph again")]
    Damaged { name: String, message: String, source: Option<Source> },
    #[error("{name} was saved by an older version (layout {found}, supported {VERSION}); perceive the radiograph again")]
    Older { name: String, found: u32 },
    #[error("{name} was saved by a newer version (layout {found}, supported {VERSION}); update AnatomiX or perceive the radiograph again")]
    Newer { name: String, found: u32 },
    #[error("{name} cannot be used by this version: {message}; update AnatomiX or perceive the radiograph again")]
    Content { name: String, message: String, source: Option<Source> },
    #[error("{name} was perceived with the bundle {found}, but {expected} is open; open that bundle or perceive it again")]
    Bundle { name: String, found: String, expected: String },
    #[error("the study cannot be saved: {message}")]
    Unsaved { message: String, source: Option<Source> },
}
