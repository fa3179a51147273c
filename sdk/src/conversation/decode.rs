//! The loop that decodes answers: one, or several over the same text at once, with drafts of what comes next.
//!
//! All that waits to be computed goes into one run: questions that were not read yet, each answer's last token, and behind it the draft
//! tokens that the run verifies. An answer is the one that it would be by itself, token by token: where a run of several rows leaves a
//! choice too close, what plain decoding computes is computed.

use super::Conversation;
use super::answering::Answering;
use crate::answer::Finish;
use crate::control::{Flow, Patience};
use crate::decoder::{Branch, Candidate, Plan, Progress, QuestionError, Slot, Speculation, Step};
use crate::error::{Error, Result};
use crate::language::LanguageModel;
use std::time::{Duration, Instant};

/// Answers that are decoded at a time; further ones wait.
const TOGETHER: usize = 16;

/// What a run computes.
struct Round {
    parts: Vec<Part>,
    /// How much of each part's draft it verifies; none where it does not go on with answers only.
    plan: Option<Plan>,
}

/// An answer's part of a run.
struct Part {
    number: usize,
    /// Tokens that may come next, and how much speaks for them.
    draft: Vec<i64>,
    strength: usize,
    /// How many of them the run verifies.
    verified: usize,
}

/// How a run went: how long it took, and what each part said.
#[derive(Default)]
struct Ran {
    taken: Duration,
    said: Vec<Vec<i64>>,
}

impl Part {
    fn verified(&self) -> &[i64] {
        &self.draft[..self.verified]
    }
}

impl Round {
    /// Computes no draft.
    fn leave_drafts(&mut self, model: &LanguageModel) {
        self.parts.iter_mut().for_each(|part| part.verified = 0);
        model.speculate(|speculation| self.plan.iter_mut().for_each(|plan| speculation.withdraw(plan)));
    }
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
        let (mut together, mut refused, mut progress) = (TOGETHER, None, Progress::new(answers.len()));
        loop {
            if patience.is_cancelled() {
                answers.iter_mut().for_each(|answer| answer.stop(Finish::Stopped));
            }
            let mut round = self.round(model, answers, together, &progress);
            if round.parts.is_empty() {
                // What was said is not lost because others, or more of it, cannot be had.
                return refused.filter(|_| !answers.iter().any(Answering::has_begun)).map_or(Ok(()), Err);
            }
            let mut obstacle = self.obstacle(model, answers, &round.parts)?;
            if obstacle.is_some() {
                // No answer gives way to a draft.
                round.leave_drafts(model);
                obstacle = self.obstacle(model, answers, &round.parts)?;
            }
            match obstacle {
                None => {
                    let ran = self.run(model, answers, &round, base, patience, on_piece)?;
                    model.speculate(|speculation| settle(speculation, answers, &round, &ran, &mut progress));
                }
                Some(obstacle) => match self.give_way(model, answers, &round.parts, base)? {
                    Some(fewer) => together = fewer,
                    None => refused = Some(obstacle),
                },
            }
        }
    }

    /// What the next run computes: of all answers that go on, or of one whose next token was too close a call.
    fn round(&self, model: &LanguageModel, answers: &[Answering], together: usize, progress: &Progress) -> Round {
        let plain = |number| Part { number, draft: Vec::new(), strength: 0, verified: 0 };
        let open: Vec<usize> = (0..answers.len()).filter(|&number| !answers[number].is_over()).take(together).collect();
        if let Some(&number) = open.iter().find(|&&number| answers[number].alone) {
            return Round { parts: vec![plain(number)], plan: Some(Plan::alone(open.len())) };
        }
        let mut parts: Vec<Part> = open.into_iter().map(plain).collect();
        let reads = |part: &Part| answers[part.number].waiting().len() > 1 || answers[part.number].is_catching_up();
        if parts.is_empty() || parts.iter().any(reads) {
            return Round { parts, plan: None };
        }
        let Some(true) = model.speculate(|speculation| speculation.searches()) else {
            let plan = Plan::plain(parts.len());
            return Round { parts, plan: Some(plan) };
        };
        let start = Instant::now();
        for part in &mut parts {
            let answer = &answers[part.number];
            if let Some(draft) = self.look_up.draft(answer.tokens(), answer.words(), answer.longest_draft()) {
                (part.draft, part.strength) = (draft.tokens.to_vec(), draft.strength);
            }
        }
        let searched = start.elapsed();
        let candidate = |part: &Part| {
            let (ahead, acceptance) = (progress.ahead(part.number), answers[part.number].acceptance);
            Candidate { tokens: part.draft.len(), strength: part.strength, ahead, acceptance }
        };
        let candidates: Vec<Candidate> = parts.iter().map(candidate).collect();
        let plan = model.speculate(|speculation| {
            speculation.searched(searched.as_secs_f64());
            speculation.plan(&candidates)
        });
        for (part, &length) in parts.iter_mut().zip(plan.iter().flat_map(|plan| &plan.lengths)) {
            part.verified = length;
        }
        Round { parts, plan }
    }

    /// Makes room for a run, or tells why there is none.
    fn obstacle(&mut self, model: &LanguageModel, answers: &[Answering], parts: &[Part]) -> Result<Option<Error>> {
        let rows: usize = parts.iter().map(|part| answers[part.number].waiting().len() + part.verified).sum();
        if self.cache.length() + rows <= self.cache.capacity() {
            return Ok(None);
        }
        model.decoder.compact(&mut self.cache)?;
        match self.reserve(model, self.cache.length() + rows) {
            Ok(()) => Ok(None),
            Err(error @ (Error::Question(QuestionError::TooLong { .. }) | Error::Memory(_))) => Ok(Some(error)),
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
        round: &Round,
        base: usize,
        patience: Patience,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<Ran> {
        let (mut ids, mut slots, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for part in &round.parts {
            let answer = &answers[part.number];
            let (waiting, draft) = (answer.waiting(), part.verified());
            slots.extend(Slot::run(answer.branch, base + answer.computed, waiting.len() + draft.len()));
            ids.extend_from_slice(waiting);
            if !answer.is_catching_up() {
                wanted.extend(ids.len() - 1..ids.len() + draft.len());
            }
            ids.extend_from_slice(draft);
        }
        let step = Step { ids: &ids, visual_index: &[], slots: &slots, wanted: &wanted };
        // Questions and what is caught up with may be long.
        let goes_on = || round.parts.iter().any(|part| answers[part.number].over(patience).is_none());
        let start = Instant::now();
        let Some(logits) = model.decoder.run(&mut self.cache, &self.visual, step, goes_on)? else {
            for Part { number, .. } in &round.parts {
                let why = answers[*number].over(patience).unwrap_or(Finish::Stopped);
                answers[*number].stop(why);
                self.leave(&answers[*number], base);
            }
            return Ok(Ran::default());
        };
        let taken = start.elapsed();
        let mut rows = logits.chunks_exact(model.decoder.sizes().vocabulary);
        let mut said = Vec::with_capacity(round.parts.len());
        for part in &round.parts {
            let answer = &mut answers[part.number];
            let waiting = answer.waiting().len();
            if answer.is_catching_up() {
                answer.computed += waiting;
                said.push(Vec::new());
                continue;
            }
            let own: Vec<&[f32]> = rows.by_ref().take(1 + part.verified).collect();
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
                if part.verified().get(row) != Some(&choice.token) {
                    break;
                }
            }
            if !choices.is_empty() {
                answer.computed += waiting + choices.len() - 1;
            }
            self.cache.forget(answer.branch, base + answer.computed);
            answer.take(&choices, patience, &mut |piece: &str| on_piece(part.number, piece))?;
            self.leave(answer, base);
            said.push(choices.iter().map(|choice| choice.token).collect::<Vec<_>>());
        }
        Ok(Ran { taken, said })
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

/// Learns from a run how long it took, and which drafts were right.
fn settle(speculation: &mut Speculation, answers: &mut [Answering], round: &Round, ran: &Ran, progress: &mut Progress) {
    let Some(plan) = &round.plan else { return };
    for (part, said) in round.parts.iter().zip(&ran.said) {
        progress.add(part.number, said.len());
        let right = part.draft.iter().zip(said).take_while(|(draft, token)| draft == token).count();
        let wrong = right < part.draft.len().min(said.len());
        speculation.learn(part.strength, &mut answers[part.number].acceptance, right, wrong);
    }
    speculation.settle(plan, ran.taken.as_secs_f64(), progress, |number| answers[number].is_over());
}
