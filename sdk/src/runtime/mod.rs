//! ONNX Runtime: found and loaded at run time, never linked; sessions on the chosen provider.

mod error;
mod locate;
mod provider;
mod select;
mod view;

pub use error::RuntimeError;
pub use provider::{Availability, Provider};
pub(crate) use view::rows_from;

use crate::text::brief;
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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
    /// Finds and loads ONNX Runtime and settles on a provider. A process loads one library, which stays.
    ///
    /// # Errors
    /// If no library is found, another one than the requested was loaded before, or an explicitly requested provider cannot run.
    pub fn load(options: Options) -> Result<Self, RuntimeError> {
        let mut slot = ENVIRONMENT.lock().unwrap_or_else(|e| e.into_inner());
        let (environment, library) = match &*slot {
            Some((environment, library)) => {
                let other = options.library.as_ref().and_then(|asked| Some((asked.clone(), locate::other(asked, library)?)));
                if let Some((asked, loaded)) = other {
                    return Err(RuntimeError::OtherLibrary { asked, loaded });
                }
                (environment.clone(), library.clone())
            }
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
        let (chosen, notes) = select::settle(options.provider, &environment)?;
        Ok(Self { environment, options, library, chosen, notes })
    }

    /// Loads a graph. Its external weights are mapped by ONNX Runtime from beside it, and those that kernels want packed are copied.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn session(&self, path: &Path) -> Result<Session, RuntimeError> {
        let failed = |message: String| RuntimeError::Graph { path: path.into(), message: brief(message) };
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
                .with_execution_providers(select::dispatches(self.chosen))
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

/// All providers, the fastest first, with the reasons against those that cannot run.
pub fn availability(runtime: &Runtime) -> Vec<Availability> {
    [Provider::TensorRt(0), Provider::Cuda(0), Provider::Cpu]
        .map(|provider| {
            let outcome = select::probe(provider, &runtime.environment);
            Availability { provider: provider.to_string(), available: outcome.is_ok(), reason: outcome.err() }
        })
        .into()
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
