//! Why the bytes of a study cannot be used.

/// Version of the bytes' layout. In the first, layers with a window had rows of all tokens, too.
pub(super) const VERSION: u32 = 2;

/// What can be wrong with the bytes of a study.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SavedError {
    #[error("these are not the bytes of a study: {message}; perceive the radiograph again")]
    Damaged { message: String },
    #[error("the study was saved by a newer version (layout {found}, known {VERSION}); update AnatomiX or perceive the radiograph again")]
    Newer { found: u32 },
    #[error("the study was perceived with the bundle {found:.12}, but {expected:.12} is open; open that bundle or perceive it again")]
    Bundle { found: String, expected: String },
}
