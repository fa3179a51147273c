//! Output: JSON records, overlays, and atomic writing of files.

mod file;
pub(crate) mod overlay;
mod record;

pub use file::{check_writable, write_whole};
pub use overlay::{LabelledBox, Overlay};
pub use record::{AskRecord, GroundingRecord, PerceiveRecord, StructureRecord};

use crate::cause::Source;
use std::path::PathBuf;

/// Errors of writing a file. Each message names the path, the cause and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum OutputError {
    #[error("cannot write {path}; check that the folder exists and is writable and that the disk has room")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: it is a folder; name a file in it")]
    Folder { path: PathBuf },
    #[error("cannot write {path}: it is a pipe or device; name a file")]
    NotRegular { path: PathBuf },
    #[error("cannot write {path}: the picture cannot be encoded; report this as a defect")]
    Encode { path: PathBuf, source: Source },
}
