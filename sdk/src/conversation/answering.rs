//! The state of one answer while it is decoded.

use super::prepared::PreparedQuestion;
use super::text::AnswerText;
use crate::answer::Finish;
use crate::control::{Flow, StopCondition};
use crate::decoder::{AnswerAcceptance, Branch, Choice, Sampler};
use crate::error::{AskedError, Error, Result};
use crate::evidence::TokenMark;
use crate::language::LanguageModel;
use crate::question::Question;
use std::time::{Duration, Instant};

/// A decoded answer.
pub(crate) struct Generated {
    /// The text as the model wrote it, with tags.
    pub raw: String,
    /// The text without tags and coordinates.
    pub readable: String,
    /// Number of tokens that were prefilled for the question.
    pub prefilled: usize,
    /// Number of decoded tokens.
    pub tokens: usize,
    /// Number of decoder runs after prefill.
    pub runs: usize,
    pub log_probabilities: Vec<f32>,
    /// Where the text of each token begins, and its probability.
    pub marks: Vec<TokenMark>,
    pub finish: Finish,
    /// Time of prefill and of decoding.
    pub timing: [Duration; 2],
}

impl Generated {
    /// The answer to a question that was not prefilled.
    pub fn empty(finish: Finish) -> Self {
        Self {
            raw: String::new(),
            readable: String::new(),
            prefilled: 0,
            tokens: 0,
            runs: 0,
            log_probabilities: Vec::new(),
            marks: Vec::new(),
            finish,
            timing: [Duration::ZERO; 2],
        }
    }
}

/// An answer that is being decoded.
pub(super) struct Answering<'a> {
    question: &'a Question,
    pub branch: Branch,
    pub sampler: Sampler,
    text: AnswerText<'a>,
    /// The tokens of the question, then those of the answer.
    tokens: Vec<i64>,
    /// Number of tokens of the question.
    question_tokens: usize,
    /// The words of the question, each once.
    words: Vec<i64>,
    /// How many of `tokens` are in the KV cache.
    pub cached: usize,
    /// Whether the next run computes this answer's next token and nothing else, as plain decoding does. It does so if the two best logits
    /// of the last run, which had several rows, were too close to choose between.
    pub needs_plain_run: bool,
    /// Acceptance of drafts in this answer.
    pub acceptance: AnswerAcceptance,
    /// Largest number of tokens of the answer.
    max_tokens: usize,
    /// Number of decoded tokens, without the end of the turn.
    decoded: usize,
    runs: usize,
    log_probabilities: Vec<f32>,
    marks: Vec<TokenMark>,
    finish: Option<Finish>,
    start: Instant,
    /// How long prefill took.
    prefill_time: Option<Duration>,
    /// The token that ends a turn.
    end_of_turn: i64,
}

impl<'a> Answering<'a> {
    /// The state before anything is computed for the question.
    pub fn new(model: &'a LanguageModel, prepared: PreparedQuestion<'a>, branch: Branch) -> Self {
        let PreparedQuestion { question, tokens, words, sampler, max_tokens, .. } = prepared;
        Self {
            question,
            branch,
            sampler,
            text: AnswerText::new(model, question),
            question_tokens: tokens.len(),
            words,
            tokens,
            cached: 0,
            needs_plain_run: false,
            acceptance: AnswerAcceptance::default(),
            max_tokens,
            decoded: 0,
            runs: 0,
            log_probabilities: Vec::new(),
            marks: Vec::new(),
            finish: None,
            start: Instant::now(),
            prefill_time: None,
            end_of_turn: i64::from(model.tokenizer.end_of_turn()),
        }
    }

    pub fn is_over(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether a token was decoded.
    pub fn has_tokens(&self) -> bool {
        self.decoded > 0
    }

    /// Whether the question was prefilled.
    pub fn is_prefilled(&self) -> bool {
        self.has_tokens() || self.cached > 0
    }

    /// Why the answer ends now; `None` if it was not cancelled and its deadline has not passed.
    pub fn stop_reason(&self, stop: StopCondition) -> Option<Finish> {
        stop.reached(self.question.deadline)
    }

    /// The error of this answer, which is that of the question with this index if several were asked at once.
    pub fn failed(&self, index: usize, error: impl Into<Error>) -> Error {
        let error = error.into();
        if self.branch == Branch::TRUNK { error } else { AskedError::new(index, error).into() }
    }

    /// Ends the answer. If it has ended already, `finish` is ignored.
    pub fn end(&mut self, finish: Finish) {
        self.finish.get_or_insert(finish);
    }

    /// The tokens of the question, then those of the answer so far.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// The words of the question, each once.
    pub fn words(&self) -> &[i64] {
        &self.words
    }

    /// Number of tokens of the question and of the longest answer.
    pub fn most_tokens(&self) -> usize {
        self.question_tokens + self.max_tokens
    }

    /// Tokens that the next run computes.
    pub fn next_tokens(&self) -> &[i64] {
        let last = if self.is_recomputing() { 1 } else { 0 };
        &self.tokens[self.cached..self.tokens.len() - last]
    }

    /// Whether the next run computes decoded tokens again, because they were removed from the KV cache. The last token is left to the run
    /// after it, which chooses the next one.
    pub fn is_recomputing(&self) -> bool {
        self.decoded > 0 && self.tokens.len() - self.cached > 1
    }

    /// Largest number of draft tokens that the next run may verify.
    pub fn max_draft(&self) -> usize {
        let verifies = self.prefill_time.is_some() && self.sampler.takes_drafts() && !self.is_recomputing();
        if verifies { self.max_tokens.saturating_sub(self.decoded + 1) } else { 0 }
    }

    /// Appends the tokens that a run has chosen, and ends the answer if one of them ends it or a limit is reached.
    ///
    /// # Errors
    /// If the tokenizer cannot decode a token.
    pub fn append(&mut self, choices: &[Choice], stop: StopCondition, on_piece: &mut impl FnMut(&str) -> Flow) -> Result<()> {
        match self.prefill_time {
            None => self.prefill_time = Some(self.start.elapsed()),
            Some(_) => self.runs += 1,
        }
        for choice in choices {
            if choice.token == self.end_of_turn {
                self.tokens.push(self.end_of_turn);
                self.finish = Some(Finish::EndOfTurn);
                return Ok(());
            }
            if self.decoded == self.max_tokens {
                self.finish = Some(Finish::MaxTokens);
                return Ok(());
            }
            self.decoded += 1;
            self.tokens.push(choice.token);
            if self.question.log_probabilities {
                self.log_probabilities.push(choice.log_probability);
            }
            self.marks.push(TokenMark { start: self.text.length(), probability: choice.log_probability.exp() });
            self.finish = self.text.push(choice.token, on_piece)?;
            if self.finish.is_some() {
                return Ok(());
            }
        }
        self.finish = if choices.is_empty() {
            None
        } else if self.decoded == self.max_tokens {
            Some(Finish::MaxTokens)
        } else {
            self.stop_reason(stop)
        };
        Ok(())
    }

    /// The tokens of the answer so far.
    pub fn answer_tokens(&self) -> &[i64] {
        &self.tokens[self.question_tokens..]
    }

    /// The answer, the tokens of its question and its own that a turn keeps in the KV cache, and those that the next turn has to compute.
    pub fn finish(mut self, on_piece: &mut impl FnMut(&str) -> Flow) -> (Generated, Vec<i64>, Vec<i64>) {
        let ended = self.finish.unwrap_or(Finish::Stopped);
        let (raw, readable, finish) = self.text.finish(ended, on_piece);
        // Draft tokens after the end of the answer are not kept, and its last token was not computed.
        let kept = self.cached.min(self.tokens.len() - 1);
        let mut pending = self.tokens.split_off(kept);
        if ended != Finish::EndOfTurn {
            pending.push(self.end_of_turn);
        }
        let total = self.start.elapsed();
        let prefill = self.prefill_time.unwrap_or(total);
        let generated = Generated {
            raw,
            readable,
            prefilled: self.prefill_time.map_or(0, |_| self.question_tokens),
            tokens: self.decoded,
            runs: self.runs,
            log_probabilities: self.log_probabilities,
            marks: self.marks,
            finish,
            timing: [prefill, total.saturating_sub(prefill)],
        };
        (generated, self.tokens, pending)
    }
}
