//! A question that is ready to be decoded.

use crate::decoder::{QuestionError, Sampler};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::question::{DEFAULT_MAX_TOKENS, Question};

/// The end of the text that a question continues: the context, or the last turn that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextEnd<'a> {
    /// Number of tokens in the KV cache.
    pub length: usize,
    /// Tokens of the last answer that are not in the KV cache.
    pub pending: &'a [i64],
    /// Whether a turn precedes the question.
    pub follows_turn: bool,
}

/// A question that was checked and has all that decoding needs. It is made before anything is computed or removed from the KV cache, so
/// that an invalid question changes nothing.
pub(crate) struct PreparedQuestion<'a> {
    pub question: &'a Question,
    /// Length of the text that the question continues, in tokens.
    pub start: usize,
    /// Tokens to prefill: the pending ones of the last answer, then those of the question.
    pub tokens: Vec<i64>,
    /// The words among `tokens`, sorted and without duplicates.
    pub words: Vec<i64>,
    pub sampler: Sampler,
    /// Largest number of tokens of the answer.
    pub max_tokens: usize,
}

impl<'a> PreparedQuestion<'a> {
    /// Prepares a question. `text` is what the model reads of it, with boxes on the prompt's grid.
    ///
    /// # Errors
    /// If a decoding option is out of range, the JSON schema cannot be used, or the text cannot be tokenized or is too long.
    pub fn new(model: &LanguageModel, question: &'a Question, text: &str, end: TextEnd) -> Result<Self> {
        let sampler = Sampler::new(question.sampling, model.matcher(&question.form)?)?;
        let own = if end.follows_turn { model.tokenizer.follow_up(text)? } else { model.tokenizer.question(text)? };
        let tokens = [end.pending, &own].concat();
        let limit = model.decoder.sizes().max_context;
        if end.length + tokens.len() >= limit {
            return Err(QuestionError::TooLong { context: end.length, question: tokens.len(), limit }.into());
        }
        let mut words: Vec<i64> = tokens.iter().filter_map(|&token| model.tokenizer.word(token)).collect();
        words.sort_unstable();
        words.dedup();
        let max_tokens = question.max_tokens.min(limit - end.length - tokens.len());
        Ok(Self { question, start: end.length, tokens, words, sampler, max_tokens })
    }

    /// Number of tokens of the question and of an answer of the default length, or of its longest answer if that is shorter.
    pub fn room(&self) -> usize {
        self.tokens.len() + self.max_tokens.min(DEFAULT_MAX_TOKENS)
    }
}
