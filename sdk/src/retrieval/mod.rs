//! The sentence database: for each structure the sentence whose embedding is nearest to the object's (paper, section 3.1).
//!
//! The file is a plain safetensors file that any reader opens. For each structure `ii` (two digits, 00 to 35):
//!
//! | tensor | type | shape | what |
//! | --- | --- | --- | --- |
//! | `ii.embeddings` | f32 | `[n, width]` | one row of length 1 for each sentence |
//! | `ii.text` | u8 | `[bytes]` | all sentences in UTF-8, one after the other |
//! | `ii.offsets` | u64 | `[n + 1]` | where each sentence begins in the text, and the end of the last |
//!
//! Its metadata says `format` = `anatomix-sentences` and `version` = `1`. The file is mapped, never copied.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Hit, SentenceDatabase};
pub use writer::{SentenceList, write};

use std::path::PathBuf;

/// What can be wrong with a sentence database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RetrievalError {
    #[error("cannot read {path}: {source}; check that the bundle is complete and readable")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a valid sentence database: {message}; restore the bundle from its source")]
    Damaged { path: PathBuf, message: String },
    #[error("{path} has version {found}, but this SDK knows versions up to {known}; update the SDK")]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
    #[error("{path} holds embeddings of width {found}, but the perception module gives {expected}; export the bundle again")]
    Width { path: PathBuf, found: usize, expected: usize },
    #[error("cannot write {path}: {source}; check that its folder exists, is writable and has room")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {message}; correct the sentence lists")]
    Lists { path: PathBuf, message: String },
}

/// Whether a sentence tells of something: those on a normal structure read "NAME is healthy."
pub fn is_finding(sentence: &str) -> bool {
    !sentence.trim_end().ends_with("is healthy.")
}
