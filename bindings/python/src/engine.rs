//! Engines: opened bundles, and perceiving with them.

use crate::cancel::CancelHandle;
use crate::errors::Failure;
use crate::log;
use crate::progress;
use crate::question::seconds;
use crate::radiograph::{Bytes, Source};
use crate::study::Study;
use crate::waiting::run;
use anatomix::error::StoppedError;
use anatomix::{EngineBuilder, Error, PerceiveOptions, Phase, Progress, Provider, PublicKey, Radiograph, VerifiedBundle};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// An opened bundle. Any number of threads may use an engine at once.
///
///     engine = anatomix.Engine.open("examples/reference-bundle")
///     study = engine.study("chest.dcm")
///     print(study.ask(task="report").text)
///
/// On a CPU, callers of an engine with ``threads=1`` compute side by side, each on its own core; callers of an engine with several threads
/// share them.
#[pyclass(frozen, module = "anatomix")]
pub struct Engine(anatomix::Engine);

type Outcome = Result<(anatomix::Study, Arc<Radiograph>), Failure>;

#[pymethods]
impl Engine {
    /// Opens a bundle, loads its graphs and runs its golden input on the provider.
    ///
    /// bundle: the bundle's folder.
    /// provider: "auto" (CUDA if it can run here, else the CPU), "cpu", "cuda[:N]" or "tensorrt[:N]", N being the number of a GPU.
    /// threads: CPU threads that one caller computes with, 1 to the number of cores; 0 for all of them.
    /// library: the path of ONNX Runtime's library. By default it is that of the environment variable ORT_DYLIB_PATH, then that of the
    /// installed package onnxruntime or onnxruntime-gpu (which is not imported), then the system's. A process loads one library.
    /// look_up: whether draft tokens that are looked up in the prompt are verified several at a time; answers are the same either way.
    /// draft_cost: what one more draft token costs in a run of the decoder, relative to a run of one token, 0 to 1; measured by default.
    /// golden_check: whether opening compares the outputs for the bundle's golden input. Without it a provider that computes something else
    /// goes unnoticed.
    /// public_key: a public key of minisign, the text of its .pub file or the second line of that. Only a bundle that its owner signed is
    /// opened then, and the hashes of all files are compared.
    /// memory_limit: bytes that the KV caches of all studies take together at most.
    /// log: called with a level ("debug", "info", "warning", "error") and a message, by any thread; it must not call the engine.
    /// deadline: seconds after which opening ends with StoppedError, between two of its parts: a mebibyte of a file that is hashed, a
    /// graph.
    /// cancel: a handle with which any thread ends opening with StoppedError. Ctrl-C cancels it.
    /// progress: called with a phase ("hashes", "graphs", "golden_check"), how much of it is done, and how much there is to do, by another
    /// thread; it must not call the engine.
    ///
    /// Raises BundleError, OnnxRuntimeError, RetrievalError or StoppedError.
    #[staticmethod]
    #[pyo3(signature = (bundle, *, provider = "auto", threads = 0, library = None, look_up = true, draft_cost = None, golden_check = true,
                        public_key = None, memory_limit = None, log = None, deadline = None, cancel = None, progress = None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn open(
        py: Python<'_>,
        bundle: PathBuf,
        provider: &str,
        threads: usize,
        library: Option<PathBuf>,
        look_up: bool,
        draft_cost: Option<f32>,
        golden_check: bool,
        public_key: Option<&str>,
        memory_limit: Option<u64>,
        log: Option<Py<PyAny>>,
        deadline: Option<f64>,
        cancel: Option<&CancelHandle>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let provider: Provider = provider.parse().map_err(PyValueError::new_err)?;
        let (cancel, builder) = watched(py, public_key, deadline, cancel, progress)?;
        let mut builder = builder.provider(provider).threads(threads).look_up(look_up).golden_check(golden_check);
        if let Some(library) = match library {
            None => py.import("anatomix._library")?.call_method0("find")?.extract()?,
            named => named,
        } {
            builder = builder.library(library);
        }
        if let Some(cost) = draft_cost {
            if !(0.0..=1.0).contains(&cost) {
                return Err(PyValueError::new_err(format!("draft_cost is {cost}; pass 0 to 1, or None to have it measured")));
            }
            builder = builder.draft_cost(cost);
        }
        if let Some(bytes) = memory_limit {
            builder = builder.memory_limit(bytes);
        }
        if let Some(log) = log {
            if !log.bind(py).is_callable() {
                return Err(PyTypeError::new_err("log is not callable; pass a function of a level and a message"));
            }
            builder = builder.log(log::callback(log));
        }
        run(py, || cancel.cancel(), || Ok(builder.open(bundle)?)).map(Self)
    }

    /// The name of the bundle.
    #[getter]
    fn bundle(&self) -> &str {
        &self.0.bundle().manifest().name
    }

    /// SHA-256 of the bundle's manifest, which holds the hashes of its other files.
    #[getter]
    fn bundle_sha256(&self) -> &str {
        self.0.bundle().hash()
    }

    /// Where graphs are computed, for example "cpu" or "cuda:0".
    #[getter]
    fn provider(&self) -> String {
        self.0.provider().to_string()
    }

    /// Notes on where graphs are computed: why "auto" chose the provider, and whether the bundle was checked on this kind of processor.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.0.notes().to_vec()
    }

    /// The largest number of radiographs that one run of `studies` takes.
    #[getter]
    fn batch_size(&self) -> usize {
        self.0.batch_size()
    }

    /// Bytes that the KV cache of a study takes at most for this many tokens: those of its context, and of the questions and answers of its
    /// conversation, each answer with the most tokens that it may have.
    fn study_bytes(&self, tokens: usize) -> u64 {
        self.0.study_bytes(tokens)
    }

    /// Perceives a radiograph and retrieves a sentence for each structure.
    ///
    /// radiograph: a Radiograph, or the path of a DICOM, PNG or JPEG file.
    /// deadline: seconds after which the call ends with StoppedError.
    /// cancel: a handle with which any thread ends the call with StoppedError. Ctrl-C cancels it.
    ///
    /// Raises RadiographError, OnnxRuntimeError, RetrievalError or StoppedError.
    #[pyo3(signature = (radiograph, *, deadline = None, cancel = None))]
    fn study(&self, py: Python<'_>, radiograph: Source, deadline: Option<f64>, cancel: Option<&CancelHandle>) -> PyResult<Study> {
        let limits = Limits::new(deadline, cancel)?;
        let (study, radiograph) = run(
            py,
            || limits.cancel(),
            || {
                let radiograph = radiograph.open()?;
                Ok((self.0.study_with(&radiograph, &limits.left()?)?, radiograph))
            },
        )?;
        Ok(Study::new(study, Some(radiograph)))
    }

    /// Perceives several radiographs; one run of the perception module takes up to `batch_size` of them. Returns a list with a Study for
    /// each, or the exception (an anatomix.Error) if that radiograph failed: the others are not affected.
    ///
    /// radiographs: Radiographs and paths of files.
    /// deadline, cancel: as for `study`, for all of them together. What is not perceived by then is a StoppedError in the list.
    /// progress: called with "perceive", how many radiographs are perceived or failed, and how many there are, by another thread; it must
    /// not call the engine.
    #[pyo3(signature = (radiographs, *, deadline = None, cancel = None, progress = None))]
    fn studies(
        &self,
        py: Python<'_>,
        radiographs: Vec<Source>,
        deadline: Option<f64>,
        cancel: Option<&CancelHandle>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Py<PyAny>>> {
        let limits = Limits::new(deadline, cancel)?;
        let progress = progress.map(|callable| progress::callback(py, callable)).transpose()?;
        let report = |done, total| progress.iter().for_each(|call| call(Phase::Perceive.name(), done, total));
        let outcomes = run(py, || limits.cancel(), || self.perceive(radiographs, &limits, report))?;
        let objects = outcomes.into_iter().map(|outcome| match outcome {
            Ok((study, radiograph)) => Ok(Py::new(py, Study::new(study, Some(radiograph)))?.into_any()),
            Err(failure) => Ok(failure.object(py)),
        });
        objects.collect()
    }

    /// Loads a study from the bytes of ``Study.save_bytes``. Its context is in the KV cache, so nothing is computed again. It does not hold
    /// the radiograph.
    ///
    /// Raises SavedError if the bytes are damaged or belong to another bundle or version.
    fn load_study(&self, py: Python<'_>, data: Bytes) -> PyResult<Study> {
        let study = run(py, || {}, || Ok(self.0.load_study(&data)?))?;
        Ok(Study::new(study, None))
    }

    /// Loads a study from a file with such bytes, as ``anatomix ask --save`` writes it.
    ///
    /// Raises SavedError, as `load_study`.
    fn open_study(&self, py: Python<'_>, path: PathBuf) -> PyResult<Study> {
        let study = run(py, || {}, || Ok(self.0.open_study(path)?))?;
        Ok(Study::new(study, None))
    }

    fn __repr__(&self) -> String {
        format!("<anatomix.Engine {:?} on {}>", self.bundle(), self.provider())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("an engine cannot be pickled; open the bundle in each process"))
    }
}

impl Engine {
    /// Opens and perceives radiographs, as many at a time as one run takes.
    fn perceive(&self, radiographs: Vec<Source>, limits: &Limits, report: impl Fn(u64, u64)) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let total = radiographs.len() as u64;
        report(0, total);
        let mut radiographs = radiographs.into_iter().peekable();
        while radiographs.peek().is_some() {
            let opened: Vec<_> = radiographs.by_ref().take(self.0.batch_size()).map(Source::open).collect();
            let usable: Vec<Radiograph> = opened.iter().flatten().map(|radiograph| Radiograph::clone(radiograph)).collect();
            let mut studies = match limits.left() {
                Ok(options) => self.0.studies_with(&usable, &options)?,
                Err(stopped) => usable.iter().map(|_| Err(stopped.into())).collect(),
            }
            .into_iter();
            for radiograph in opened {
                // There is a study, or an error, for each radiograph that was opened.
                let Some(outcome) = radiograph
                    .map_or_else(|error| Some(Err(error.into())), |radiograph| studies.next().map(|study| Ok((study?, radiograph))))
                else {
                    break;
                };
                outcomes.push(outcome);
            }
            let stopped = |outcome: &&Outcome| matches!(outcome, Err(Failure::Sdk(Error::Stopped(_))));
            report((outcomes.len() - outcomes.iter().filter(stopped).count()) as u64, total);
        }
        Ok(outcomes)
    }
}

/// A builder with what opening and verifying have in common, and the handle that stops it.
fn watched(
    py: Python<'_>,
    public_key: Option<&str>,
    deadline: Option<f64>,
    cancel: Option<&CancelHandle>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(anatomix::CancelHandle, EngineBuilder)> {
    let cancel = cancel.map_or_else(anatomix::CancelHandle::new, |CancelHandle(handle)| handle.clone());
    let mut builder = anatomix::Engine::builder().cancel(&cancel);
    if let Some(key) = public_key {
        let key: PublicKey = key.parse().map_err(|error| PyValueError::new_err(format!("public_key cannot be used: {error}")))?;
        builder = builder.public_key(key);
    }
    if let Some(time) = deadline.map(seconds).transpose()? {
        builder = builder.deadline(time);
    }
    if let Some(callable) = progress {
        let call = progress::callback(py, callable)?;
        builder = builder.progress(move |Progress { phase, done, total, .. }| call(phase.name(), done, total));
    }
    Ok((cancel, builder))
}

/// Verifies a bundle without opening an engine: the hashes of all its files, however large they are, and the whole sentence database.
/// Returns a dictionary with the bundle's name, the SHA-256 of its manifest, the number of its files and their bytes.
///
/// public_key, deadline, cancel, progress: as for ``Engine.open``; the phases are "hashes" and "sentences".
///
/// Raises BundleError, RetrievalError or StoppedError.
#[pyfunction]
#[pyo3(signature = (bundle, *, public_key = None, deadline = None, cancel = None, progress = None))]
pub fn verify_bundle<'py>(
    py: Python<'py>,
    bundle: PathBuf,
    public_key: Option<&str>,
    deadline: Option<f64>,
    cancel: Option<&CancelHandle>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (cancel, builder) = watched(py, public_key, deadline, cancel, progress)?;
    let VerifiedBundle { name, sha256, files, bytes, .. } = run(py, || cancel.cancel(), || Ok(builder.verify_bundle(bundle)?))?;
    let verified = PyDict::new(py);
    verified.set_item("name", name)?;
    verified.set_item("sha256", sha256)?;
    verified.set_item("files", files)?;
    verified.set_item("bytes", bytes)?;
    Ok(verified)
}

/// What ends a call before it is finished.
struct Limits {
    end: Option<Instant>,
    cancel: anatomix::CancelHandle,
}

impl Limits {
    fn new(deadline: Option<f64>, cancel: Option<&CancelHandle>) -> PyResult<Self> {
        // A deadline beyond what the clock can represent is none.
        let end = deadline.map(seconds).transpose()?.and_then(|time| Instant::now().checked_add(time));
        Ok(Self { end, cancel: cancel.map_or_else(anatomix::CancelHandle::new, |CancelHandle(handle)| handle.clone()) })
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The options of a call that begins now.
    ///
    /// # Errors
    /// If the deadline has passed.
    fn left(&self) -> Result<PerceiveOptions, StoppedError> {
        let options = PerceiveOptions::new().cancel(&self.cancel);
        let Some(end) = self.end else { return Ok(options) };
        let left = end.checked_duration_since(Instant::now()).ok_or(StoppedError::Deadline)?;
        Ok(options.deadline(left))
    }
}
