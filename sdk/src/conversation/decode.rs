//! The loop that decodes answers: one, or several over the same text at once, with what they are likely to repeat foreseen.
//!
//! All that waits to be computed goes into one run: questions that were not read yet, each answer's last token, and behind it what
//! is foreseen of it. An answer is the one that it would be by itself, token by token: where a run of several rows leaves a
//! choice too close, what plain decoding computes is computed.

use super::Conversation;
use super::answering::Answering;
use crate::decoder::{Branch, DecoderError, Slot, Step};
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::study::{Finish, Flow, Patience};

/// Answers that are decoded at a time; further ones wait.
const TOGETHER: usize = 16;
/// Tokens that are foreseen in a run, of all answers: each costs a little, whether it comes true or not.
const FORESEEN: usize = 32;

/// An answer's part of a run.
struct Part {
    number: usize,
    proposal: Vec<i64>,
}

impl Conversation {
    /// Decodes answers until all are over. They continue what the cache holds now.
    pub(super) fn decode(
        &mut self,
        engine: &Inner,
        answers: &mut [Answering],
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<()> {
        let base = self.cache.length();
        let mut together = TOGETHER;
        loop {
            if patience.is_cancelled() {
                answers.iter_mut().for_each(|answer| answer.stop(Finish::Stopped));
            }
            let parts = self.parts(engine, answers, together);
            if parts.is_empty() {
                return Ok(());
            }
            if self.make_room(engine, answers, &parts, base)? {
                self.run(engine, answers, &parts, base, patience, on_piece)?;
            } else {
                let open = answers.iter().filter(|answer| !answer.is_over()).count();
                together = together.min(open).saturating_sub(1).max(1);
            }
        }
    }

    /// What the next run computes: of all answers that go on, or of one whose next token was too close a call.
    fn parts(&self, engine: &Inner, answers: &[Answering], together: usize) -> Vec<Part> {
        let open: Vec<usize> = (0..answers.len()).filter(|&number| !answers[number].is_over()).take(together).collect();
        if let Some(&number) = open.iter().find(|&&number| answers[number].alone) {
            return vec![Part { number, proposal: Vec::new() }];
        }
        let each = FORESEEN / open.len().max(1);
        let part = |&number: &usize| {
            let answer = &answers[number];
            let most = if engine.look_up { answer.may_foresee().min(each) } else { 0 };
            Part { number, proposal: self.look_up.propose(answer.tokens(), answer.words(), most).to_vec() }
        };
        open.iter().map(part).collect()
    }

    /// Makes room for a run. Where there is none, the last answer gives way and the run has to be planned again: `false`. Where no
    /// other is left to give way, an answer ends as far as it has come.
    fn make_room(&mut self, engine: &Inner, answers: &mut [Answering], parts: &[Part], base: usize) -> Result<bool> {
        let rows: usize = parts.iter().map(|part| answers[part.number].waiting().len() + part.proposal.len()).sum();
        if self.cache.length() + rows <= self.cache.capacity() {
            return Ok(true);
        }
        engine.decoder.compact(&mut self.cache)?;
        let obstacle = match self.reserve(engine, rows) {
            Err(error @ Error::Decoder(DecoderError::TooLong { .. } | DecoderError::Memory { .. })) => error,
            other => return other.map(|()| true),
        };
        let first = parts.first().map(|part| part.number);
        let gives_way = |number: &usize| Some(*number) != first && answers[*number].computed > 0 && !answers[*number].is_over();
        match (0..answers.len()).rev().find(gives_way) {
            Some(number) => self.suspend(engine, &mut answers[number], base).map(|()| false),
            None if parts.len() > 1 => Ok(false),
            None => match first.map(|number| &mut answers[number]) {
                Some(answer) if answer.has_begun() => {
                    answer.stop(Finish::Memory);
                    self.cache.forget(answer.branch, base + answer.computed);
                    self.leave(answer, base);
                    Ok(false)
                }
                _ => Err(obstacle),
            },
        }
    }

    /// Forgets what was computed of an answer; what it said so far is computed again when its turn comes.
    fn suspend(&mut self, engine: &Inner, answer: &mut Answering, base: usize) -> Result<()> {
        answer.computed = 0;
        self.cache.forget(answer.branch, base);
        Ok(engine.decoder.compact(&mut self.cache)?)
    }

    fn run(
        &mut self,
        engine: &Inner,
        answers: &mut [Answering],
        parts: &[Part],
        base: usize,
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<()> {
        let (mut ids, mut slots, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for Part { number, proposal } in parts {
            let answer = &answers[*number];
            let waiting = answer.waiting();
            slots.extend(Slot::run(answer.branch, base + answer.computed, waiting.len() + proposal.len()));
            ids.extend_from_slice(waiting);
            if !answer.is_catching_up() {
                wanted.extend(ids.len() - 1..ids.len() + proposal.len());
            }
            ids.extend_from_slice(proposal);
        }
        let step = Step { ids: &ids, visual_index: &[], slots: &slots, wanted: &wanted };
        let logits = engine.decoder.run(&mut self.cache, &self.visual, step, || true)?;
        let mut rows = logits.chunks_exact(engine.decoder.sizes().vocabulary);
        for Part { number, proposal } in parts {
            let answer = &mut answers[*number];
            let waiting = answer.waiting().len();
            if answer.is_catching_up() {
                answer.computed += waiting;
                continue;
            }
            let own: Vec<&[f32]> = rows.by_ref().take(1 + proposal.len()).collect();
            let mut choices = Vec::with_capacity(own.len());
            let shared = ids.len() > waiting;
            answer.alone = false;
            for (row, logits) in own.into_iter().enumerate() {
                let choice = answer.sampler.choose(logits)?;
                // Several rows at once are computed a little differently from what plain decoding computes.
                if shared && choice.margin <= engine.decoder.noise() * answer.sampler.stretch() {
                    answer.alone = true;
                    break;
                }
                answer.sampler.accept(choice.token)?;
                choices.push(choice);
                if proposal.get(row) != Some(&choice.token) {
                    break;
                }
            }
            if !choices.is_empty() {
                answer.computed += waiting + choices.len() - 1;
            }
            self.cache.forget(answer.branch, base + answer.computed);
            answer.take(&choices, patience, &mut |piece: &str| on_piece(*number, piece))?;
            self.leave(answer, base);
        }
        Ok(())
    }

    /// Forgets what was computed of an answer that is over, unless the conversation goes on from it.
    fn leave(&mut self, answer: &Answering, base: usize) {
        if answer.is_over() && answer.branch != Branch::TRUNK {
            self.cache.forget(answer.branch, base);
        }
    }

    /// Makes the cache large enough for more tokens.
    pub(super) fn reserve(&mut self, engine: &Inner, tokens: usize) -> Result<()> {
        let needed = self.cache.length() + tokens;
        if needed > self.cache.capacity() {
            engine.decoder.grow(&mut self.cache, needed)?;
        }
        Ok(())
    }
}
