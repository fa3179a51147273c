//! Output: JSON records, overlays, DICOM objects, FHIR, and atomic writing of files.

mod codes;
mod dicom;
mod document;
mod fhir;
mod file;
pub(crate) mod overlay;
mod record;
#[cfg(test)]
mod schema;
pub(crate) mod setup;
mod uid;

pub use dicom::{PresentationState, ReportClass, SecondaryCapture, StructuredReport};
pub use document::check_content_time;
pub use fhir::FhirBundle;
pub(crate) use file::destination;
pub use file::{check_writable, write_private, write_whole};
pub use overlay::{LabelledBox, Overlay};
pub use record::{AskRecord, EvidenceRecord, GroundingRecord, PerceiveRecord, StructureEvidenceRecord, StructureRecord};

use crate::cause::{Source, advice};
use std::path::PathBuf;

/// Errors of making and writing an output. Each message names the path or the radiograph, the cause and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum OutputError {
    #[error("cannot write {path}; {}", advice(.source, "check that the folder exists and is writable and that the disk has room"))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: it is a folder; name a file in it")]
    Folder { path: PathBuf },
    #[error("cannot write {path}: it is a pipe or device; name a file")]
    NotRegular { path: PathBuf },
    #[error("the picture cannot be encoded as PNG; report this as a defect")]
    Encode { source: Source },
    #[error("a DICOM object or FHIR bundle cannot be made from {name}: {message}")]
    Identity { name: String, message: String },
    #[error("the content time \"{found}\" is not a date and time; write it as YYYYMMDDhhmmss")]
    Time { found: String },
    #[error(
        "a document cannot be made from {name}: an answer is about another radiograph or from another bundle; pass answers of this study"
    )]
    ForeignAnswer { name: String },
    #[error("a secondary capture cannot be made from {name}: the overlay is of another radiograph or bundle; pass one of this study")]
    ForeignOverlay { name: String },
    #[error("the DICOM object cannot be encoded; report this as a defect")]
    Dicom { source: Source },
}
