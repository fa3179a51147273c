//! The error of one of several questions.

use super::Error;
use std::fmt;

/// The error of one of several questions that were asked at once, with [`Study::ask_many`](crate::Study::ask_many). It fails the whole
/// call.
#[derive(Debug)]
#[non_exhaustive]
pub struct AskedError {
    /// Index of the question.
    pub index: usize,
    /// Its error.
    pub error: Box<Error>,
}

impl AskedError {
    pub(crate) fn new(index: usize, error: Error) -> Self {
        Self { index, error: error.into() }
    }
}

impl fmt::Display for AskedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "questions[{}]: {}", self.index, self.error)
    }
}

impl std::error::Error for AskedError {
    /// The source of the question's error, whose own text is part of the message.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
