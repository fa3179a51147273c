//! What can be asked of a study, and how it is to be answered.

use crate::decoder::{Form, Sampling};
use crate::task::Task;
use std::time::Duration;

/// Longest answer in tokens where a question does not say.
pub(crate) const MAX_TOKENS: usize = 512;

/// A question to a study.
///
/// ```
/// use anatomix::{Question, Task};
/// let question = Question::new("left pleural effusion").task(Task::PhraseGrounding).max_tokens(64);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Question {
    /// The question; may be empty where the task has an instruction of its own. Boxes in it are
    /// `<box>(x0,y0),(x1,y1)</box>` in pixels of the original image.
    pub text: String,
    /// Its task, where known: a bare phrase or box is then put into the task's words.
    pub task: Option<Task>,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// How tokens are chosen; greedily by default.
    pub sampling: Sampling,
    /// The answer ends before the first of these that it would hold; empty ones are left out of account.
    pub stop: Vec<String>,
    /// The answer ends, as far as it has come, when this time is over.
    pub deadline: Option<Duration>,
    /// Whether the answer tells how probable each of its tokens was.
    pub log_probabilities: bool,
    /// What form the answer keeps; by default its groundings are well formed.
    pub form: Form,
    /// Whether it continues the study's conversation; otherwise it is asked of the radiograph alone.
    pub follow_up: bool,
    /// Whether it is asked even of a radiograph that is flagged as none the model was made for.
    pub accept_flags: bool,
}

impl Question {
    /// A question in the user's words.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            task: None,
            max_tokens: MAX_TOKENS,
            sampling: Sampling::default(),
            stop: Vec::new(),
            deadline: None,
            log_probabilities: false,
            form: Form::default(),
            follow_up: false,
            accept_flags: false,
        }
    }

    /// Names its task.
    #[must_use]
    pub fn task(self, task: Task) -> Self {
        Self { task: Some(task), ..self }
    }

    /// Limits the answer.
    #[must_use]
    pub fn max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Draws tokens by likelihood.
    #[must_use]
    pub fn sampling(self, sampling: Sampling) -> Self {
        Self { sampling, ..self }
    }

    /// Ends the answer before this text.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Ends the answer this long after it was asked for, even while the context is computed: it is empty then.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        Self { deadline: Some(time), ..self }
    }

    /// Asks for the probability of each token.
    #[must_use]
    pub fn log_probabilities(self) -> Self {
        Self { log_probabilities: true, ..self }
    }

    /// Asks for JSON that meets this schema, of at most 65,536 bytes. It is compact but for a space behind `,` and `:`; properties
    /// come in the schema's order. [`Answer::text`](crate::Answer::text) is the JSON itself, whole unless a limit cuts it: bound
    /// strings, arrays and numbers, so that an unsure model comes to an end. Boxes in it are on the prompt's grid of 1024, unlike
    /// groundings. The model does not see the schema, so say in words what is wanted.
    ///
    /// Asking fails with [`DecoderError::Schema`](crate::DecoderError::Schema), before anything is computed, if the schema cannot be
    /// used.
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

    /// Lets the model say whatever it says: tags may stay open, boxes may be none, and control tokens may appear.
    #[must_use]
    pub fn unconstrained(self) -> Self {
        Self { form: Form::Free, ..self }
    }

    /// Continues the study's conversation: the model sees the questions and answers before it.
    #[must_use]
    pub fn follow_up(self) -> Self {
        Self { follow_up: true, ..self }
    }

    /// Asks even where the radiograph is flagged as no chest or not frontal; see [`FlagCode::withholds_answers`]. Without it such a
    /// question fails with [`FlaggedError`] before anything is computed.
    ///
    /// [`FlagCode::withholds_answers`]: crate::FlagCode::withholds_answers
    /// [`FlaggedError`]: crate::FlaggedError
    #[must_use]
    pub fn accept_flags(self) -> Self {
        Self { accept_flags: true, ..self }
    }

    /// The question as the model is asked it, boxes still in pixels.
    pub(crate) fn words(&self) -> String {
        self.task.map_or_else(|| self.text.trim().to_string(), |task| task.question(&self.text))
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
