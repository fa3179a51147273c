//! Errors of asking: what is wrong with a question, memory that cannot be had, and failures of the language model.

use crate::bundle::DECODER;
use crate::cause::{Source, source};
use crate::runtime::RuntimeError;

/// What can be wrong with a question, its options included. The text of a question has its own errors, see
/// [`PromptError`](crate::prompt::PromptError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum QuestionError {
    #[error("the context takes {context} tokens and the question {question}, which leaves no room in {limit}; ask something shorter")]
    TooLong { context: usize, question: usize, limit: usize },
    #[error("some of the questions are follow-ups and some are not; ask either kind by itself")]
    FollowUps,
    #[error("{name} is {value}, but must be {allowed}")]
    Sampling { name: &'static str, value: f32, allowed: &'static str },
    #[error("the answer's JSON schema cannot be used: {message}; correct or simplify it")]
    Schema { message: String, source: Option<Source> },
}

/// Why there is no memory for computed tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum MemoryError {
    #[error(
        "the engine's studies hold {used} of {limit} bytes for computed tokens, and {needed} more are needed; free a study, ask less at \
         once, or allow more"
    )]
    Budget { needed: u64, used: u64, limit: u64 },
    #[error("{needed} bytes for computed tokens cannot be allocated; free studies, ask less at once, or use a larger machine")]
    Allocation { needed: u64, source: Source },
}

/// How the language model can fail on a question that can be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum DecoderError {
    #[error("the tokenizer gives the token {token}, but the language model knows {vocabulary}; export the bundle again")]
    Token { token: i64, vocabulary: usize },
    #[error("the tokens of the language model's answer cannot be read; export the bundle again")]
    Text { source: Source },
    #[error("the answer cannot be held to its form; ask for a simpler one, or for an unconstrained answer")]
    Grammar { source: Source },
}

/// Memory for a cache was within the budget, but the system has none.
pub(super) fn unallocated(needed: u64, error: &ort::Error) -> MemoryError {
    MemoryError::Allocation { needed, source: source(error) }
}

pub(super) fn failed(error: ort::Error) -> RuntimeError {
    RuntimeError::Run { graph: DECODER.into(), source: source(error) }
}
