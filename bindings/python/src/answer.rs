//! Answers.

use crate::overlay;
use crate::records;
use crate::waiting::run;
use anatomix::output::{AskRecord, Overlay};
use anatomix::{Radiograph, Task};
use numpy::{PyArray1, PyArray3};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::Arc;

/// An answer of the language model.
#[pyclass(frozen, module = "anatomix")]
pub struct Answer {
    pub answer: anatomix::Answer,
    /// `None` if the study was loaded.
    pub radiograph: Option<Arc<Radiograph>>,
}

#[pymethods]
impl Answer {
    /// The question as it was put to the model, with boxes in pixels.
    #[getter]
    fn question(&self) -> &str {
        &self.answer.question
    }

    /// The question's task, if one was given.
    #[getter]
    fn task(&self) -> Option<&'static str> {
        self.answer.task.map(Task::name)
    }

    /// The answer without tags and coordinates.
    #[getter]
    fn text(&self) -> &str {
        &self.answer.text
    }

    /// The answer as the model wrote it, with tags, and with boxes on a grid of 0..=1024 over the letterboxed square, not in pixels.
    #[getter]
    fn raw(&self) -> &str {
        &self.answer.raw
    }

    /// Phrases of the answer with their boxes in pixels of the original image: a tuple of Grounding.
    #[getter]
    fn groundings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        records::groundings(py, &self.answer.groundings)
    }

    /// Where each sentence of the text comes from: a tuple of Evidence; empty for an answer in JSON.
    #[getter]
    fn evidence<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        records::evidence(py, &self.answer)
    }

    /// Number of tokens that were prefilled: those of the question, and those of the context if it was not yet in the KV cache.
    #[getter]
    fn prefilled(&self) -> usize {
        self.answer.prefilled
    }

    /// Number of tokens that were decoded.
    #[getter]
    fn tokens(&self) -> usize {
        self.answer.tokens
    }

    /// Number of decoder runs for these tokens. It is below `tokens` if draft tokens were accepted.
    #[getter]
    fn runs(&self) -> usize {
        self.answer.runs
    }

    /// Natural logarithm of each decoded token's probability under the model, float32 [tokens]; empty unless the question asks for it.
    #[getter]
    fn log_probabilities<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, &self.answer.log_probabilities)
    }

    /// Why the answer ended: "end_of_turn", "max_tokens", "stopped", "stop_text", "deadline" or "memory".
    #[getter]
    fn finish(&self) -> &'static str {
        self.answer.finish.name()
    }

    /// Flags of the study: a tuple of Flag.
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        records::flags(py, &self.answer.flags)
    }

    /// Versions, settings and hashes that the answer depends on, by name.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        records::parsed(py, &self.answer.provenance)
    }

    /// Milliseconds for "prefill", "decode" and "total".
    #[getter]
    fn timing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        records::parsed(py, &self.answer.timing)
    }

    /// The answer as a dictionary, the same as the JSON of ``anatomix ask --json``.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        records::parsed(py, &AskRecord::from(&self.answer))
    }

    /// A dictionary for each box of the answer, with the keys question, phrase, x0, y0, x1, y1: rows for ``pandas.DataFrame``.
    fn table<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("anatomix._tables")?.call_method1("of_answer", (slf,))
    }

    /// The radiograph with the answer's boxes, each labelled with its phrase: uint8 [height, width, 3], red, green, blue.
    ///
    /// Raises ValueError if the study was loaded from bytes, which do not hold the radiograph.
    fn overlay<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<u8>>> {
        overlay::array(py, &self.drawing(py)?)
    }

    /// The overlay as the bytes of a PNG file.
    fn overlay_png<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        overlay::png(py, &self.drawing(py)?)
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("anatomix._notebook")?.call_method1("of_answer", (slf, slf.get().radiograph.is_some()))
    }

    fn __str__(&self) -> &str {
        &self.answer.text
    }

    fn __repr__(&self) -> String {
        format!("<anatomix.Answer {:?}, {} groundings, {}>", self.answer.text, self.answer.groundings.len(), self.answer.finish.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("an answer cannot be pickled; pass answer.to_dict()"))
    }
}

impl Answer {
    fn drawing(&self, py: Python<'_>) -> PyResult<Overlay> {
        let radiograph = self.radiograph.as_ref().ok_or_else(without_radiograph)?;
        run(py, || {}, || Ok(Overlay::of_answer(&self.answer, radiograph)?))
    }
}

/// A study that was loaded has no radiograph to draw.
pub fn without_radiograph() -> PyErr {
    PyValueError::new_err("a loaded study does not hold its radiograph, so there is nothing to draw on; perceive the radiograph again")
}
