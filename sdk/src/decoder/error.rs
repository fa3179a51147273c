//! Errors of questions, of memory for KV caches, and of the language model.

use crate::bundle::DECODER;
use crate::cause::{Source, source};
use crate::runtime::RuntimeError;

/// Errors of a question and its options. Errors of its text are [`PromptError`](crate::prompt::PromptError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum QuestionError {
    #[error(
        "the text before the question has {context} tokens and the question {question}, which leaves no room for an answer in the model's \
         {limit}; shorten the question or begin a new conversation"
    )]
    TooLong { context: usize, question: usize, limit: usize },
    #[error("the task {task} has an instruction of its own and takes no question; leave the question empty, or name no task")]
    Instruction { task: &'static str },
    #[error("the task {task} needs {needed}; give it as the question, or name another task")]
    Unsuitable { task: &'static str, needed: &'static str },
    #[error("some of the questions are follow-ups and some are not; ask the follow-ups in a call of their own")]
    FollowUps,
    #[error("{name} is {value}, but must be {allowed}")]
    Sampling { name: &'static str, value: f32, allowed: &'static str },
    #[error("the answer's JSON schema cannot be used: {message}; correct or simplify it")]
    Schema { message: String, source: Option<Source> },
}

/// Why there is no memory for a KV cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum MemoryError {
    #[error(
        "the KV caches of the engine's studies hold {used} of {limit} bytes, and {needed} more are needed; free a study, ask fewer \
         questions at once, or raise the limit"
    )]
    Budget { needed: u64, used: u64, limit: u64 },
    #[error(
        "{needed} bytes for a KV cache cannot be allocated; free a study, ask fewer questions at once, or use a machine with more memory"
    )]
    Allocation { needed: u64, source: Source },
}

/// Errors of the language model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum DecoderError {
    #[error("the tokenizer produced the token {token}, but the language model has {vocabulary} tokens; export the bundle again")]
    Token { token: i64, vocabulary: usize },
    #[error(
        "the language model computes logits that are not finite, so decoding cannot continue; use another precision or provider, or export \
         the bundle again"
    )]
    NotFinite,
    #[error("the tokens of the answer cannot be decoded; export the bundle again")]
    Text { source: Source },
    #[error("the answer cannot be constrained to well-formed groundings; ask for an unconstrained answer")]
    Grammar { source: Source },
    #[error("the answer's JSON schema cannot be used: it becomes too complex while the answer is decoded; simplify it")]
    Schema { source: Source },
}

/// The error of an allocation for a KV cache that failed.
pub(super) fn unallocated(needed: u64, error: &ort::Error) -> MemoryError {
    MemoryError::Allocation { needed, source: source(error) }
}

/// The error of a run of the decoder.
pub(super) fn failed(error: ort::Error) -> RuntimeError {
    RuntimeError::Run { graph: DECODER.into(), source: source(error) }
}
