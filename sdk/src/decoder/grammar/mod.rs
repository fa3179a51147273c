//! What form an answer keeps: a grammar over tokens (llguidance) says at each place which of them may follow.
//!
//! It is about text, not about tokens: tags count as their text, however it is split, so what holds here holds for whoever reads
//! the answer. A grammar guarantees form, never truth.

mod schema;
mod vocabulary;

use super::error::{DecoderError, QuestionError};
use crate::cause::{Problem, source};
use crate::prompt::PromptTokenizer;
use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Answers in [`Form::Grounded`]: text and groundings. It is one regular expression, so that no parser is needed beside the
/// automaton, and the automaton is back where it was after each character of plain text.
///
/// A `<` is text where a number, a space or a sign follows, as in "SpO2 < 90 %" or "<5 mm"; else it opens a tag.
const GROUNDED: &str = r#"
start: /({text}|<ref>{text}+<\/ref>|<box>\({n},{n}\),\({n},{n}\)<\/box>)*/
"#;
/// A character of text: no control characters but tabulator and line breaks.
const TEXT: &str = r"([^<\x00-\x08\x0B\x0C\x0E-\x1F\x7F]|<[ =0-9.+\-])";
/// 0 to 1024, without leading zeros.
const NUMBER: &str = r"(0|[1-9][0-9]{0,2}|10[01][0-9]|102[0-4])";

/// Tokens of these characters alone, which are most, are allowed or refused as one instead of one by one: they are text in
/// groundings, and text in JSON. Each such set costs memory for another index of the vocabulary, 15 to 40 MiB for a large one.
const SLICE: &str = r#"[^"\\<\x00-\x1F\x7F]+"#;

/// How the library says that no token may come next.
const NOTHING: &str = "NoExtensionBias";

/// So many compiled schemas are kept for questions to come.
const SCHEMAS: usize = 8;

/// What form an answer keeps.
///
/// A limit that cuts an answer (tokens, time, a stop text, the listener) may cut its form too; [`Finish`](crate::Finish) tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Text in which every `<ref>` is closed around a phrase and every box is four integers from 0 to 1024.
    #[default]
    Grounded,
    /// JSON that meets this schema, see [`Question::json_schema`](crate::Question::json_schema).
    Json(String),
    /// Whatever the model says.
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

/// The grammars of a language model's answers, compiled for its tokens.
pub(crate) struct Grammar {
    factory: ParserFactory,
    grounded: llguidance::Matcher,
    /// Those asked for last, the latest at the end.
    schemas: Mutex<VecDeque<(String, llguidance::Matcher)>>,
    end: u32,
    /// How many schemas were compiled.
    #[cfg(test)]
    pub compiled: std::sync::atomic::AtomicUsize,
}

impl Grammar {
    /// For a tokenizer, and a model with logits for so many tokens.
    ///
    /// # Errors
    /// [`DecoderError::Grammar`] if the vocabulary is too large or lacks what tags are made of.
    pub fn new(tokenizer: &PromptTokenizer, vocabulary: usize) -> Result<Self, DecoderError> {
        Self::over(vocabulary::of(tokenizer, vocabulary), tokenizer.end_of_turn())
    }

    /// Over the text of each token, nothing for those that no answer may hold.
    fn over(texts: Vec<Vec<u8>>, end: u32) -> Result<Self, DecoderError> {
        let failed = |problem: Problem| DecoderError::Grammar { source: source(problem) };
        let tokens = vocabulary::index(texts, end).map_err(|message| failed(message.into()))?;
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &[SLICE.into()]);
        let mut factory = factory.map_err(|e| failed(in_a_line(&e.to_string()).into()))?;
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
    /// [`QuestionError::Schema`] if a schema cannot be used.
    pub fn matcher(&self, form: &Form) -> Result<Option<Matcher>, QuestionError> {
        let inner = match form {
            Form::Grounded => self.grounded.deep_clone(),
            Form::Json(schema) => self.with_schema(schema)?,
            Form::Free => return Ok(None),
        };
        Ok(Some(Matcher { inner, end: self.end }))
    }

    /// A copy of the matcher of this schema, which is compiled unless it is one of the latest schemas.
    fn with_schema(&self, schema: &str) -> Result<llguidance::Matcher, QuestionError> {
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
        if schemas.len() > SCHEMAS {
            schemas.pop_front();
        }
        Ok(copy)
    }
}

/// Holds one answer to its form.
pub(crate) struct Matcher {
    inner: llguidance::Matcher,
    end: u32,
}

impl Matcher {
    /// Whether a token may come next.
    ///
    /// # Errors
    /// [`DecoderError::Grammar`] if the grammar takes too much to follow.
    pub fn allows(&mut self, token: i64) -> Result<bool, DecoderError> {
        let Ok(token) = u32::try_from(token) else { return Ok(false) };
        if self.is_over() {
            return Ok(token == self.end);
        }
        Ok(self.inner.validate_tokens(&[token]).map_err(failed)? == 1)
    }

    /// All tokens that may come next: one at least.
    ///
    /// # Errors
    /// As [`Matcher::allows`].
    pub fn mask(&mut self) -> Result<SimpleVob, DecoderError> {
        self.inner.compute_mask_or_eos().map_err(failed)
    }

    /// Goes on behind a token.
    ///
    /// # Errors
    /// As [`Matcher::allows`], and if the token may not come next.
    pub fn accept(&mut self, token: i64) -> Result<(), DecoderError> {
        if self.is_over() {
            return Ok(());
        }
        let token = u32::try_from(token).unwrap_or(u32::MAX);
        self.inner.consume_token(token).map_err(failed)
    }

    /// Whether nothing but the end of the turn may come next.
    fn is_over(&self) -> bool {
        matches!(self.inner.stop_reason(), StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence)
    }
}

/// A grammar at its beginning, with the mask there, which copies have too.
fn compile(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<llguidance::Matcher, Problem> {
    let refused = |error: String| Problem::caused("it cannot be compiled", in_a_line(&error));
    let parser = factory.create_parser(grammar).map_err(|e| refused(e.to_string()))?;
    let mut matcher = llguidance::Matcher::new(Ok(parser));
    match matcher.compute_mask() {
        Ok(_) => Ok(matcher),
        Err(_) if matcher.get_error().is_some_and(|e| e.starts_with(NOTHING)) => Err("nothing meets it".into()),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn failed(error: impl fmt::Display) -> DecoderError {
    DecoderError::Grammar { source: source(in_a_line(&error.to_string())) }
}

/// The library's messages without its states and traces; those about regular expressions draw a picture before they tell.
fn in_a_line(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let told = message.lines().find_map(|line| line.strip_prefix("error: ")).filter(|_| first.ends_with(':'));
    told.map_or_else(|| first.into(), |told| format!("{first} {told}"))
}

#[cfg(test)]
mod tests;
