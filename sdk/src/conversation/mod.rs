//! The conversation about one study: its KV cache with the prefilled context, and the turns after the context.

mod answering;
mod decode;
mod prepared;
mod text;

use crate::anatomy::Structure;
use crate::control::{Flow, StopCondition};
use crate::decoder::{Branch, Cache, LookUp, RunInput, Slot};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::perception::Perception;
use crate::prompt::{self, ContextTokens};
use answering::Answering;
pub(crate) use answering::Generated;
use ort::value::Tensor;
pub(crate) use prepared::{PreparedQuestion, TextEnd};

/// What decoding needs of a study: its visual features, its KV cache, its turns, and the texts that drafts are looked up in.
pub(crate) struct Conversation {
    visual: Tensor<f32>,
    cache: Cache,
    look_up: LookUp,
    turns: Vec<Turn>,
    /// Tokens of the last turn that are not in the KV cache. The next turn computes them together with its question.
    pending: Vec<i64>,
}

/// The state of the conversation before a turn.
struct Turn {
    /// Length of the text, in tokens.
    length: usize,
    pending: Vec<i64>,
}

impl Conversation {
    /// Prefills the context of a study. The KV cache has room for `room` tokens after it. `may_continue` is called between the runs of the
    /// prefill; if it returns false, the prefill stops, and the result is `None`.
    ///
    /// # Errors
    /// If the context does not fit, there is no memory for the KV cache, or the model fails.
    pub fn open(
        model: &LanguageModel,
        context: &ContextTokens,
        perception: &Perception,
        room: usize,
        may_continue: impl Fn() -> bool,
    ) -> Result<Option<Self>> {
        let visual = model.decoder.visual(model.decoder.project(perception)?)?;
        let look_up = Self::look_up(model, context, perception)?;
        let mut cache = model.decoder.cache(context.ids.len(), room)?;
        let slots: Vec<_> = Slot::consecutive(Branch::TRUNK, 0, context.ids.len()).collect();
        let input = RunInput { ids: &context.ids, visual_index: &context.visual_index, slots: &slots, logit_positions: &[] };
        let computed = model.decoder.run(&mut cache, &visual, input, may_continue)?;
        Ok(computed.map(|_| Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() }))
    }

    /// Restores a conversation without turns. `rows` returns the keys and values of the context, as [`Decoder::read_cache`] returned them.
    ///
    /// # Errors
    /// If their sizes are not those of the context, or there is no memory for the KV cache.
    ///
    /// [`Decoder::read_cache`]: crate::decoder::Decoder::read_cache
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

    /// The KV cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The texts that answers tend to repeat: the context, and each structure's name with its box.
    fn look_up(model: &LanguageModel, context: &ContextTokens, perception: &Perception) -> Result<LookUp> {
        let grounded = Structure::all().zip(&perception.boxes);
        let grounded =
            grounded.map(|(structure, bounds)| model.tokenizer.answer(&prompt::grounded_text(structure.name(), &bounds.to_grid())));
        let grounded = grounded.collect::<Result<Vec<_>, _>>()?;
        let texts = std::iter::once(context.ids.as_slice()).chain(grounded.iter().map(Vec::as_slice));
        Ok(LookUp::new(texts, |token| model.tokenizer.word(token)))
    }

    /// Number of turns.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Removes all turns after the first `turns`. Drafts are still looked up in their answers.
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
        stop: StopCondition,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<Vec<Generated>> {
        let follow_up = questions.iter().any(|prepared| prepared.question.follow_up);
        if as_turn {
            // Memory is reserved before turns are removed, so that a question without room changes nothing.
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
        let decoded = self.decode(model, &mut answers, stop, on_piece);
        if decoded.is_err() || !as_turn || !answers.iter().all(Answering::is_prefilled) {
            self.rewind(kept);
        }
        decoded?;
        let generated = answers.into_iter().enumerate().map(|(number, answer)| {
            if answer.is_prefilled() {
                self.look_up.add(answer.answer_tokens(), |token| model.tokenizer.word(token));
            }
            let (generated, cached, pending) = answer.finish(&mut |piece: &str| on_piece(number, piece));
            if self.turns.len() > kept {
                self.cache.rewind(start + cached);
                self.pending = pending;
            }
            generated
        });
        Ok(generated.collect())
    }
}
