//! One answer while it is decoded: what was asked and said so far, how it goes on, and why it ended.

use super::prepared::PreparedQuestion;
use super::text::Text;
use crate::answer::Finish;
use crate::control::{Flow, Patience};
use crate::decoder::{AnswerAcceptance, Branch, Choice, Sampler};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::question::Question;
use std::time::{Duration, Instant};

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

impl Said {
    /// Nothing: it ended before it began.
    pub fn nothing(finish: Finish) -> Self {
        Self {
            raw: String::new(),
            readable: String::new(),
            prefilled: 0,
            tokens: 0,
            runs: 0,
            log_probabilities: Vec::new(),
            finish,
            timing: [Duration::ZERO; 2],
        }
    }
}

pub(super) struct Answering<'a> {
    question: &'a Question,
    pub branch: Branch,
    pub sampler: Sampler,
    text: Text<'a>,
    /// The question's tokens, then the answer's.
    tokens: Vec<i64>,
    /// How many are the question's.
    asked: usize,
    /// The question's words, each once.
    words: Vec<i64>,
    /// How many the cache holds, of those that count.
    pub computed: usize,
    /// Whether what comes next is to be computed by itself, as plain decoding would: the call was too close.
    pub alone: bool,
    /// Acceptance of drafts in this answer.
    pub acceptance: AnswerAcceptance,
    limit: usize,
    count: usize,
    runs: usize,
    log_probabilities: Vec<f32>,
    finish: Option<Finish>,
    start: Instant,
    prefilled: Option<Duration>,
    end: i64,
}

impl<'a> Answering<'a> {
    /// The state before anything is computed for the question.
    pub fn new(model: &'a LanguageModel, prepared: PreparedQuestion<'a>, branch: Branch) -> Self {
        let PreparedQuestion { question, tokens, words, sampler, max_tokens, .. } = prepared;
        Self {
            question,
            branch,
            sampler,
            text: Text::new(model, question),
            asked: tokens.len(),
            words,
            tokens,
            computed: 0,
            alone: false,
            acceptance: AnswerAcceptance::default(),
            limit: max_tokens,
            count: 0,
            runs: 0,
            log_probabilities: Vec::new(),
            finish: None,
            start: Instant::now(),
            prefilled: None,
            end: i64::from(model.tokenizer.end_of_turn()),
        }
    }

    pub fn is_over(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether anything was said.
    pub fn has_begun(&self) -> bool {
        self.count > 0
    }

    /// Whether the question was prefilled.
    pub fn is_prefilled(&self) -> bool {
        self.has_begun() || self.computed > 0
    }

    /// Why it ends now, if nobody waits for it any longer.
    pub fn over(&self, patience: Patience) -> Option<Finish> {
        patience.over(self.question.deadline)
    }

    /// Ends it here, unless it is over.
    pub fn stop(&mut self, why: Finish) {
        self.finish.get_or_insert(why);
    }

    /// Question and answer, so far.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// The question's words, each once.
    pub fn words(&self) -> &[i64] {
        &self.words
    }

    /// Tokens that the next run has to compute.
    pub fn waiting(&self) -> &[i64] {
        let last = if self.is_catching_up() { 1 } else { 0 };
        &self.tokens[self.computed..self.tokens.len() - last]
    }

    /// Whether what was said before is computed again, the last token left for a run of its own.
    pub fn is_catching_up(&self) -> bool {
        self.count > 0 && self.tokens.len() - self.computed > 1
    }

    /// How many draft tokens may follow those.
    pub fn longest_draft(&self) -> usize {
        let goes_on = self.prefilled.is_some() && self.sampler.takes_drafts() && !self.is_catching_up();
        if goes_on { self.limit.saturating_sub(self.count + 1) } else { 0 }
    }

    /// Takes what a run has chosen, token after token, and looks whether the answer ends.
    ///
    /// # Errors
    /// If a token is none of the tokenizer's.
    pub fn take(&mut self, choices: &[Choice], patience: Patience, on_piece: &mut impl FnMut(&str) -> Flow) -> Result<()> {
        match self.prefilled {
            None => self.prefilled = Some(self.start.elapsed()),
            Some(_) => self.runs += 1,
        }
        for choice in choices {
            if choice.token == self.end {
                self.tokens.push(self.end);
                self.finish = Some(Finish::EndOfTurn);
                return Ok(());
            }
            if self.count == self.limit {
                self.finish = Some(Finish::MaxTokens);
                return Ok(());
            }
            self.count += 1;
            self.tokens.push(choice.token);
            if self.question.log_probabilities {
                self.log_probabilities.push(choice.log_probability);
            }
            self.finish = self.text.push(choice.token, on_piece)?;
            if self.finish.is_some() {
                return Ok(());
            }
        }
        self.finish = if choices.is_empty() {
            None
        } else if self.count == self.limit {
            Some(Finish::MaxTokens)
        } else {
            self.over(patience)
        };
        Ok(())
    }

    /// What later answers may repeat.
    pub fn to_remember(&self) -> &[i64] {
        &self.tokens[self.asked..]
    }

    /// Ends the answer; also tells which of its tokens a conversation still has to compute, and how many it may keep.
    pub fn finish(mut self, on_piece: &mut impl FnMut(&str) -> Flow) -> (Said, usize, Vec<i64>) {
        let ended = self.finish.unwrap_or(Finish::Stopped);
        let (raw, readable, finish) = self.text.finish(ended, on_piece);
        // Draft tokens behind the answer's end are forgotten. The answer's last token was never computed.
        let kept = self.computed.min(self.tokens.len() - 1);
        let mut pending = self.tokens.split_off(kept);
        if ended != Finish::EndOfTurn {
            pending.push(self.end);
        }
        let taken = self.start.elapsed();
        let prefilled = self.prefilled.unwrap_or(taken);
        let said = Said {
            raw,
            readable,
            // One that was stopped while it waited was never computed.
            prefilled: self.prefilled.map_or(0, |_| self.asked),
            tokens: self.count,
            runs: self.runs,
            log_probabilities: self.log_probabilities,
            finish,
            timing: [prefilled, taken.saturating_sub(prefilled)],
        };
        (said, kept, pending)
    }
}
