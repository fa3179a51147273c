//! Causes of errors: the text of a dependency's or the system's error, apart from our own message.
//!
//! A message says what is wrong and what to do. It never contains the text of its source, so that printing an error with its causes
//! prints each of them once. A dependency's error is kept by its text, bounded by [`brief`]: a damaged file may be quoted in it, and no
//! type of a dependency becomes part of the public interface.

use crate::text::brief;
use std::error::Error;
use std::fmt;

/// The source of an error, as fields of error enums hold it.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// The bounded text of a dependency's error.
#[derive(Debug)]
struct Foreign(String);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Foreign {}

/// A dependency's error as a source: one line of at most 240 characters, without control characters.
pub(crate) fn source(error: impl fmt::Display) -> Source {
    Box::new(Foreign(brief(error)))
}

/// What is wrong, in our own words, and the dependency's error that it was reported by, if there is one.
#[derive(Debug)]
pub(crate) struct Problem {
    pub message: String,
    pub source: Option<Source>,
}

impl Problem {
    /// A problem that a dependency's error reports.
    pub fn caused(message: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self { message: brief(message), source: Some(source(error)) }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message: brief(message), source: None }
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        Self { message: brief(message), source: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.source.iter().try_for_each(|source| write!(f, ": {source}"))
    }
}

/// The causes of an error on one line, from its source to the innermost one; `None` if it has no source.
pub(crate) fn causes(error: &dyn Error) -> Option<String> {
    let causes: Vec<String> = std::iter::successors(error.source(), |&cause| cause.source()).map(brief).collect();
    (!causes.is_empty()).then(|| causes.join(": "))
}
