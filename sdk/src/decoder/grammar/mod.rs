//! Constrained decoding: a grammar (llguidance) that says which tokens may come next in an answer.
//!
//! A grammar describes the text of the answer, not its tokens: a tag is constrained as text, however it is split into tokens. A grammar
//! guarantees the form of an answer, but not that the answer is right.

mod patterns;
mod schema;
mod vocabulary;

use super::error::DecoderError;
use crate::cause::{Problem, source};
use crate::prompt::PromptTokenizer;
use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The grammar of [`Form::Grounded`]: text and groundings. It is a single regular expression, so it needs an automaton but no parser, and
/// the automaton returns to the same state after each character of plain text.
///
/// A `<` is text if a number, a space or a sign follows, as in "SpO2 < 90 %" or "<5 mm". Otherwise it opens a tag.
const GROUNDED: &str = r#"
start: /({text}|<ref>{text}+<\/ref>|<box>\({n},{n}\),\({n},{n}\)<\/box>)*/
"#;
/// A character of text. The only control characters are tabulator and line breaks.
const TEXT: &str = r"([^<\x00-\x08\x0B\x0C\x0E-\x1F\x7F]|<[ =0-9.+\-])";
/// An integer from 0 to 1024 without leading zeros.
const NUMBER: &str = r"(0|[1-9][0-9]{0,2}|10[01][0-9]|102[0-4])";

/// Most tokens have no other characters than these, which are text both in groundings and in JSON strings. The library checks all these
/// tokens together instead of one by one. Each such set takes another index of the vocabulary: 15 to 40 MiB for a large one.
const SLICE: &str = r#"[^"\\<\x00-\x1F\x7F]+"#;

/// Beginning of the library's message that no token may come next.
const NO_TOKEN: &str = "NoExtensionBias";

/// Most tokens of the text that is explored when a grammar is compiled.
const MAX_EXPLORED: usize = 128;
/// Most of the library's units of work that exploring takes: as many as one mask may take.
const MAX_FUEL: u64 = 200_000;

/// Number of compiled schemas that are kept for later questions.
const MAX_SCHEMAS: usize = 8;

/// The form that an answer is constrained to.
///
/// If a limit ends an answer (number of tokens, deadline, stop text, callback), its form may be incomplete; see
/// [`Finish`](crate::Finish).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Text with well-formed groundings: each `<ref>` encloses a phrase and is closed, and each box has four integers from 0 to 1024.
    #[default]
    Grounded,
    /// JSON that conforms to this schema; see [`Question::json_schema`](crate::Question::json_schema).
    Json(String),
    /// Any text: decoding is not constrained.
    Free,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grounded => "grounded",
            Self::Json(_) => "JSON by schema",
            Self::Free => "unconstrained",
        })
    }
}

/// The grammars of answers, compiled for the vocabulary of a language model.
pub(crate) struct Grammar {
    factory: ParserFactory,
    grounded: llguidance::Matcher,
    /// The last schemas that were used, with their matchers. The latest one is at the end.
    schemas: Mutex<VecDeque<(String, llguidance::Matcher)>>,
    /// The token that ends a turn.
    end: u32,
    /// How many schemas were compiled.
    #[cfg(test)]
    pub compiled: std::sync::atomic::AtomicUsize,
}

impl Grammar {
    /// Compiles the grammar of groundings for a tokenizer and a model that has logits for `vocabulary` tokens.
    ///
    /// # Errors
    /// [`DecoderError::Grammar`] if the vocabulary is too large, or no token of it can begin an answer.
    pub fn new(tokenizer: &PromptTokenizer, vocabulary: usize) -> Result<Self, DecoderError> {
        Self::compile(vocabulary::texts(tokenizer, vocabulary), tokenizer.end_of_turn())
    }

    /// Compiles the grammar for the texts of all tokens. Tokens with an empty text are not allowed in answers.
    fn compile(texts: Vec<Vec<u8>>, end: u32) -> Result<Self, DecoderError> {
        let failed = |problem: Problem| DecoderError::Grammar { source: source(problem) };
        let tokens = vocabulary::index(texts, end).map_err(|message| failed(message.into()))?;
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &[SLICE.into()]);
        let mut factory = factory.map_err(|e| failed(first_line(&e.to_string()).into()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        let grounded = GROUNDED.replace("{text}", TEXT).replace("{n}", NUMBER);
        let grounded = compile(&factory, TopLevelGrammar::from_lark(grounded)).map_err(failed)?;
        Ok(Self {
            factory,
            grounded,
            schemas: Mutex::default(),
            end,
            #[cfg(test)]
            compiled: Default::default(),
        })
    }

    /// The automaton that constrains an answer to this form; `None` for [`Form::Free`].
    ///
    /// # Errors
    /// [`QuestionError::Schema`] if a schema cannot be used, [`RuntimeError::Threads`](crate::runtime::RuntimeError::Threads) if the system
    /// gives no thread to compile it.
    pub fn matcher(&self, form: &Form) -> crate::Result<Option<Matcher>> {
        let inner = match form {
            Form::Grounded => self.grounded.deep_clone(),
            Form::Json(schema) => self.with_schema(schema)?,
            Form::Free => return Ok(None),
        };
        Ok(Some(Matcher { inner, end: self.end, has_schema: matches!(form, Form::Json(_)) }))
    }

    /// A copy of the matcher of this schema, which is compiled unless it is one of the latest schemas.
    fn with_schema(&self, schema: &str) -> crate::Result<llguidance::Matcher> {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        let known = schemas.iter().position(|(text, _)| text == schema).and_then(|at| schemas.remove(at));
        let known = match known {
            Some(known) => known,
            None => {
                // Other callers do not wait while the schema is compiled.
                drop(schemas);
                #[cfg(test)]
                self.compiled.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let compiled = schema::compile(&self.factory, schema)?;
                schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
                (schema.to_owned(), compiled)
            }
        };
        let copy = known.1.deep_clone();
        schemas.push_back(known);
        if schemas.len() > MAX_SCHEMAS {
            schemas.pop_front();
        }
        Ok(copy)
    }
}

/// Constrains one answer to its form.
pub(crate) struct Matcher {
    inner: llguidance::Matcher,
    end: u32,
    /// Whether the form is a JSON schema.
    has_schema: bool,
}

impl Matcher {
    /// Whether a token may come next.
    ///
    /// # Errors
    /// [`DecoderError::Grammar`], or [`DecoderError::Schema`] if the form is a JSON schema, if the grammar exceeds its limits.
    pub fn allows(&mut self, token: i64) -> Result<bool, DecoderError> {
        let Ok(token) = u32::try_from(token) else { return Ok(false) };
        if self.is_over() {
            return Ok(token == self.end);
        }
        let valid = self.inner.validate_tokens(&[token]);
        Ok(valid.map_err(|error| self.failed(&error))? == 1)
    }

    /// All tokens that may come next. There is at least one.
    ///
    /// # Errors
    /// As [`Matcher::allows`].
    pub fn mask(&mut self) -> Result<SimpleVob, DecoderError> {
        let mask = self.inner.compute_mask_or_eos();
        mask.map_err(|error| self.failed(&error))
    }

    /// Appends a token to the answer.
    ///
    /// # Errors
    /// As [`Matcher::allows`], and if the token may not come next.
    pub fn accept(&mut self, token: i64) -> Result<(), DecoderError> {
        if self.is_over() {
            return Ok(());
        }
        let token = u32::try_from(token).unwrap_or(u32::MAX);
        let consumed = self.inner.consume_token(token);
        consumed.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &impl fmt::Display) -> DecoderError {
        let source = source(first_line(&error.to_string()));
        if self.has_schema { DecoderError::Schema { source } } else { DecoderError::Grammar { source } }
    }

    /// Whether only the end of the turn may come next.
    fn is_over(&self) -> bool {
        matches!(self.inner.stop_reason(), StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence)
    }
}

/// Compiles a grammar and computes the masks along one text of it. Copies of the matcher have the states that the automaton got by this.
fn compile(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<llguidance::Matcher, Problem> {
    let refused = |error: String| Problem::caused("it cannot be compiled", first_line(&error));
    let parser = factory.create_parser(grammar).map_err(|e| refused(e.to_string()))?;
    let mut matcher = llguidance::Matcher::new(Ok(parser));
    match matcher.compute_mask() {
        Ok(_) => {
            let explored = matcher.deep_clone();
            Ok(if explore(explored.clone()) { explored } else { matcher })
        }
        Err(_) if matcher.get_error().is_some_and(|e| e.starts_with(NO_TOKEN)) => Err("nothing conforms to it".into()),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Computes the masks along one text that conforms to a grammar. The automaton gets its states when they are first visited; without this,
/// each answer would compute them again while it is decoded. `walker` shares the automaton with the matcher that it was cloned from.
///
/// Returns false if a limit of the library was exceeded. That spoils the automaton for all texts, also for those that need less.
fn explore(mut walker: llguidance::Matcher) -> bool {
    let mut fuel = 0;
    for _ in 0..MAX_EXPLORED {
        let Some(token) = walker.compute_mask().ok().and_then(|mask| mask.iter().next()) else { return false };
        fuel += walker.last_step_stats().map_or(MAX_FUEL, |stats| stats.lexer_cost);
        if fuel >= MAX_FUEL {
            break;
        }
        if walker.consume_token(token).is_err() {
            return false;
        }
        if walker.is_stopped() {
            break;
        }
    }
    !walker.is_error()
}

/// The first line of a message of the library, without states and traces. A message about a regular expression quotes it before a line with
/// the error, which is appended.
fn first_line(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let error = message.lines().find_map(|line| line.strip_prefix("error: ")).filter(|_| first.ends_with(':'));
    error.map_or_else(|| first.into(), |error| format!("{first} {error}"))
}

#[cfg(test)]
mod tests;
