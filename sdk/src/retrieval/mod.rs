//! The sentence database, in which the sentence nearest to each structure's object embedding is found (paper, section 3.1).
//!
//! It is a safetensors file with three tensors for each structure `ii` (two digits, 00 to 35):
//!
//! | tensor | type | shape | content |
//! | --- | --- | --- | --- |
//! | `ii.embeddings` | f32 | `[n, width]` | one unit vector for each sentence |
//! | `ii.text` | u8 | `[bytes]` | all sentences in UTF-8, concatenated |
//! | `ii.offsets` | u64 | `[n + 1]` | start of each sentence in the text, then the end of the last one |
//!
//! Its metadata are `format` = `anatomix-sentences` and `version` = `1`. The file is memory-mapped.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Hit, SentenceDatabase};
pub use writer::{SentenceList, write};

use crate::anatomy::Structure;
use crate::cause::{Source, advice};
use std::path::PathBuf;

/// Errors of reading, searching and writing a sentence database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RetrievalError {
    #[error("cannot read {path}; {}", advice(.source, "check that the bundle is complete and readable"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a valid sentence database: {message}; restore the bundle from its source")]
    Damaged { path: PathBuf, message: String, source: Option<Source> },
    #[error("{path} has version {found}, but this SDK supports versions up to {known}; update the SDK")]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
    #[error("{path} holds embeddings of width {found}, but the perception module gives {expected}; export the bundle again")]
    Width { path: PathBuf, found: usize, expected: usize },
    #[error("cannot write {path}; check that its folder exists, is writable and has room")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {message}; correct the sentence lists")]
    Lists { path: PathBuf, message: String },
}

/// Whether a sentence names a finding. The sentence of a normal structure is "NAME is healthy."
pub fn is_finding(sentence: &str) -> bool {
    !sentence.trim_end().ends_with("is healthy.")
}

/// A sentence without its structure's name: "edema" for "Left lung shows edema." Compact prompts contain it, so this never changes.
pub(crate) fn noted(structure: Structure, sentence: &str) -> &str {
    let name = structure.name();
    let rest = match sentence.split_at_checked(name.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(name) => rest.trim_start(),
        _ => sentence,
    };
    rest.strip_prefix("shows ").unwrap_or(rest).trim_end_matches('.')
}
