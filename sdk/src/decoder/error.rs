//! Why a question cannot be answered.

use crate::bundle::DECODER;
use crate::runtime::RuntimeError;

/// What can be wrong with a question's tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum DecoderError {
    #[error("the context takes {context} tokens and the question {question}, which leaves no room in {limit}; ask something shorter")]
    TooLong { context: usize, question: usize, limit: usize },
    #[error(
        "the engine's studies hold {used} of {limit} bytes for computed tokens, and {needed} more are needed; free a study, ask less at \
         once, or allow more"
    )]
    Memory { needed: u64, used: u64, limit: u64 },
    #[error("{needed} bytes for computed tokens cannot be allocated ({message}); free studies, ask less at once, or use a larger machine")]
    Allocation { needed: u64, message: String },
    #[error("the tokenizer gives the token {token}, but the language model knows {vocabulary}; export the bundle again")]
    Token { token: i64, vocabulary: usize },
    #[error("some of the questions are follow-ups and some are not; ask either kind by itself")]
    FollowUps,
    #[error("the computation was stopped before it was done; try again")]
    Interrupted,
    #[error("{name} is {value}, but must be {allowed}")]
    Sampling { name: &'static str, value: f32, allowed: &'static str },
    #[error("the language model's answer cannot be read: {message}")]
    Text { message: String },
    #[error("the answer's JSON schema cannot be used: {message}; correct or simplify it")]
    Schema { message: String },
    #[error("the answer cannot be held to its form: {message}; ask for a simpler one, or for an unconstrained answer")]
    Grammar { message: String },
}

/// Memory for a cache was within the budget, but the system has none.
pub(super) fn unallocated(needed: u64, error: &ort::Error) -> DecoderError {
    DecoderError::Allocation { needed, message: error.to_string() }
}

pub(super) fn failed(error: ort::Error) -> RuntimeError {
    RuntimeError::Run { graph: DECODER.into(), message: error.to_string() }
}
