//! Errors of radiographs.

use crate::cause::{Source, advice};

/// A radiograph cannot be opened or used. Messages name the file, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RadiographError {
    #[error("cannot read {name}; {}", advice(.source, "check the path and its permissions"))]
    Read { name: String, source: std::io::Error },
    #[error("{name} is a folder; name one of the files in it")]
    Folder { name: String },
    #[error("{name} is empty; copy it again from its source")]
    Empty { name: String },
    #[error("{name} is larger than {limit} bytes, the most that is read; check that it is the right file")]
    TooLarge { name: String, limit: u64 },
    #[error("{name} is not a DICOM, PNG or JPEG file; convert it to one of these")]
    UnknownFormat { name: String },
    #[error("{name} is a saved study, not a radiograph; load it as a study, with the bundle that perceived it")]
    SavedStudy { name: String },
    #[error("the path of the radiograph is empty; pass that of a file")]
    NoPath,
    #[error("{name} is damaged: {message}; copy it again from its source")]
    Damaged { name: String, message: String, source: Option<Source> },
    #[error(
        "{name} has {width}x{height} pixels, but sides from {least} to {most} and at most {pixels} pixels are accepted; \
         check that it is a radiograph"
    )]
    Sides { name: String, width: u32, height: u32, least: u32, most: u32, pixels: u64 },
    #[error("{name} needs {bytes} bytes of memory, but there is too little; free memory, or export a smaller image")]
    Memory { name: String, bytes: usize },
    #[error(
        "{name} cannot be decompressed, because the system refuses to start threads; end other programs, or raise the limit of processes \
         (ulimit -u)"
    )]
    Threads { name: String },
    #[error("{name} is declared as {width}x{height} pixels, but {found} were given; pass width * height pixels")]
    PixelCount { name: String, width: u32, height: u32, found: usize },
    #[error("{name} has an invalid header: {message}; correct the header or export the image again")]
    Header { name: String, message: String },
    #[error(
        "{name} is written in {syntax} ({uid}), which cannot be read; \
         convert it, for instance to Explicit VR Little Endian (1.2.840.10008.1.2.1)"
    )]
    TransferSyntax { name: String, syntax: String, uid: String },
    #[error("{name} cannot be used: {message}")]
    Unsupported { name: String, message: String },
}
