//! Studies, and the questions to them.

use crate::answer::{Answer, without_radiograph};
use crate::cancel::CancelHandle;
use crate::errors::{Failure, poisoned};
use crate::overlay;
use crate::question::Question;
use crate::records;
use crate::report::{Document, Report};
use crate::stream::Stream;
use crate::waiting::{check, run};
use anatomix::output::{Overlay, PerceiveRecord};
use anatomix::{Flag, LabelScore, Provenance, Radiograph, STRUCTURE_COUNT, StructureResult};
use numpy::ndarray::Array2;
use numpy::{PyArray2, PyArray3};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A study: one radiograph with the structures that were found in it, which can be asked any number of questions.
///
/// The first question prefills the context, which stays in the KV cache; each further question costs its own tokens only. Threads may
/// share a study: its questions are answered one after the other. To answer in parallel, make a study for each thread. A study holds its
/// radiograph, for overlays.
#[pyclass(frozen, module = "anatomix")]
pub struct Study {
    study: Arc<Mutex<anatomix::Study>>,
    radiograph: Option<Arc<Radiograph>>,
    cancel: anatomix::CancelHandle,
    // What can be read while a question is answered.
    record: PerceiveRecord,
    found: Vec<StructureResult>,
    labels: Vec<LabelScore>,
    embeddings: Vec<f32>,
    structures: PyOnceLock<Py<PyTuple>>,
}

impl Study {
    pub fn new(study: anatomix::Study, radiograph: Option<Arc<Radiograph>>) -> Self {
        Self {
            radiograph,
            cancel: study.cancel_handle(),
            record: PerceiveRecord::from(&study),
            found: study.structures().to_vec(),
            labels: study.labels().to_vec(),
            embeddings: study.perception().object_embeddings.clone(),
            structures: PyOnceLock::new(),
            study: Arc::new(Mutex::new(study)),
        }
    }

    /// The study, when no other call uses it.
    fn lock(&self) -> Result<MutexGuard<'_, anatomix::Study>, Failure> {
        self.study.lock().map_err(poisoned)
    }

    /// Runs a call on the study, which Ctrl-C stops.
    fn call<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut anatomix::Study) -> Result<T, Failure> + Send) -> PyResult<T> {
        let interrupted = AtomicBool::new(false);
        let stop = || {
            interrupted.store(true, Ordering::SeqCst);
            self.cancel.cancel();
        };
        let outcome = run(py, stop, || work(&mut *self.lock()?));
        if interrupted.into_inner() {
            // The request may have come after the call's end. It is not meant for the next call.
            self.cancel.reset();
        }
        outcome
    }

    fn answer(&self, answer: anatomix::Answer) -> Answer {
        Answer { answer, radiograph: self.radiograph.clone() }
    }

    fn drawing(&self, py: Python<'_>) -> PyResult<Overlay> {
        let radiograph = self.radiograph.as_ref().ok_or_else(without_radiograph)?;
        self.call(py, |study| Ok(Overlay::of_study(study, radiograph)?))
    }
}

#[pymethods]
impl Study {
    /// The radiograph's path, or the name that it was given.
    #[getter]
    fn name(&self) -> &str {
        &self.record.image
    }

    /// Width of the original image in pixels.
    #[getter]
    fn width(&self) -> u32 {
        self.record.width
    }

    /// Height of the original image in pixels.
    #[getter]
    fn height(&self) -> u32 {
        self.record.height
    }

    /// The 36 structures in index order: a tuple of Structure, with boxes in pixels of the original image.
    #[getter]
    fn structures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let made = self.structures.get_or_try_init(py, || records::structures(py, &self.found).map(Bound::unbind))?;
        Ok(made.bind(py).clone())
    }

    /// Scores of the 14 image labels by name, 0..1, in index order. They are not calibrated.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let labels = PyDict::new(py);
        self.labels.iter().try_for_each(|one| labels.set_item(one.label.name(), one.score))?;
        Ok(labels)
    }

    /// Reasons not to trust this study: a tuple of Flag.
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let flags: &[Flag] = &self.record.flags;
        records::flags(py, flags)
    }

    /// Versions, settings and hashes that the results depend on, by name.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let provenance: &Provenance = &self.record.provenance;
        records::parsed(py, provenance)
    }

    /// Milliseconds for "preprocess", "perceive" and "retrieve"; empty for a loaded study.
    #[getter]
    fn timing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        records::parsed(py, &self.record.timing_ms)
    }

    /// The boxes of the structures, float32 [36, 4]: x0, y0, x1, y1 in pixels of the original image, origin at its top-left corner.
    #[getter]
    fn boxes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let corners = self.found.iter().flat_map(|found| <[f32; 4]>::from(found.bounds)).collect();
        matrix(py, corners)
    }

    /// The object embeddings of the structures, float32 [36, width], before normalisation.
    #[getter]
    fn object_embeddings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        matrix(py, self.embeddings.clone())
    }

    /// Asks a question, or sets a task: ``study.ask("Where is the left lung?")``, ``study.ask(task="report")``.
    ///
    /// question: a text, whose options are keywords (see Question), or a Question. A question that is not a follow-up begins a new
    /// conversation.
    ///
    /// Raises QuestionError, FlaggedError or DecoderError. After Ctrl-C, KeyboardInterrupt is raised when the current run of the decoder
    /// has ended; the study can be asked again.
    #[pyo3(signature = (question = None, **options))]
    fn ask(&self, py: Python<'_>, question: Option<&Bound<'_, PyAny>>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Answer> {
        let question = text_or_question(py, question, options)?;
        let answer = self.call(py, |study| Ok(study.ask(question)?))?;
        Ok(self.answer(answer))
    }

    /// Asks a question as `ask` does, and returns an iterator over the pieces of the answer's text, which add up to it:
    ///
    ///     stream = study.stream("Where is the left lung?")
    ///     for piece in stream:
    ///         print(piece, end="", flush=True)
    ///     stream.answer.groundings
    ///
    /// The answer is decoded while the pieces are used. It is stopped when the iterator is deleted.
    ///
    /// Raises TypeError or ValueError for options that are wrong; what `ask` raises otherwise is raised by the iterator.
    #[pyo3(signature = (question = None, **options))]
    fn stream(&self, py: Python<'_>, question: Option<&Bound<'_, PyAny>>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Stream> {
        check()?;
        let question = text_or_question(py, question, options)?;
        Stream::start(py, Arc::clone(&self.study), self.cancel.clone(), question, self.radiograph.clone())
    }

    /// Asks several questions at once. Their answers are decoded together, in less time than one by one; they are those that the questions
    /// get one by one.
    ///
    /// questions: texts and Questions. Keywords are options of the texts. Either all are follow-ups, or none is.
    ///
    /// Raises what `ask` raises, if any of the questions fails.
    #[pyo3(signature = (questions, **options))]
    fn ask_many(&self, py: Python<'_>, questions: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<Answer>> {
        if questions.is_instance_of::<pyo3::types::PyString>() {
            return Err(PyTypeError::new_err("questions are a list of texts or Questions; ask takes a single one"));
        }
        let questions = questions.try_iter()?.map(|question| {
            let question = question?;
            let options = if question.is_instance_of::<Question>() { None } else { options };
            Question::of(&question, options)
        });
        let questions = questions.collect::<PyResult<Vec<_>>>()?;
        let answers = self.call(py, |study| Ok(study.ask_many(questions)?))?;
        Ok(answers.into_iter().map(|answer| self.answer(answer)).collect())
    }

    /// Stops the answer that is being decoded, from another thread. If there is none, the next one ends at once.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// A handle that stops the answer that is being decoded, or else the next one.
    fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(self.cancel.clone())
    }

    /// Number of turns in the conversation: the last question that was not a follow-up, and the follow-ups after it.
    #[getter]
    fn turns(&self, py: Python<'_>) -> PyResult<usize> {
        self.call(py, |study| Ok(study.turns()))
    }

    /// Bytes that the KV cache of this study takes for its context and `tokens` tokens after it: those of the questions and answers of its
    /// conversation, or of all questions of one `ask_many` with their answers. Without a memory limit a cache that has to grow takes up to
    /// a quarter more.
    fn cache_bytes(&self, py: Python<'_>, tokens: usize) -> PyResult<u64> {
        self.call(py, |study| Ok(study.cache_bytes(tokens)))
    }

    /// Removes all turns of the conversation after the first `turns`. The next follow-up continues from there.
    fn rewind(&self, py: Python<'_>, turns: usize) -> PyResult<()> {
        self.call(py, |study| {
            study.rewind(turns);
            Ok(())
        })
    }

    /// The study as bytes, for ``Engine.load_study``. If the context is not yet in the KV cache, it is prefilled first. Turns of the
    /// conversation and the radiograph are not saved.
    ///
    /// Raises StoppedError if `cancel` stops the prefill, DecoderError if memory lacks.
    fn save_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.call(py, |study| Ok(study.save()?))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A DICOM structured report of this study, as the bytes of a file that belongs to the radiograph's DICOM study: a region for each
    /// structure and each box of the answers, questions and answers, flags and scores. It holds patient data. Equal results give equal
    /// bytes.
    ///
    /// answers: answers of this study.
    /// content_time: when the results were made, a datetime or a text YYYYMMDDhhmmss; by default the time of the radiograph.
    /// comprehensive_sr: whether it is a Comprehensive SR, for viewers that do not know Comprehensive 3D SR.
    ///
    /// Raises OutputError if the radiograph is not a DICOM file, or its header lacks what identifies patient, study or image.
    #[pyo3(signature = (answers = Vec::new(), *, content_time = None, comprehensive_sr = false))]
    fn structured_report<'py>(
        &self,
        py: Python<'py>,
        answers: Vec<Bound<'py, Answer>>,
        content_time: Option<&Bound<'py, PyAny>>,
        comprehensive_sr: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let report = Report::new(&answers, content_time, comprehensive_sr)?;
        let bytes = self.call(py, |study| report.of(study))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A DICOM presentation state of this study: the boxes of structures and answers with their labels, which viewers draw over the
    /// radiograph. The bytes of a file that belongs to the radiograph's DICOM study. Equal results give equal bytes.
    ///
    /// answers: answers of this study.
    /// content_time: when the results were made, a datetime or a text YYYYMMDDhhmmss; by default the time of the radiograph.
    ///
    /// Raises OutputError if the radiograph is not a DICOM file, or its header lacks what identifies patient, study or image.
    #[pyo3(signature = (answers = Vec::new(), *, content_time = None))]
    fn presentation_state<'py>(
        &self,
        py: Python<'py>,
        answers: Vec<Bound<'py, Answer>>,
        content_time: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let document = Document::new(&answers, content_time)?;
        let bytes = self.call(py, |study| document.presentation_state(study))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A DICOM secondary capture of this study: the overlay of the study, or of an answer, as an image that every viewer shows. The bytes
    /// of a file that belongs to the radiograph's DICOM study. Equal results give equal bytes.
    ///
    /// answer: an answer of this study.
    /// content_time: when the results were made, a datetime or a text YYYYMMDDhhmmss; by default the time of the radiograph.
    ///
    /// Raises ValueError if the study was loaded from bytes, which do not hold the radiograph; OutputError if the radiograph is not a DICOM
    /// file, or its header lacks what identifies patient, study or image.
    #[pyo3(signature = (answer = None, *, content_time = None))]
    fn secondary_capture<'py>(
        &self,
        py: Python<'py>,
        answer: Option<Bound<'py, Answer>>,
        content_time: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let radiograph = self.radiograph.as_ref().ok_or_else(without_radiograph)?;
        let document = Document::new(answer.as_slice(), content_time)?;
        let bytes = self.call(py, |study| document.secondary_capture(study, radiograph))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A FHIR R4 bundle of this study, as the bytes of a JSON file: a DiagnosticReport with an Observation for each structure, label, flag,
    /// answer and box, and the Patient, ImagingStudy and Device that they refer to. Equal results give equal bytes.
    ///
    /// answers: answers of this study.
    /// content_time: when the results were made, a datetime or a text YYYYMMDDhhmmss; by default the time of the radiograph.
    ///
    /// Raises OutputError if the radiograph is not a DICOM file, or its header lacks what identifies patient, study or image.
    #[pyo3(signature = (answers = Vec::new(), *, content_time = None))]
    fn fhir<'py>(
        &self,
        py: Python<'py>,
        answers: Vec<Bound<'py, Answer>>,
        content_time: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let document = Document::new(&answers, content_time)?;
        let bytes = self.call(py, |study| document.fhir(study))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The study as a dictionary, the same as the JSON of ``anatomix perceive --json``.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        records::parsed(py, &self.record)
    }

    /// A dictionary for each structure, with the keys image, index, name, side, x0, y0, x1, y1, sentence, similarity, margin: rows for
    /// ``pandas.DataFrame``.
    fn table<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("anatomix._tables")?.call_method1("of_study", (slf,))
    }

    /// The radiograph with the boxes of the main structures and of those with a finding: uint8 [height, width, 3], red, green, blue.
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
        slf.py().import("anatomix._notebook")?.call_method1("of_study", (slf, slf.get().radiograph.is_some()))
    }

    fn __repr__(&self) -> String {
        let PerceiveRecord { image, width, height, flags, .. } = &self.record;
        format!("<anatomix.Study {image:?}, {width} x {height} pixels, {} flags>", flags.len())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a study cannot be pickled; pass study.save_bytes(), and load it with Engine.load_study"))
    }
}

/// The question of `ask` and `stream`.
fn text_or_question(
    py: Python<'_>,
    question: Option<&Bound<'_, PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<anatomix::Question> {
    match question {
        Some(question) => Question::of(question, options),
        None => Question::of(&pyo3::types::PyString::new(py, ""), options),
    }
}

/// Values of the 36 structures as an array `[36, width]`.
fn matrix(py: Python<'_>, values: Vec<f32>) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let array = Array2::from_shape_vec((STRUCTURE_COUNT, values.len() / STRUCTURE_COUNT), values);
    Ok(PyArray2::from_owned_array(py, array.map_err(|error| PyValueError::new_err(error.to_string()))?))
}
