//! ONNX Runtime: found and loaded at run time, never linked; sessions on the chosen provider.

mod locate;
mod provider;
mod view;

pub use provider::{Availability, Provider, availability};
pub(crate) use view::rows_from;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What can be wrong with ONNX Runtime or a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RuntimeError {
    #[error("ONNX Runtime was not found; tried {}; install it or set ORT_DYLIB_PATH to libonnxruntime.so", list(.tried))]
    NotFound { tried: Vec<PathBuf> },
    #[error("{path} cannot be used as ONNX Runtime: {message}; version 1.24 or newer is needed, set ORT_DYLIB_PATH to one")]
    Library { path: PathBuf, message: String },
    #[error("the provider {provider} cannot run here: {message}; install what is missing or choose the provider auto")]
    Provider { provider: Provider, message: String },
    #[error("{threads} threads cannot be started: {message}; ask for fewer")]
    Threads { threads: usize, message: String },
    #[error("{path} cannot be loaded: {message}; restore the bundle from its source")]
    Graph { path: PathBuf, message: String },
    #[error(
        "{graph} computes in {precision}, for which the provider {provider} has no operators; choose the provider cuda, or a bundle \
         whose decoder was exported in fp32, int8 or int4"
    )]
    Precision { graph: String, precision: String, provider: Provider },
    #[error("{graph} lacks the {what} {name:?}; export the bundle again with a matching trainer")]
    Port { graph: String, what: &'static str, name: String },
    #[error("{graph} failed: {message}")]
    Run { graph: String, message: String },
    #[error("{graph} gave {tensor} of shape {found:?} instead of {expected:?}; export the bundle again")]
    Shape { graph: String, tensor: String, found: Vec<i64>, expected: Vec<i64> },
    #[error(
        "on this provider {tensor} differs from the bundle's golden output by {difference:e} (allowed {allowed:e}); choose another provider"
    )]
    Golden { tensor: String, difference: f32, allowed: f32 },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// How many threads the machine runs at a time.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Threads for work beside the graphs, where fewer were asked for than there are cores; else rayon's own serve.
///
/// # Errors
/// If the system gives no more threads.
pub(crate) fn pool(threads: usize) -> Result<Option<ThreadPool>, RuntimeError> {
    if threads >= cores() {
        return Ok(None);
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map(Some).map_err(|e| RuntimeError::Threads { threads, message: e.to_string() })
}

/// How sessions are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// ONNX Runtime's library; found by itself where this is `None`.
    pub library: Option<PathBuf>,
    /// Where to compute.
    pub provider: Provider,
    /// Threads of an operator on the CPU; all cores for `None`.
    pub threads: Option<usize>,
}

/// ONNX Runtime with the provider that was settled on.
pub struct Runtime {
    environment: Environment,
    options: Options,
    library: PathBuf,
    chosen: Provider,
    notes: Vec<String>,
}

/// Loading is process-wide: one environment, whichever engine asks first.
static ENVIRONMENT: Mutex<Option<(Environment, PathBuf)>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads ONNX Runtime and settles on a provider. The library that is loaded first stays for the process.
    ///
    /// # Errors
    /// If no library is found or an explicitly requested provider cannot run.
    pub fn load(options: Options) -> Result<Self, RuntimeError> {
        let mut slot = ENVIRONMENT.lock().unwrap_or_else(|e| e.into_inner());
        let (environment, library) = match &*slot {
            Some((environment, library)) => (environment.clone(), library.clone()),
            None => {
                let library = locate::find(options.library.as_deref())?;
                let failed = |message: String| RuntimeError::Library { path: library.clone(), message };
                let environment = ort::init_from(&library)
                    .map_err(|e| failed(e.to_string()))?
                    .with_name("anatomix")
                    .with_telemetry(false)
                    .build()
                    .map_err(|e| failed(e.to_string()))?;
                *slot = Some((environment.clone(), library.clone()));
                (environment, library)
            }
        };
        drop(slot);
        let (chosen, notes) = provider::settle(options.provider, &environment)?;
        Ok(Self { environment, options, library, chosen, notes })
    }

    /// Loads a graph. Its external weights are mapped by ONNX Runtime from beside it, and those that kernels want packed are copied.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn session(&self, path: &Path) -> Result<Session, RuntimeError> {
        let failed = |message: String| RuntimeError::Graph { path: path.into(), message };
        let threads = self.options.threads.unwrap_or_else(cores);
        let build = || -> Result<Session, String> {
            Session::builder(&self.environment)
                .map_err(|e| e.to_string())?
                .with_optimization_level(GraphOptimizationLevel::All)
                .map_err(|e| e.to_string())?
                // A pattern is traced for each set of shapes and kept beside what the first run took; decoding has a new set a step.
                .with_memory_pattern(false)
                .map_err(|e| e.to_string())?
                .with_intra_threads(threads)
                .map_err(|e| e.to_string())?
                .with_execution_providers(provider::dispatches(self.chosen))
                .map_err(|e| e.to_string())?
                .commit_from_file(path)
                .map_err(|e| e.to_string())
        };
        build().map_err(failed)
    }

    /// The provider that sessions run on.
    pub fn provider(&self) -> Provider {
        self.chosen
    }

    /// Why `auto` settled on it, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The loaded library.
    pub fn library(&self) -> &Path {
        &self.library
    }
}

/// Checks that a graph has the inputs and outputs that are used.
///
/// # Errors
/// [`RuntimeError::Port`] for the first that is missing.
pub fn check_ports(session: &Session, graph: &str, inputs: &[String], outputs: &[String]) -> Result<(), RuntimeError> {
    let missing = |what, name: &str| RuntimeError::Port { graph: graph.into(), what, name: name.into() };
    for name in inputs {
        session.inputs().iter().find(|i| i.name() == name).ok_or_else(|| missing("input", name))?;
    }
    for name in outputs {
        session.outputs().iter().find(|o| o.name() == name).ok_or_else(|| missing("output", name))?;
    }
    Ok(())
}

/// The values of an output, if it has the expected shape.
///
/// # Errors
/// [`RuntimeError::Shape`] where it has another.
pub fn read_output(
    outputs: &ort::session::SessionOutputs,
    graph: &str,
    tensor: &str,
    expected: &[usize],
) -> Result<Vec<f32>, RuntimeError> {
    let value = outputs.get(tensor).ok_or_else(|| RuntimeError::Port { graph: graph.into(), what: "output", name: tensor.into() })?;
    let (shape, values) =
        value.try_extract_tensor::<f32>().map_err(|e| RuntimeError::Run { graph: graph.into(), message: e.to_string() })?;
    let expected: Vec<i64> = expected.iter().map(|&d| d as i64).collect();
    if shape[..] != expected[..] {
        return Err(RuntimeError::Shape { graph: graph.into(), tensor: tensor.into(), found: shape.to_vec(), expected });
    }
    Ok(values.to_vec())
}
