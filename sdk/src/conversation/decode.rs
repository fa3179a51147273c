//! The loop that decodes answers: one, or several over the same text at once, with what they are likely to repeat foreseen.
//!
//! All that waits to be computed goes into one run: questions that were not read yet, each answer's last token, and behind it what
//! is foreseen of it. An answer is the one that it would be by itself, token by token: where a run of several rows leaves a
//! choice too close, what plain decoding computes is computed.

use super::Conversation;
use super::answering::Answering;
use crate::answer::Finish;
use crate::control::{Flow, Patience};
use crate::decoder::{Branch, DecoderError, Slot, Step};
use crate::error::{Error, Result};
use crate::language::LanguageModel;

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
        model: &LanguageModel,
        answers: &mut [Answering],
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<()> {
        let base = self.cache.length();
        let (mut together, mut refused) = (TOGETHER, None);
        loop {
            if patience.is_cancelled() {
                answers.iter_mut().for_each(|answer| answer.stop(Finish::Stopped));
            }
            let mut parts = self.parts(model, answers, together);
            if parts.is_empty() {
                // What was said is not lost because others, or more of it, cannot be had.
                return refused.filter(|_| !answers.iter().any(Answering::has_begun)).map_or(Ok(()), Err);
            }
            let mut obstacle = self.obstacle(model, answers, &parts)?;
            if obstacle.is_some() {
                // Nothing gives way to what is foreseen.
                parts.iter_mut().for_each(|part| part.proposal.clear());
                obstacle = self.obstacle(model, answers, &parts)?;
            }
            match obstacle {
                None => self.run(model, answers, &parts, base, patience, on_piece)?,
                Some(obstacle) => match self.give_way(model, answers, &parts, base)? {
                    Some(fewer) => together = fewer,
                    None => refused = Some(obstacle),
                },
            }
        }
    }

    /// What the next run computes: of all answers that go on, or of one whose next token was too close a call.
    fn parts(&self, model: &LanguageModel, answers: &[Answering], together: usize) -> Vec<Part> {
        let open: Vec<usize> = (0..answers.len()).filter(|&number| !answers[number].is_over()).take(together).collect();
        if let Some(&number) = open.iter().find(|&&number| answers[number].alone) {
            return vec![Part { number, proposal: Vec::new() }];
        }
        let each = FORESEEN / open.len().max(1);
        let part = |&number: &usize| {
            let answer = &answers[number];
            let most = if model.look_up { answer.may_foresee().min(each) } else { 0 };
            Part { number, proposal: self.look_up.propose(answer.tokens(), answer.words(), most).to_vec() }
        };
        open.iter().map(part).collect()
    }

    /// Makes room for a run, or tells why there is none.
    fn obstacle(&mut self, model: &LanguageModel, answers: &[Answering], parts: &[Part]) -> Result<Option<Error>> {
        let rows: usize = parts.iter().map(|part| answers[part.number].waiting().len() + part.proposal.len()).sum();
        if self.cache.length() + rows <= self.cache.capacity() {
            return Ok(None);
        }
        model.decoder.compact(&mut self.cache)?;
        match self.reserve(model, self.cache.length() + rows) {
            Ok(()) => Ok(None),
            Err(error @ Error::Decoder(DecoderError::TooLong { .. } | DecoderError::Memory { .. } | DecoderError::Allocation { .. })) => {
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Where there is no room for a run, the last answer gives way, and where none is left to do so, fewer are decoded at a time: how
    /// many. Where one alone finds no room, it ends as far as it has come.
    fn give_way(&mut self, model: &LanguageModel, answers: &mut [Answering], parts: &[Part], base: usize) -> Result<Option<usize>> {
        let open: Vec<usize> = (0..answers.len()).filter(|&number| !answers[number].is_over()).collect();
        if let Some(at) = (1..open.len()).rev().find(|&at| answers[open[at]].computed > 0) {
            self.suspend(model, &mut answers[open[at]], base)?;
            return Ok(Some(at));
        }
        if parts.len() > 1 {
            return Ok(Some(parts.len() - 1));
        }
        for Part { number, .. } in parts {
            let answer = &mut answers[*number];
            answer.stop(Finish::Memory);
            self.cache.forget(answer.branch, base + answer.computed);
            self.leave(answer, base);
        }
        Ok(None)
    }

    /// Forgets what was computed of an answer; what it said so far is computed again when its turn comes.
    fn suspend(&mut self, model: &LanguageModel, answer: &mut Answering, base: usize) -> Result<()> {
        answer.computed = 0;
        self.cache.forget(answer.branch, base);
        Ok(model.decoder.compact(&mut self.cache)?)
    }

    fn run(
        &mut self,
        model: &LanguageModel,
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
        // Questions and what is caught up with may be long.
        let goes_on = || parts.iter().any(|part| answers[part.number].over(patience).is_none());
        let logits = match model.decoder.run(&mut self.cache, &self.visual, step, goes_on) {
            Err(Error::Decoder(DecoderError::Interrupted)) => {
                for Part { number, .. } in parts {
                    let why = answers[*number].over(patience).unwrap_or(Finish::Stopped);
                    answers[*number].stop(why);
                    self.leave(&answers[*number], base);
                }
                return Ok(());
            }
            logits => logits?,
        };
        let mut rows = logits.chunks_exact(model.decoder.sizes().vocabulary);
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
                if shared && choice.margin <= model.decoder.noise() * answer.sampler.stretch() {
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

    /// Makes the cache large enough for so many tokens in all.
    pub(super) fn reserve(&mut self, model: &LanguageModel, tokens: usize) -> Result<()> {
        if tokens > self.cache.capacity() {
            model.decoder.grow(&mut self.cache, tokens)?;
        }
        Ok(())
    }
}
