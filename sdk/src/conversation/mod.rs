//! What the language model keeps of a study: the computed context, the turns that follow it, and how an answer is decoded.

mod answering;
mod decode;
mod text;

use crate::anatomy::Structure;
use crate::control::{Flow, Patience};
use crate::decoder::{Branch, Cache, LookUp, Slot, Step};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::perception::Perception;
use crate::prompt::{self, ContextTokens};
use crate::question::{MAX_TOKENS, Question};
use answering::Answering;
pub(crate) use answering::Said;
use ort::value::Tensor;

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
    /// Computes a study's context, with room for a first question and its answer, as long as it `goes_on`.
    ///
    /// # Errors
    /// If they do not fit, memory cannot be had or may not be used, the model fails, or it does not go on.
    pub fn open(
        model: &LanguageModel,
        context: &ContextTokens,
        perception: &Perception,
        room: usize,
        goes_on: impl Fn() -> bool,
    ) -> Result<Self> {
        let visual = model.decoder.visual(model.decoder.project(perception)?)?;
        let look_up = Self::look_up(model, context, perception)?;
        let mut cache = model.decoder.cache(context.ids.len(), room)?;
        let slots: Vec<_> = Slot::run(Branch::TRUNK, 0, context.ids.len()).collect();
        let step = Step { ids: &context.ids, visual_index: &context.visual_index, slots: &slots, wanted: &[] };
        model.decoder.run(&mut cache, &visual, step, goes_on)?;
        Ok(Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() })
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

    /// Asks and answers: one turn more, the first one unless it is a follow-up. A question that cannot be had leaves the conversation as
    /// it was.
    ///
    /// # Errors
    /// If the question does not fit, memory cannot be had or may not be used, or the model fails.
    pub fn turn(
        &mut self,
        model: &LanguageModel,
        question: &Question,
        words: &str,
        patience: Patience,
        on_piece: &mut impl FnMut(&str) -> Flow,
    ) -> Result<Said> {
        let kept = if question.follow_up { self.turns.len() } else { 0 };
        let (length, tokens) = self.asked(model, words, kept)?;
        let mut answers = vec![Answering::new(model, question, Branch::TRUNK, tokens, length)?];
        // Nothing is forgotten for a question that there is no room for.
        self.reserve(model, length + answers[0].room(MAX_TOKENS))?;
        self.rewind(kept);
        self.turns.push(Turn { length, pending: std::mem::take(&mut self.pending) });
        if let Err(error) = self.decode(model, &mut answers, patience, &mut |_, piece| on_piece(piece)) {
            self.rewind(kept);
            return Err(error);
        }
        let answer = answers.remove(0);
        if !answer.has_begun() && answer.computed == 0 {
            // Stopped before its question was read: no turn.
            self.rewind(kept);
            return Ok(answer.finish(on_piece).0);
        }
        self.look_up.add(answer.to_remember(), |token| model.tokenizer.word(token));
        let (said, kept, pending) = answer.finish(on_piece);
        self.cache.rewind(length + kept);
        self.pending = pending;
        Ok(said)
    }

    /// Asks several questions, all of them follow-ups or none, and answers them together, each as if it were asked alone. The conversation
    /// stays as it was for follow-ups; others begin a new one.
    ///
    /// # Errors
    /// As [`Conversation::turn`].
    pub fn many(
        &mut self,
        model: &LanguageModel,
        questions: &[(Question, String)],
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<Vec<Said>> {
        let follow_up = questions.iter().any(|(question, _)| question.follow_up);
        self.rewind(if follow_up { self.turns.len() } else { 0 });
        let length = self.cache.length();
        let answers = questions.iter().enumerate().map(|(number, (question, words))| {
            let (length, tokens) = self.asked(model, words, self.turns.len())?;
            Answering::new(model, question, Branch::new(number), tokens, length)
        });
        let mut answers = answers.collect::<Result<Vec<_>>>()?;
        let decoded = self.decode(model, &mut answers, patience, on_piece);
        self.cache.rewind(length);
        decoded?;
        let said = answers.into_iter().enumerate().map(|(number, answer)| {
            self.look_up.add(answer.to_remember(), |token| model.tokenizer.word(token));
            answer.finish(&mut |piece: &str| on_piece(number, piece)).0
        });
        Ok(said.collect())
    }

    /// Where a question begins that comes after the first `turns`, and its tokens, behind those that the last answer left.
    fn asked(&self, model: &LanguageModel, words: &str, turns: usize) -> Result<(usize, Vec<i64>)> {
        let (length, pending) = self.turns.get(turns).map_or((self.cache.length(), &self.pending), |turn| (turn.length, &turn.pending));
        let question = if turns == 0 { model.tokenizer.question(words)? } else { model.tokenizer.follow_up(words)? };
        Ok((length, [pending.as_slice(), &question].concat()))
    }
}
