//! An answer of the language model, and why it ended.

use crate::grounding::Grounding;
use crate::perception::flags::Flag;
use crate::provenance::{Provenance, Timing};
use crate::task::Task;
use serde::Serialize;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finish {
    /// The model ended its turn.
    EndOfTurn,
    /// The limit on tokens was reached.
    MaxTokens,
    /// The listener or a [`CancelHandle`](crate::CancelHandle) stopped it.
    Stopped,
    /// A text that ends it was reached, and is left out.
    StopText,
    /// Its time was over.
    Deadline,
    /// It would have taken more memory than the engine's studies may; see [`crate::EngineBuilder::memory`].
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
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The question as the model was asked it, boxes in pixels.
    pub question: String,
    /// Its task, where it was named.
    pub task: Option<Task>,
    /// The answer, without tags and coordinates.
    pub text: String,
    /// The answer as the model wrote it: with tags, and with boxes on a grid of 1024 over the padded square, not in pixels.
    pub raw: String,
    /// Its phrases with their places.
    pub groundings: Vec<Grounding>,
    /// How many tokens were computed before the first one of the answer: those of the question, and those of the context
    /// where it was not there yet.
    pub prefilled: usize,
    /// How many tokens were decoded.
    pub tokens: usize,
    /// How many runs of the decoder that took, the one of the question not counted: fewer than tokens where they were looked up.
    pub runs: usize,
    /// Natural logarithm of each decoded token's probability by the model; empty unless the question asks for it.
    pub log_probabilities: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// The study's flags.
    pub flags: Vec<Flag>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Milliseconds for `prefill` (context and question), `decode` and `total`.
    pub timing: Timing,
}
