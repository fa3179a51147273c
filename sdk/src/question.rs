//! Questions to a study, and their decoding options.

use crate::decoder::{Form, Sampling};
use crate::task::Task;
use std::time::Duration;

/// Default limit on the tokens of an answer.
pub(crate) const DEFAULT_MAX_TOKENS: usize = 512;

/// A question to a study, with decoding options.
///
/// ```
/// use anatomix::{Question, Task};
/// let question = Question::new("left pleural effusion").task(Task::PhraseGrounding).max_tokens(64);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Question {
    /// The question. Boxes are written `<box>(x0,y0),(x1,y1)</box>`, in pixels of the original image. The text is empty if the task has an
    /// instruction ([`Task::instruction`]): a question beside that is an error.
    pub text: String,
    /// The task. If it is given, a text that is only a phrase or box is put into the task's wording ([`Task::question`]).
    pub task: Option<Task>,
    /// Largest number of tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen; greedy by default.
    pub sampling: Sampling,
    /// Stop texts: the answer ends before the first occurrence of any of them. Empty ones are ignored.
    pub stop: Vec<String>,
    /// Time after which the answer ends with the tokens decoded so far.
    pub deadline: Option<Duration>,
    /// Whether the answer holds the log probability of each token.
    pub log_probabilities: bool,
    /// The form that constrained decoding enforces; by default, well-formed groundings.
    pub form: Form,
    /// Whether the earlier questions and answers of the study's conversation are part of the prompt.
    pub follow_up: bool,
    /// Whether the question is answered even if the radiograph is flagged as not a chest, not frontal or not for display.
    pub accept_flags: bool,
}

impl Question {
    /// Makes a question with default options.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            task: None,
            max_tokens: DEFAULT_MAX_TOKENS,
            sampling: Sampling::default(),
            stop: Vec::new(),
            deadline: None,
            log_probabilities: false,
            form: Form::default(),
            follow_up: false,
            accept_flags: false,
        }
    }

    /// Sets the task.
    #[must_use]
    pub fn task(self, task: Task) -> Self {
        Self { task: Some(task), ..self }
    }

    /// Sets the largest number of tokens of the answer.
    #[must_use]
    pub fn max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Sets how tokens are chosen.
    #[must_use]
    pub fn sampling(self, sampling: Sampling) -> Self {
        Self { sampling, ..self }
    }

    /// Adds a stop text.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Sets the time after which the answer ends, counted from the call that asks the question. If it passes during prefill, the answer is
    /// empty.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        Self { deadline: Some(time), ..self }
    }

    /// Asks for the log probability of each token.
    #[must_use]
    pub fn log_probabilities(self) -> Self {
        Self { log_probabilities: true, ..self }
    }

    /// Constrains the answer to JSON that conforms to this JSON schema, which has at most 65,536 bytes.
    ///
    /// [`Answer::text`](crate::Answer::text) is then the JSON, complete unless a limit ends it. So give strings, arrays and numbers a
    /// maximum length in the schema, or a model that is unsure may not come to an end. The JSON has a space after each `,` and `:` and
    /// no other white space between values, and properties in the order of the schema. Boxes in it are on the prompt's grid of 0..=1024,
    /// unlike groundings. The schema is not part of the prompt, so the question must say what the answer should contain.
    ///
    /// Numbers in the schema are at most 2^53 - 1 in magnitude, and the values of `multipleOf` have a common multiple of at most 65,535 (in
    /// units of their last decimal place); others would be rounded, or take too much memory. So would many patterns that one text has to
    /// match at once (through `allOf` and the like): such a schema is refused, and one pattern that joins them is not.
    ///
    /// A schema that cannot be used is the error [`QuestionError::Schema`](crate::error::QuestionError::Schema) when the question is asked,
    /// before anything is computed.
    ///
    /// ```
    /// use anatomix::Question;
    /// let schema = r#"{"type": "object", "properties": {"effusion": {"enum": ["none", "left", "right", "both"]}},
    ///                  "required": ["effusion"]}"#;
    /// let question = Question::new("Is there a pleural effusion, and where?").json_schema(schema);
    /// ```
    #[must_use]
    pub fn json_schema(self, schema: impl Into<String>) -> Self {
        Self { form: Form::Json(schema.into()), ..self }
    }

    /// Turns constrained decoding off: the answer may have unclosed tags, malformed boxes and control tokens.
    #[must_use]
    pub fn unconstrained(self) -> Self {
        Self { form: Form::Free, ..self }
    }

    /// Continues the study's conversation: the earlier questions and answers are part of the prompt.
    #[must_use]
    pub fn follow_up(self) -> Self {
        Self { follow_up: true, ..self }
    }

    /// Accepts a radiograph that is flagged as not a chest, not frontal or not for display; see [`FlagCode::must_be_accepted`]. Without
    /// this, a question on such a radiograph is the error [`FlaggedError`] when it is asked, before anything is computed.
    ///
    /// [`FlagCode::must_be_accepted`]: crate::FlagCode::must_be_accepted
    /// [`FlaggedError`]: crate::error::FlaggedError
    #[must_use]
    pub fn accept_flags(self) -> Self {
        Self { accept_flags: true, ..self }
    }

    /// The text of the question in the wording of its task, with boxes in pixels.
    pub(crate) fn full_text(&self) -> String {
        self.task.map_or_else(|| self.text.trim().to_string(), |task| task.question(&self.text))
    }

    /// The decoding options, as the provenance of the answer has them. `look_up` says whether the engine uses prompt look-up.
    pub(crate) fn settings(&self, look_up: bool) -> String {
        let Self { sampling, form, max_tokens, .. } = self;
        let mut settings = format!("{sampling}, {form}, max_tokens {max_tokens}");
        if !self.stop.is_empty() {
            settings += &format!(", stop {:?}", self.stop);
        }
        if let Some(deadline) = self.deadline {
            settings += &format!(", deadline {} ms", deadline.as_millis());
        }
        settings + if look_up { ", look_up on" } else { ", look_up off" }
    }
}

impl Default for Question {
    /// An empty question with default options.
    fn default() -> Self {
        Self::new("")
    }
}

impl From<&str> for Question {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Question {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Task> for Question {
    fn from(task: Task) -> Self {
        Self::new("").task(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_hold_all_that_repeating_an_answer_takes() {
        assert_eq!(Question::default().settings(true), "greedy, grounded, max_tokens 512, look_up on");
        let sampling = Sampling { temperature: 0.5, top_k: 3, seed: 7, repetition_penalty: 1.5, ..Sampling::default() };
        let question = Question::new("x").sampling(sampling).max_tokens(9).stop("a, b").stop("\n").deadline(Duration::from_millis(1500));
        let expected = "sampled, temperature 0.5, top_k 3, top_p 1, seed 7, repetition_penalty 1.5, unconstrained, max_tokens 9, \
                        stop [\"a, b\", \"\\n\"], deadline 1500 ms, look_up off";
        assert_eq!(question.unconstrained().settings(false), expected);
    }
}
