//! What the language model keeps of a study: the computed context, the turns that follow it, and how an answer is decoded.

mod text;

use crate::anatomy::Structure;
use crate::decoder::{Cache, Choice, DecoderError, LookUp, Sampler, Step};
use crate::engine::Inner;
use crate::error::Result;
use crate::perception::Perception;
use crate::prompt::{self, ContextTokens};
use crate::question::{MAX_TOKENS, Question};
use crate::study::{CancelHandle, Finish, Flow};
use ort::value::Tensor;
use std::time::{Duration, Instant};
use text::Text;

/// How many tokens of a question an answer is remembered with: what a next answer's beginning is matched to.
const QUESTION_END: usize = 4;

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

/// An answer as the model gave it.
pub(crate) struct Said {
    /// As the model wrote it.
    pub raw: String,
    /// As people read it.
    pub readable: String,
    pub prefilled: usize,
    pub tokens: usize,
    pub runs: usize,
    pub log_probabilities: Vec<f32>,
    pub finish: Finish,
    /// How long the question took, and the answer after it.
    pub timing: [Duration; 2],
}

impl Conversation {
    /// Computes a study's context, with room for a first question and its answer.
    ///
    /// # Errors
    /// If they do not fit, memory cannot be had or may not be used, or the model fails.
    pub fn open(engine: &Inner, context: &ContextTokens, perception: &Perception, room: usize) -> Result<Self> {
        let visual = engine.decoder.visual(engine.decoder.project(perception)?)?;
        let look_up = Self::look_up(engine, context, perception)?;
        let mut cache = engine.decoder.cache(context.ids.len() + room)?;
        let step = Step { ids: &context.ids, visual_index: &context.visual_index, positions: &[0] };
        engine.decoder.run(&mut cache, &visual, step)?;
        Ok(Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() })
    }

    /// Goes on from a computed context.
    ///
    /// # Errors
    /// If the rows are not the context's, or memory cannot be had or may not be used.
    pub fn restore(engine: &Inner, context: &ContextTokens, perception: &Perception, rows: &[Vec<f32>]) -> Result<Self> {
        let visual = engine.decoder.visual(engine.decoder.project(perception)?)?;
        let look_up = Self::look_up(engine, context, perception)?;
        let cache = engine.decoder.restore_cache(rows, context.ids.len())?;
        Ok(Self { visual, cache, look_up, turns: Vec::new(), pending: Vec::new() })
    }

    /// Keys and values of the context's tokens, for [`Conversation::restore`].
    ///
    /// # Errors
    /// If they cannot be copied from the device.
    pub fn context(&self, engine: &Inner, length: usize) -> Result<Vec<Vec<f32>>> {
        Ok(engine.decoder.read_cache(&self.cache, length)?)
    }

    /// What a study's answers repeat: the context's lines, and the boxes of structures under their names.
    fn look_up(engine: &Inner, context: &ContextTokens, perception: &Perception) -> Result<LookUp> {
        let grounded = Structure::all().zip(&perception.boxes);
        let grounded =
            grounded.map(|(structure, bounds)| engine.tokenizer.answer(&prompt::grounded_text(structure.name(), &bounds.to_grid())));
        let grounded = grounded.collect::<Result<Vec<_>, _>>()?;
        Ok(LookUp::new(std::iter::once(context.ids.as_slice()).chain(grounded.iter().map(Vec::as_slice))))
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

    /// Asks and answers: one turn more. A failure leaves the conversation as it was.
    ///
    /// # Errors
    /// If the question does not fit, memory cannot be had or may not be used, or the model fails.
    pub fn turn(
        &mut self,
        engine: &Inner,
        question: &Question,
        words: &str,
        cancel: &CancelHandle,
        on_piece: &mut impl FnMut(&str) -> Flow,
    ) -> Result<Said> {
        let turns = self.turns.len();
        let tokens = if turns == 0 { engine.tokenizer.question(words)? } else { engine.tokenizer.follow_up(words)? };
        self.turns.push(Turn { length: self.cache.length(), pending: self.pending.clone() });
        let said = self.decode(engine, question, &tokens, cancel, on_piece);
        if said.is_err() {
            self.rewind(turns);
        }
        said
    }

    fn decode(
        &mut self,
        engine: &Inner,
        question: &Question,
        tokens: &[i64],
        cancel: &CancelHandle,
        on_piece: &mut impl FnMut(&str) -> Flow,
    ) -> Result<Said> {
        let start = Instant::now();
        let mut sampler = Sampler::new(question.sampling, question.log_probabilities, engine.matcher(&question.form)?)?;
        let mut said = [std::mem::take(&mut self.pending).as_slice(), tokens].concat();
        let asked = said.len();
        let (length, most) = (self.cache.length(), engine.decoder.sizes().max_context);
        if length + asked >= most {
            return Err(DecoderError::TooLong { context: length, question: asked, limit: most }.into());
        }
        let limit = question.max_tokens.min(most - length - asked);
        self.make_room(engine, asked + limit.min(MAX_TOKENS))?;
        let mut next = vec![self.append(engine, &mut sampler, &said)?];
        let prefilled = start.elapsed();

        let end = i64::from(engine.tokenizer.end_of_turn());
        let mut text = Text::new(engine, question);
        let (mut count, mut runs, mut log_probabilities) = (0, 0, Vec::new());
        let finish = 'answer: loop {
            for choice in next {
                if choice.token == end {
                    said.push(end);
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
                if let Some(finish) = text.push(choice.token, on_piece)? {
                    break 'answer finish;
                }
            }
            if count == limit {
                break Finish::MaxTokens;
            }
            if cancel.is_cancelled() {
                break Finish::Stopped;
            }
            if question.deadline.is_some_and(|time| start.elapsed() >= time) {
                break Finish::Deadline;
            }
            let most = if engine.look_up && sampler.foresees() { limit - count - 1 } else { 0 };
            let proposal = self.look_up.propose(&said, most).to_vec();
            next = self.follow(engine, &mut sampler, said[said.len() - 1], &proposal)?;
            runs += 1;
        };
        let (raw, readable) = text.finish(finish, on_piece);
        let (asked_last, answer) = said.split_at(asked);
        self.look_up.add(&[&asked_last[asked.saturating_sub(QUESTION_END)..], answer].concat());
        // Of tokens that were foreseen, what came after the answer's end is forgotten.
        self.cache.rewind(length + said.len() - 1);
        self.pending = said.split_off(self.cache.length() - length);
        if finish != Finish::EndOfTurn {
            self.pending.push(end);
        }
        let timing = [prefilled, start.elapsed() - prefilled];
        Ok(Said { raw, readable, prefilled: asked, tokens: count, runs, log_probabilities, finish, timing })
    }

    /// Appends tokens and chooses the next one.
    fn append(&mut self, engine: &Inner, sampler: &mut Sampler, ids: &[i64]) -> Result<Choice> {
        let logits = self.run(engine, ids, &[ids.len() as i64 - 1])?;
        let choice = sampler.choose(&logits)?;
        sampler.accept(choice.token)?;
        Ok(choice)
    }

    /// Appends an answer's last token and chooses those that follow it: one, and as many more as the proposal foresaw.
    fn follow(&mut self, engine: &Inner, sampler: &mut Sampler, last: i64, proposal: &[i64]) -> Result<Vec<Choice>> {
        let before = self.cache.length();
        let ids = [&[last], proposal].concat();
        let positions: Vec<i64> = (0..ids.len() as i64).collect();
        let logits = self.run(engine, &ids, &positions)?;
        let mut next = Vec::with_capacity(ids.len());
        for (row, logits) in logits.chunks_exact(engine.decoder.sizes().vocabulary).enumerate() {
            let choice = sampler.choose(logits)?;
            if !proposal.is_empty() && choice.margin <= engine.decoder.noise() {
                // Several rows at once are computed a little differently from one. Too close a call is made by one row.
                self.cache.rewind(before + row);
                next.push(self.append(engine, sampler, &ids[row..=row])?);
                return Ok(next);
            }
            sampler.accept(choice.token)?;
            next.push(choice);
            if proposal.get(row) != Some(&choice.token) {
                break;
            }
        }
        self.cache.rewind(before + next.len());
        Ok(next)
    }

    fn run(&mut self, engine: &Inner, ids: &[i64], positions: &[i64]) -> Result<Vec<f32>> {
        self.make_room(engine, ids.len())?;
        let step = Step { ids, visual_index: &vec![-1; ids.len()], positions };
        engine.decoder.run(&mut self.cache, &self.visual, step)
    }

    /// Makes the cache large enough for more tokens.
    fn make_room(&mut self, engine: &Inner, tokens: usize) -> Result<()> {
        let needed = self.cache.length() + tokens;
        if needed > self.cache.capacity() {
            engine.decoder.grow(&mut self.cache, needed)?;
        }
        Ok(())
    }
}
