//! Answers of the language model.

use crate::evidence::SentenceEvidence;
use crate::grounding::Grounding;
use crate::perception::flags::Flag;
use crate::provenance::{Provenance, Timing};
use crate::task::Task;
use serde::Serialize;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finish {
    /// The model ended its turn.
    EndOfTurn,
    /// The answer reached [`Question::max_tokens`](crate::Question::max_tokens), or the end of the model's context.
    MaxTokens,
    /// The streaming callback or a [`CancelHandle`](crate::CancelHandle) stopped the answer.
    Stopped,
    /// The answer reached a stop text, which is not part of it.
    StopText,
    /// The answer's deadline passed.
    Deadline,
    /// The KV cache could not grow within the engine's memory budget; see [`crate::EngineBuilder::memory_limit`].
    Memory,
}

impl Finish {
    /// The name in JSON and C.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfTurn => "end_of_turn",
            Self::MaxTokens => "max_tokens",
            Self::Stopped => "stopped",
            Self::StopText => "stop_text",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
        }
    }
}

/// An answer of the language model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The question as it was put to the model, with boxes in pixels.
    pub question: String,
    /// The question's task, if one was given.
    pub task: Option<Task>,
    /// The answer without tags and coordinates.
    pub text: String,
    /// The answer as the model wrote it, with tags, and with boxes on a grid of 0..=1024 over the letterboxed square, not in pixels.
    pub raw: String,
    /// Phrases of the answer with their boxes.
    pub groundings: Vec<Grounding>,
    /// Where each sentence of `text` comes from, in order; empty for an answer in JSON.
    pub evidence: Vec<SentenceEvidence>,
    /// Number of tokens that were prefilled for this answer: those of the question, and those of the context if it was not yet in the
    /// KV cache.
    pub prefilled: usize,
    /// Number of tokens that were decoded.
    pub tokens: usize,
    /// Number of decoder runs for these tokens, without prefill. It is below `tokens` if draft tokens were accepted.
    pub runs: usize,
    /// Natural logarithm of each decoded token's probability under the model; empty unless the question asks for it.
    pub log_probabilities: Vec<f32>,
    /// Why the answer ended.
    pub finish: Finish,
    /// Flags of the study.
    pub flags: Vec<Flag>,
    /// Versions, settings and hashes that the result depends on.
    pub provenance: Provenance,
    /// Wall-clock time of `prefill` (context and question), `decode` and `total` in milliseconds.
    pub timing: Timing,
}
