//! What belongs to one radiograph: what was perceived, and the questions that are asked of it.

use crate::anatomy::{Label, Structure};
use crate::conversation::{Conversation, Text};
use crate::decoder::{DecoderError, Sampler, Step};
use crate::engine::Inner;
use crate::error::Result;
use crate::geometry::{Letterbox, PixelBox};
use crate::grounding::{self, Grounding};
use crate::perception::Perception;
use crate::perception::flags::Flag;
use crate::prompt::ContextTokens;
use crate::question::{MAX_TOKENS, Question};
use crate::task::Task;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Milliseconds by step.
pub type Timing = BTreeMap<&'static str, f64>;

/// The cache is sized in multiples of this many tokens.
const CACHE_STEP: usize = 256;

/// A structure with its box and its retrieved sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StructureFinding {
    /// Which structure.
    pub structure: Structure,
    /// Where it is, in pixels of the original image.
    pub bounds: PixelBox,
    /// The most similar sentence of the database.
    pub sentence: Retrieved,
}

/// A sentence from the database.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retrieved {
    /// The sentence.
    pub text: String,
    /// Cosine similarity, -1..1; not calibrated.
    pub similarity: f32,
    /// How much less similar the next sentence is.
    pub margin: f32,
}

/// An image label with its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScore {
    /// Which label.
    pub label: Label,
    /// 0..1; not calibrated.
    pub score: f32,
}

/// Where a result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Version of this SDK.
    pub sdk: String,
    /// The bundle's name.
    pub bundle: String,
    /// SHA-256 of the bundle's manifest, which holds those of its files.
    pub bundle_sha256: String,
    /// Where graphs were computed.
    pub provider: String,
    /// How weights are stored.
    pub precision: String,
    /// SHA-256 of the file, or of the pixels where there was none.
    pub input_sha256: String,
    /// How tokens were chosen.
    pub decoding: String,
    /// What scores mean.
    pub scores: String,
    /// What all of this is for.
    pub intended_use: String,
}

/// What a listener to a streamed answer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More.
    Continue,
    /// No more.
    Stop,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn.
    EndOfTurn,
    /// The limit on tokens was reached.
    MaxTokens,
    /// The listener or a [`CancelHandle`] stopped it.
    Stopped,
    /// A text that ends it was reached, and is left out.
    StopText,
    /// Its time was over.
    Deadline,
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
        }
    }
}

/// An answer of the language model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The question as the model was asked it, boxes in pixels.
    pub question: String,
    /// Its task, where it was named.
    pub task: Option<Task>,
    /// The answer, without tags and coordinates.
    pub text: String,
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

/// Stops a study's running answer from another thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Stops the answer that runs now, within one step. Without one it does nothing.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A study: one radiograph, perceived once, asked as often as you like. The prompt's context is computed with the first
/// question and kept; every further one costs its own tokens only.
pub struct Study {
    pub(crate) engine: Arc<Inner>,
    pub(crate) name: String,
    pub(crate) letterbox: Letterbox,
    pub(crate) structures: Vec<StructureFinding>,
    pub(crate) labels: Vec<LabelScore>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) provenance: Provenance,
    pub(crate) timing: Timing,
    pub(crate) perception: Perception,
    pub(crate) context: ContextTokens,
    pub(crate) conversation: Option<Conversation>,
    pub(crate) cancel: CancelHandle,
}

impl Study {
    /// The radiograph's path, or what stands for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Width of the original image in pixels.
    pub fn width(&self) -> u32 {
        self.letterbox.width
    }

    /// Height of the original image in pixels.
    pub fn height(&self) -> u32 {
        self.letterbox.height
    }

    /// The 36 structures in index order.
    pub fn structures(&self) -> &[StructureFinding] {
        &self.structures
    }

    /// The 14 image labels in index order; scores are not calibrated.
    pub fn labels(&self) -> &[LabelScore] {
        &self.labels
    }

    /// What speaks against trusting this study.
    pub fn flags(&self) -> &[Flag] {
        &self.flags
    }

    /// Where its results come from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Milliseconds for `preprocess`, `perceive` and `retrieve`.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// What the perception module saw, in the network's own frame.
    pub fn perception(&self) -> &Perception {
        &self.perception
    }

    /// Stops a running answer from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Asks a question or sets a task.
    ///
    /// # Errors
    /// If the question cannot be used, does not fit, or the model fails.
    pub fn ask(&mut self, question: impl Into<Question>) -> Result<Answer> {
        self.ask_streaming(question, |_| Flow::Continue)
    }

    /// Asks, and hands on the readable text piece by piece as it is decoded; the pieces add up to [`Answer::text`].
    ///
    /// # Errors
    /// As [`Study::ask`].
    pub fn ask_streaming(&mut self, question: impl Into<Question>, mut on_piece: impl FnMut(&str) -> Flow) -> Result<Answer> {
        self.cancel.reset();
        let question = question.into();
        let engine = Arc::clone(&self.engine);
        let mut sampler = Sampler::new(question.sampling, question.log_probabilities)?;
        let words = question.words();
        let tokens = engine.tokenizer.question(&grounding::question_to_grid(&words, &self.letterbox)?)?;

        let start = Instant::now();
        let (mut conversation, computed) = self.conversation(tokens.len(), question.max_tokens)?;
        let limit = question.max_tokens.min(conversation.cache.capacity() - self.context.ids.len() - tokens.len());
        let mut next = vec![conversation.append(&engine, &mut sampler, &tokens)?];
        let prefilled = start.elapsed();

        let mut text = Text::new(&engine, &question.stop);
        let mut said = tokens.clone();
        let (mut count, mut runs, mut log_probabilities) = (0, 0, Vec::new());
        let finish = 'answer: loop {
            for choice in next {
                if choice.token == i64::from(engine.tokenizer.end_of_turn()) {
                    said.push(choice.token);
                    break 'answer Finish::EndOfTurn;
                }
                if count == limit {
                    break 'answer Finish::MaxTokens;
                }
                count += 1;
                said.push(choice.token);
                if question.log_probabilities {
                    log_probabilities.push(choice.log_probability);
                }
                if let Some(finish) = text.push(choice.token, &mut on_piece)? {
                    break 'answer finish;
                }
            }
            if count == limit {
                break Finish::MaxTokens;
            }
            if self.cancel.is_cancelled() {
                break Finish::Stopped;
            }
            if question.deadline.is_some_and(|time| start.elapsed() >= time) {
                break Finish::Deadline;
            }
            let most = if engine.look_up && sampler.foresees() { limit - count - 1 } else { 0 };
            let proposal = conversation.look_up.propose(&said, most).to_vec();
            next = conversation.follow(&engine, &mut sampler, said[said.len() - 1], &proposal)?;
            runs += 1;
        };
        let (raw, readable) = text.finish(finish, &mut on_piece);
        // The context stays, the question goes: the next one starts from here.
        conversation.end(self.context.ids.len(), &tokens, &said[tokens.len()..]);
        self.conversation = Some(conversation);
        let milliseconds = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        let timing = Timing::from([
            ("prefill", milliseconds(prefilled)),
            ("decode", milliseconds(start.elapsed() - prefilled)),
            ("total", milliseconds(start.elapsed())),
        ]);
        Ok(Answer {
            question: words,
            task: question.task,
            text: readable,
            groundings: grounding::parse(&raw, &self.letterbox),
            prefilled: computed + tokens.len(),
            tokens: count,
            runs,
            log_probabilities,
            finish,
            flags: self.flags.clone(),
            provenance: Provenance { decoding: question.sampling.to_string(), ..self.provenance.clone() },
            timing,
        })
    }

    /// The computed context, with room for a question and its answer, and how many tokens were computed for it. A later
    /// question that needs more room than the first ones had computes the context again.
    fn conversation(&mut self, question: usize, answer: usize) -> Result<(Conversation, usize)> {
        let context = self.context.ids.len();
        let most = self.engine.decoder.sizes().max_context;
        if context + question >= most {
            return Err(DecoderError::TooLong { context, question, limit: most }.into());
        }
        let needed = context.saturating_add(question).saturating_add(answer).min(most);
        let (visual, look_up) = match self.conversation.take() {
            Some(kept) if kept.cache.capacity() >= needed => return Ok((kept, 0)),
            Some(kept) => (kept.visual, kept.look_up),
            None => {
                let visual = self.engine.decoder.visual(self.engine.decoder.project(&self.perception)?)?;
                (visual, Conversation::look_up(&self.engine, &self.context, &self.perception.boxes)?)
            }
        };
        let capacity = needed.max(context + question + MAX_TOKENS).next_multiple_of(CACHE_STEP).min(most);
        let mut cache = self.engine.decoder.cache(capacity)?;
        let step = Step { ids: &self.context.ids, visual_index: &self.context.visual_index, positions: &[0] };
        self.engine.decoder.run(&mut cache, &visual, step)?;
        Ok((Conversation { visual, cache, look_up }, context))
    }
}
