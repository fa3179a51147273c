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
use std::mem::take;

/// What decoding needs of a study: its visual features, its KV cache, its turns, and the texts that drafts are looked up in.
pub(crate) struct Conversation {
    visual: Tensor<f32>,
    cache: Cache,
    look_up: LookUp,
    turns: Vec<Turn>,
    /// Tokens of the turns that are in the KV cache, after the context.
    cached: Vec<i64>,
    /// Tokens of the turns that are not in the KV cache. The next turn computes them together with its question.
    pending: Vec<i64>,
}

/// The state of the conversation before a turn.
struct Turn {
    /// Number of tokens in the KV cache.
    length: usize,
    pending: Vec<i64>,
}

/// The turns that a question has removed, in case it fails.
#[derive(Default)]
struct Removed {
    turns: Vec<Turn>,
    cached: Vec<i64>,
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
        Ok(computed.map(|_| Self::without_turns(visual, cache, look_up)))
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
        Ok(Self::without_turns(visual, cache, look_up))
    }

    fn without_turns(visual: Tensor<f32>, cache: Cache, look_up: LookUp) -> Self {
        Self { visual, cache, look_up, turns: Vec::new(), cached: Vec::new(), pending: Vec::new() }
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

    /// The tokens of all turns.
    #[cfg(test)]
    pub fn turn_tokens(&self) -> Vec<i64> {
        [self.cached.as_slice(), &self.pending].concat()
    }

    /// Number of turns.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Removes all turns after the first `turns`. Drafts are still looked up in their answers.
    pub fn rewind(&mut self, turns: usize) {
        let context = self.turns.first().map_or(0, |first| first.length);
        if let Some(turn) = self.turns.drain(turns.min(self.turns.len())..).next() {
            self.cache.rewind(turn.length);
            self.cached.truncate(turn.length - context);
            self.pending = turn.pending;
        }
    }

    /// Removes all turns and returns them.
    fn remove_turns(&mut self) -> Removed {
        let (turns, cached, pending) = (take(&mut self.turns), take(&mut self.cached), take(&mut self.pending));
        turns.iter().take(1).for_each(|first| self.cache.rewind(first.length));
        Removed { turns, cached, pending }
    }

    /// Brings removed turns back to a conversation without turns. The next question that continues them computes all their tokens again.
    fn bring_back(&mut self, Removed { turns, cached, pending }: Removed) {
        let context = self.cache.length();
        let again = |Turn { length, pending }: Turn| Turn { length: context, pending: [&cached[..length - context], &pending].concat() };
        self.turns = turns.into_iter().map(again).collect();
        self.pending = [cached, pending].concat();
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
    /// If there is no memory for a question, or the model fails. The conversation has the turns that it had before.
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
            // Memory is reserved before turns are removed, so that a question without room costs nothing.
            let tokens = questions.iter().map(|prepared| prepared.start + prepared.room()).max().unwrap_or(0);
            let most = questions.iter().map(|prepared| prepared.start + prepared.tokens.len() + prepared.max_tokens).max();
            self.reserve(model, tokens, most.unwrap_or(0))?;
        }
        let removed = if follow_up { Removed::default() } else { self.remove_turns() };
        let (kept, start) = (self.turns.len(), self.cache.length());
        self.turns.push(Turn { length: start, pending: take(&mut self.pending) });
        let branch = |number| if as_turn { Branch::TRUNK } else { Branch::new(number) };
        let answers = questions.into_iter().enumerate();
        let mut answers: Vec<_> = answers.map(|(number, prepared)| Answering::new(model, prepared, branch(number))).collect();
        let decoded = self.decode(model, &mut answers, stop, on_piece);
        if decoded.is_err() || !as_turn || !answers.iter().all(Answering::is_prefilled) {
            self.rewind(kept);
        }
        if let Err(error) = decoded {
            if !follow_up {
                self.bring_back(removed);
            }
            return Err(error);
        }
        let generated = answers.into_iter().enumerate().map(|(number, answer)| {
            if answer.is_prefilled() {
                self.look_up.add(answer.answer_tokens(), |token| model.tokenizer.word(token));
            }
            let (generated, cached, pending) = answer.finish(&mut |piece: &str| on_piece(number, piece));
            if self.turns.len() > kept {
                self.cache.rewind(start + cached.len());
                self.cached.extend(cached);
                self.pending = pending;
            }
            generated
        });
        Ok(generated.collect())
    }
}
