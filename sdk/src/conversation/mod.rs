//! What the language model keeps of a study: the computed context, the turns that follow it, and how an answer is decoded.

mod answering;
mod decode;
mod prepared;
mod text;

use crate::anatomy::Structure;
use crate::control::{Flow, Patience};
use crate::decoder::{Branch, Cache, LookUp, Slot, Step};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::perception::Perception;
use crate::prompt::{self, ContextTokens};
use answering::Answering;
pub(crate) use answering::Said;
use ort::value::Tensor;
pub(crate) use prepared::{PreparedQuestion, TextEnd};

/// Visual features and the cache of a study, the turns in it, and what its answers are likely to repeat.
pub(crate) struct Conversation {
    visual: Tensor<f32>,
    cache: Cache,
    look_up: LookUp,
    turns: Vec<Turn>,
    /// Tokens of the last turn that the next one computes with its question: an answer's last token is said, not computed.
    pending: Vec<i64>,
}

/// What a conversation was when a turn began.
struct Turn {
    length: usize,
    pending: Vec<i64>,
}

impl Conversation {
    /// Computes a study's context, with room for a first question and its answer. The result is `None` if `goes_on` returned false
    /// meanwhile.
    ///
    /// # Errors
    /// If they do not fit, memory cannot be had or may not be used, or the model fails.
    pub fn open(
        model: &LanguageModel,
        context: &ContextTokens,
        perception: &Perception,
        room: usize,
        goes_on: impl Fn() -> bool,
    ) -> Result<Option<Self>> {
        let visual = model.decoder.visual(model.decoder.project(perception)?)?;
        let look_up = Self::look_up(model, context, perception)?;
        let mut cache = model.decoder.cache(context.ids.len(), room)?;
        let slots: Vec<_> = Slot::run(Branch::TRUNK, 0, context.ids.len()).collect();
        let step = Step { ids: &context.ids, visual_index: &context.visual_index, slots: &slots, wanted: &[] };
        let computed = model.decoder.run(&mut cache, &visual, step, goes_on)?;
        Ok(computed.map(|_| Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() }))
    }

    /// Goes on from a computed context, whose keys and values `rows` gives as [`crate::decoder::Decoder::read_cache`] gave them.
    ///
    /// # Errors
    /// If they are not the context's, or memory cannot be had or may not be used.
    pub fn restore(
        model: &LanguageModel,
        context: &ContextTokens,
        perception: &Perception,
        rows: impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let visual = model.decoder.visual(model.decoder.project(perception)?)?;
        let look_up = Self::look_up(model, context, perception)?;
        let cache = model.decoder.restore_cache(context.ids.len(), rows)?;
        Ok(Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() })
    }

    /// What was computed.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What a study's answers repeat: the context's lines, and the boxes of structures under their names.
    fn look_up(model: &LanguageModel, context: &ContextTokens, perception: &Perception) -> Result<LookUp> {
        let grounded = Structure::all().zip(&perception.boxes);
        let grounded =
            grounded.map(|(structure, bounds)| model.tokenizer.answer(&prompt::grounded_text(structure.name(), &bounds.to_grid())));
        let grounded = grounded.collect::<Result<Vec<_>, _>>()?;
        let texts = std::iter::once(context.ids.as_slice()).chain(grounded.iter().map(Vec::as_slice));
        Ok(LookUp::new(texts, |token| model.tokenizer.word(token)))
    }

    /// How many questions were asked and answered since the context.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Forgets all turns but the first `turns`. What their answers said may still be looked up.
    pub fn rewind(&mut self, turns: usize) {
        if let Some(turn) = self.turns.drain(turns.min(self.turns.len())..).next() {
            self.cache.rewind(turn.length);
            self.pending = turn.pending;
        }
    }

    /// The end of the text that a question continues: of all turns if it is a follow-up, else of the context.
    pub fn end(&self, follow_up: bool) -> TextEnd<'_> {
        match self.turns.first().filter(|_| !follow_up) {
            Some(first) => TextEnd { length: first.length, pending: &first.pending, follows_turn: false },
            None => TextEnd { length: self.cache.length(), pending: &self.pending, follows_turn: !self.turns.is_empty() },
        }
    }

    /// Answers questions that were prepared for [`Conversation::end`]. Either all are follow-ups or none is; if none is, all turns are
    /// removed first. With `as_turn` there is one question, and it becomes a turn with its answer unless it is stopped before its prefill
    /// is complete. Otherwise each question is answered as if it were asked alone, and none becomes a turn.
    ///
    /// # Errors
    /// If there is no memory for a question, or the model fails. A turn for which there is no memory leaves the conversation as it was.
    pub fn answer(
        &mut self,
        model: &LanguageModel,
        questions: Vec<PreparedQuestion>,
        as_turn: bool,
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<Vec<Said>> {
        let follow_up = questions.iter().any(|prepared| prepared.question.follow_up);
        if as_turn {
            // Memory is reserved before anything is removed, so that a question without room changes nothing.
            let tokens = questions.iter().map(|prepared| prepared.start + prepared.room()).max();
            self.reserve(model, tokens.unwrap_or(0))?;
        }
        let kept = if follow_up { self.turns.len() } else { 0 };
        self.rewind(kept);
        let start = self.cache.length();
        self.turns.push(Turn { length: start, pending: std::mem::take(&mut self.pending) });
        let branch = |number| if as_turn { Branch::TRUNK } else { Branch::new(number) };
        let answers = questions.into_iter().enumerate();
        let mut answers: Vec<_> = answers.map(|(number, prepared)| Answering::new(model, prepared, branch(number))).collect();
        let decoded = self.decode(model, &mut answers, patience, on_piece);
        if decoded.is_err() || !as_turn || !answers.iter().all(Answering::is_prefilled) {
            self.rewind(kept);
        }
        decoded?;
        let said = answers.into_iter().enumerate().map(|(number, answer)| {
            if answer.is_prefilled() {
                self.look_up.add(answer.to_remember(), |token| model.tokenizer.word(token));
            }
            let (said, computed, pending) = answer.finish(&mut |piece: &str| on_piece(number, piece));
            if self.turns.len() > kept {
                self.cache.rewind(start + computed);
                self.pending = pending;
            }
            said
        });
        Ok(said.collect())
    }
}
