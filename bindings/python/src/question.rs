//! Questions with their decoding options.

use anatomix::{Form, Sampling, Task};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::time::Duration;

/// A question to a study, with decoding options.
///
/// text: boxes in it are written ``<box>(x0,y0),(x1,y1)</box>``, in pixels of the original image. It may be empty if the task has an
/// instruction: report, classification, abnormality_detection.
/// task: one of ``anatomix.TASKS``. A text that is only a phrase or box is put into the task's wording.
/// max_tokens: largest number of tokens of the answer.
/// temperature: 0 to 100. 0 takes the most likely token, 1 draws by the model's probabilities.
/// top_k: samples among this number of the most likely tokens; 0 means all.
/// top_p: samples among the fewest most likely tokens whose probabilities add up to this, above 0 and at most 1.
/// repetition_penalty: makes tokens that are in the answer less likely, 0.01 to 100; 1 changes nothing.
/// seed: equal seeds give equal answers.
/// stop: a text, or several, before which the answer ends.
/// deadline: seconds after which the answer ends with the tokens decoded so far.
/// log_probabilities: whether the answer holds the log probability of each token.
/// json_schema: a JSON schema, as text or as a dictionary, to which the answer's text conforms.
/// unconstrained: whether tags may stay unclosed and boxes be malformed.
/// follow_up: whether the earlier questions and answers of the conversation are part of the prompt.
/// accept_flags: whether the question is answered even if the radiograph is flagged not_chest, not_frontal or for_processing.
#[pyclass(frozen, module = "anatomix")]
pub struct Question(pub anatomix::Question);

#[pymethods]
impl Question {
    #[new]
    #[pyo3(signature = (text = "", *, task = None, max_tokens = None, temperature = 0.0, top_k = 0, top_p = 1.0, repetition_penalty = 1.0,
                        seed = 0, stop = None, deadline = None, log_probabilities = false, json_schema = None, unconstrained = false,
                        follow_up = false, accept_flags = false))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        text: &str,
        task: Option<&str>,
        max_tokens: Option<usize>,
        temperature: f32,
        top_k: usize,
        top_p: f32,
        repetition_penalty: f32,
        seed: u64,
        stop: Option<StopTexts>,
        deadline: Option<f64>,
        log_probabilities: bool,
        json_schema: Option<&Bound<'_, PyAny>>,
        unconstrained: bool,
        follow_up: bool,
        accept_flags: bool,
    ) -> PyResult<Self> {
        let mut question = anatomix::Question::new(text);
        question.task = task.map(known_task).transpose()?;
        question.max_tokens = match max_tokens {
            Some(0) => return Err(PyValueError::new_err("max_tokens is 0; pass at least 1")),
            given => given.unwrap_or(question.max_tokens),
        };
        question.sampling = Sampling { temperature, top_k, top_p, repetition_penalty, seed };
        question.stop = stop.map_or_else(Vec::new, |StopTexts(texts)| texts);
        question.deadline = deadline.map(seconds).transpose()?;
        question.log_probabilities = log_probabilities;
        question.follow_up = follow_up;
        question.accept_flags = accept_flags;
        question.form = match (json_schema, unconstrained) {
            (Some(_), true) => return Err(PyValueError::new_err("an answer that is unconstrained has no json_schema; pass one of them")),
            (Some(schema), false) => Form::Json(schema_text(schema)?),
            (None, true) => Form::Free,
            (None, false) => question.form,
        };
        Ok(Self(question))
    }

    /// The text.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// The task, if one was given.
    #[getter]
    fn task(&self) -> Option<&'static str> {
        self.0.task.map(Task::name)
    }

    fn __repr__(&self) -> String {
        let task = self.0.task.map_or_else(String::new, |task| format!(", task={:?}", task.name()));
        format!("anatomix.Question({:?}{task})", self.0.text)
    }
}

impl Question {
    /// The question of an argument: a `Question`, or a text with options.
    ///
    /// # Errors
    /// If it is neither, or an option is unknown or out of range.
    pub fn of(question: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<anatomix::Question> {
        if let Ok(question) = question.cast::<Self>() {
            return match options {
                Some(options) if !options.is_empty() => Err(PyTypeError::new_err("a Question has its options already; give them to it")),
                _ => Ok(question.get().0.clone()),
            };
        }
        if !question.is_instance_of::<PyString>() {
            let found = question.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "a question is a text or a Question, not {found}; for a task alone pass task=\"report\""
            )));
        }
        let made = question.py().get_type::<Self>().call((question,), options)?;
        Ok(made.cast::<Self>()?.get().0.clone())
    }
}

/// Stop texts: one, or several.
struct StopTexts(Vec<String>);

impl<'py> FromPyObject<'_, 'py> for StopTexts {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.extract() {
            return Ok(Self(vec![text]));
        }
        object.extract().map(Self).map_err(|_| PyTypeError::new_err("stop is a text, or a list of texts, before which the answer ends"))
    }
}

fn known_task(name: &str) -> PyResult<Task> {
    Task::from_name(name).ok_or_else(|| {
        let known = Task::ALL.map(Task::name).join(", ");
        PyValueError::new_err(format!("{name:?} is not a task; choose one of {known}"))
    })
}

/// The JSON schema as text.
fn schema_text(schema: &Bound<'_, PyAny>) -> PyResult<String> {
    match schema.extract() {
        Ok(text) => Ok(text),
        Err(_) => schema.py().import("json")?.call_method1("dumps", (schema,))?.extract(),
    }
}

/// A time of an option.
///
/// # Errors
/// `ValueError` if it is negative, no number or beyond what can be represented.
pub fn seconds(deadline: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(deadline)
        .map_err(|_| PyValueError::new_err(format!("deadline is {deadline}; pass the number of seconds, 0 or more, or None for no limit")))
}
