//! The loop that decodes answers: one, or several over the same text.
//!
//! Each run of the decoder computes all tokens that are known and not yet in the KV cache: questions that were not prefilled, the last
//! token of each answer, and after it the draft tokens that the run verifies. Each answer has the tokens that plain decoding gives it:
//! if the two best logits of a run of several rows are too close to choose between, a run of one row computes them again.

use super::Conversation;
use super::answering::Answering;
use crate::answer::Finish;
use crate::control::{Flow, StopCondition};
use crate::decoder::{Branch, Candidate, Plan, Progress, QuestionError, RunInput, Slot, Speculation};
use crate::error::{Error, Result};
use crate::language::LanguageModel;
use std::time::{Duration, Instant};

/// Largest number of answers that are decoded at the same time. Further ones wait.
const MAX_PARALLEL: usize = 16;

/// What a run of the decoder computes.
struct Run {
    parts: Vec<RunPart>,
    /// How many tokens of each draft it verifies; `None` for a run that prefills or recomputes.
    plan: Option<Plan>,
}

/// The part of a run that belongs to one answer.
struct RunPart {
    /// Index of the answer.
    answer: usize,
    /// Draft tokens.
    draft: Vec<i64>,
    /// How likely the draft is right; see [`crate::decoder::LookUp`].
    strength: usize,
    /// How many of the draft tokens the run verifies.
    verified: usize,
}

/// The outcome of a run.
#[derive(Default)]
struct Outcome {
    time: Duration,
    /// The tokens that it chose for each part.
    tokens: Vec<Vec<i64>>,
}

impl RunPart {
    fn verified(&self) -> &[i64] {
        &self.draft[..self.verified]
    }
}

impl Run {
    /// Removes the draft tokens from the run.
    fn drop_drafts(&mut self, model: &LanguageModel) {
        self.parts.iter_mut().for_each(|part| part.verified = 0);
        model.speculate(|speculation| self.plan.iter_mut().for_each(|plan| speculation.cancel(plan)));
    }
}

impl Conversation {
    /// Decodes answers until all have ended. They continue the text in the KV cache.
    ///
    /// # Errors
    /// If the model fails, or there is no memory for a question and no answer has a token.
    pub(super) fn decode(
        &mut self,
        model: &LanguageModel,
        answers: &mut [Answering],
        stop: StopCondition,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<()> {
        let base = self.cache.length();
        let most = answers.iter().map(Answering::most_tokens).fold(base, usize::saturating_add);
        let (mut max_parallel, mut no_memory, mut progress) = (MAX_PARALLEL, None, Progress::new(answers.len()));
        loop {
            for answer in answers.iter_mut().filter(|answer| !answer.is_over()) {
                if let Some(finish) = answer.stop_reason(stop) {
                    answer.end(finish);
                    self.remove_ended(answer, base);
                }
            }
            let mut run = self.next_run(model, answers, max_parallel, &progress);
            if run.parts.is_empty() {
                // An answer with tokens is returned, even if there was no memory for the rest of it or for another one.
                return no_memory.filter(|_| !answers.iter().any(Answering::has_tokens)).map_or(Ok(()), Err);
            }
            let mut error = self.make_room(model, answers, &run.parts, most)?;
            if error.is_some() {
                // Draft tokens are dropped before an answer is suspended.
                run.drop_drafts(model);
                error = self.make_room(model, answers, &run.parts, most)?;
            }
            match error {
                None => {
                    let outcome = self.run(model, answers, &run, base, stop, on_piece)?;
                    model.speculate(|speculation| learn(speculation, answers, &run, &outcome, &mut progress));
                }
                Some(error) => match self.reduce(model, answers, &run.parts, base)? {
                    Some(fewer) => max_parallel = fewer,
                    None => no_memory = Some(error),
                },
            }
        }
    }

    /// Plans the next run: for all answers that have not ended, up to `max_parallel`, or for a single one that needs a plain run.
    fn next_run(&self, model: &LanguageModel, answers: &[Answering], max_parallel: usize, progress: &Progress) -> Run {
        let plain = |answer| RunPart { answer, draft: Vec::new(), strength: 0, verified: 0 };
        let open: Vec<usize> = (0..answers.len()).filter(|&answer| !answers[answer].is_over()).take(max_parallel).collect();
        if let Some(&answer) = open.iter().find(|&&answer| answers[answer].needs_plain_run) {
            return Run { parts: vec![plain(answer)], plan: Some(Plan::alone(open.len())) };
        }
        let mut parts: Vec<RunPart> = open.into_iter().map(plain).collect();
        let prefills = |part: &RunPart| answers[part.answer].next_tokens().len() > 1 || answers[part.answer].is_recomputing();
        if parts.is_empty() || parts.iter().any(prefills) {
            return Run { parts, plan: None };
        }
        let Some(true) = model.speculate(|speculation| speculation.searches()) else {
            let plan = Plan::plain(parts.len());
            return Run { parts, plan: Some(plan) };
        };
        let start = Instant::now();
        for part in &mut parts {
            let answer = &answers[part.answer];
            if let Some(draft) = self.look_up.draft(answer.tokens(), answer.words(), answer.max_draft()) {
                (part.draft, part.strength) = (draft.tokens.to_vec(), draft.strength);
            }
        }
        let searched = start.elapsed();
        let candidate = |part: &RunPart| {
            let (ahead, acceptance) = (progress.ahead(part.answer), answers[part.answer].acceptance);
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
        Run { parts, plan }
    }

    /// Makes room in the KV cache for a run. `most` tokens are all that it will have to hold. Returns the error if that fails, or `None` if
    /// there is room.
    fn make_room(&mut self, model: &LanguageModel, answers: &[Answering], parts: &[RunPart], most: usize) -> Result<Option<Error>> {
        let rows: usize = parts.iter().map(|part| answers[part.answer].next_tokens().len() + part.verified).sum();
        if self.cache.length() + rows <= self.cache.capacity() {
            return Ok(None);
        }
        model.decoder.compact(&mut self.cache)?;
        match self.reserve(model, self.cache.length() + rows, most) {
            Ok(()) => Ok(None),
            Err(error @ (Error::Question(QuestionError::TooLong { .. }) | Error::Memory(_))) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Reduces what the KV cache has to hold if there is no room for a run: suspends the last answer that is in it, or else the last one
    /// of the run. Returns how many answers are decoded from now on. If the run has a single answer, that answer ends, and `None` is
    /// returned.
    fn reduce(&mut self, model: &LanguageModel, answers: &mut [Answering], parts: &[RunPart], base: usize) -> Result<Option<usize>> {
        let open: Vec<usize> = (0..answers.len()).filter(|&answer| !answers[answer].is_over()).collect();
        if let Some(at) = (1..open.len()).rev().find(|&at| answers[open[at]].cached > 0) {
            self.suspend(model, &mut answers[open[at]], base)?;
            return Ok(Some(at));
        }
        if parts.len() > 1 {
            return Ok(Some(parts.len() - 1));
        }
        for part in parts {
            let answer = &mut answers[part.answer];
            answer.end(Finish::Memory);
            self.cache.remove(answer.branch, base + answer.cached);
            self.remove_ended(answer, base);
        }
        Ok(None)
    }

    /// Removes an answer from the KV cache. It is computed again when there is room.
    fn suspend(&mut self, model: &LanguageModel, answer: &mut Answering, base: usize) -> Result<()> {
        answer.cached = 0;
        self.cache.remove(answer.branch, base);
        Ok(model.decoder.compact(&mut self.cache)?)
    }

    /// Runs the decoder and appends the tokens that it chooses to the answers.
    fn run(
        &mut self,
        model: &LanguageModel,
        answers: &mut [Answering],
        run: &Run,
        base: usize,
        stop: StopCondition,
        on_piece: &mut impl FnMut(usize, &str) -> Flow,
    ) -> Result<Outcome> {
        let (mut ids, mut slots, mut logit_positions) = (Vec::new(), Vec::new(), Vec::new());
        for part in &run.parts {
            let answer = &answers[part.answer];
            let (next, draft) = (answer.next_tokens(), part.verified());
            slots.extend(Slot::consecutive(answer.branch, base + answer.cached, next.len() + draft.len()));
            ids.extend_from_slice(next);
            if !answer.is_recomputing() {
                logit_positions.extend(ids.len() - 1..ids.len() + draft.len());
            }
            ids.extend_from_slice(draft);
        }
        let input = RunInput { ids: &ids, visual_index: &[], slots: &slots, logit_positions: &logit_positions };
        let may_continue = || run.parts.iter().any(|part| answers[part.answer].stop_reason(stop).is_none());
        let start = Instant::now();
        let Some(logits) = model.decoder.run(&mut self.cache, &self.visual, input, may_continue)? else {
            for part in &run.parts {
                let answer = &mut answers[part.answer];
                let finish = answer.stop_reason(stop).unwrap_or(Finish::Stopped);
                answer.end(finish);
                self.remove_ended(answer, base);
            }
            return Ok(Outcome::default());
        };
        let time = start.elapsed();
        let mut rows = logits.chunks_exact(model.decoder.sizes().vocabulary);
        let mut tokens = Vec::with_capacity(run.parts.len());
        for part in &run.parts {
            let answer = &mut answers[part.answer];
            let computed = answer.next_tokens().len();
            if answer.is_recomputing() {
                answer.cached += computed;
                tokens.push(Vec::new());
                continue;
            }
            let own: Vec<&[f32]> = rows.by_ref().take(1 + part.verified).collect();
            let mut choices = Vec::with_capacity(own.len());
            let is_shared = ids.len() > computed;
            answer.needs_plain_run = false;
            for (row, logits) in own.into_iter().enumerate() {
                let choice = answer.sampler.choose(logits).map_err(|error| answer.failed(part.answer, error))?;
                // The logits of a run of several rows differ from those of plain decoding by rounding.
                if is_shared && choice.margin <= model.decoder.logit_tolerance() * answer.sampler.penalty_gain() {
                    answer.needs_plain_run = true;
                    break;
                }
                answer.sampler.accept(choice.token).map_err(|error| answer.failed(part.answer, error))?;
                choices.push(choice);
                if part.verified().get(row) != Some(&choice.token) {
                    break;
                }
            }
            if !choices.is_empty() {
                answer.cached += computed + choices.len() - 1;
            }
            self.cache.remove(answer.branch, base + answer.cached);
            answer.append(&choices, stop, &mut |piece: &str| on_piece(part.answer, piece))?;
            self.remove_ended(answer, base);
            tokens.push(choices.iter().map(|choice| choice.token).collect::<Vec<_>>());
        }
        Ok(Outcome { time, tokens })
    }

    /// Removes an answer that has ended from the KV cache, unless it is a turn of the conversation.
    fn remove_ended(&mut self, answer: &Answering, base: usize) {
        if answer.is_over() && answer.branch != Branch::TRUNK {
            self.cache.remove(answer.branch, base);
        }
    }

    /// Makes room in the KV cache for `tokens` tokens in all, of at most `most` that will be needed.
    pub(super) fn reserve(&mut self, model: &LanguageModel, tokens: usize, most: usize) -> Result<()> {
        if tokens > self.cache.capacity() {
            model.decoder.grow(&mut self.cache, tokens, most)?;
        }
        Ok(())
    }
}

/// Learns the cost of a run, and which draft tokens were accepted.
fn learn(speculation: &mut Speculation, answers: &mut [Answering], run: &Run, outcome: &Outcome, progress: &mut Progress) {
    let Some(plan) = &run.plan else { return };
    for (part, tokens) in run.parts.iter().zip(&outcome.tokens) {
        progress.add(part.answer, tokens.len());
        let right = part.draft.iter().zip(tokens).take_while(|(draft, token)| draft == token).count();
        let wrong = right < part.draft.len().min(tokens.len());
        speculation.learn(part.strength, &mut answers[part.answer].acceptance, right, wrong);
    }
    speculation.charge(plan, outcome.time.as_secs_f64(), progress, |answer| answers[answer].is_over());
}
