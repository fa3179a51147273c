//! ONNX Runtime: found and loaded at run time, never linked; sessions on the chosen provider.

mod error;
mod graph;
mod locate;
mod processor;
mod provider;
mod select;
mod stop;
mod tensor;
mod version;
mod view;
mod workers;

pub use error::RuntimeError;
#[cfg(test)]
pub(crate) use graph::tests::Meeting;
pub use graph::{Binding, Graph, Outputs};
pub use processor::{PROCESSORS, processor};
pub use provider::{Availability, Provider};
pub(crate) use stop::Stop;
pub use tensor::Tensor;
pub(crate) use view::rows_from;
pub(crate) use workers::Workers;
pub use workers::cores;

use crate::cause::{Source, source};
use crate::log::{Log, LogLevel};
use crate::text::brief;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How sessions are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// ONNX Runtime's library; found by itself where this is `None`.
    pub library: Option<PathBuf>,
    /// Where to compute.
    pub provider: Provider,
    /// Threads of an operator on the CPU, 1 to [`cores`]; as many as that for `None`.
    pub threads: Option<usize>,
}

impl Options {
    /// Makes sure that the machine has so many threads.
    ///
    /// # Errors
    /// [`RuntimeError::TooManyThreads`] for 0 and for more than [`cores`].
    pub fn check(&self) -> Result<(), RuntimeError> {
        let most = cores();
        let wrong = self.threads.filter(|threads| !(1..=most).contains(threads));
        wrong.map_or(Ok(()), |threads| Err(RuntimeError::TooManyThreads { threads, most }))
    }
}

/// ONNX Runtime with the provider that was settled on.
pub struct Runtime {
    environment: Environment,
    options: Options,
    library: PathBuf,
    chosen: Provider,
    notes: Vec<String>,
    log: Log,
}

/// Loading is process-wide: one environment, whichever engine asks first.
static ENVIRONMENT: Mutex<Option<(Environment, PathBuf)>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads ONNX Runtime and settles on a provider. A process loads one library, which stays.
    ///
    /// # Errors
    /// If more threads are asked for than there are, no library is found, another one than the requested was loaded before, or an
    /// explicitly requested provider cannot run.
    pub fn load(options: Options) -> Result<Self, RuntimeError> {
        options.check()?;
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
                let failed = |source| RuntimeError::Library { path: library.clone(), source };
                let environment = ort::init_from(&library)
                    .map_err(|e| failed(source(e)))?
                    .with_name("anatomix")
                    .with_telemetry(false)
                    .build()
                    .map_err(|e| failed(source(e)))?;
                *slot = Some((environment.clone(), library.clone()));
                (environment, library)
            }
        };
        drop(slot);
        let (chosen, notes) = select::settle(options.provider, &environment)?;
        Ok(Self { environment, options, library, chosen, notes, log: Log::default() })
    }

    /// Passes ONNX Runtime's warnings and errors about graphs that are loaded from now on to `log`.
    pub(crate) fn with_log(self, log: Log) -> Self {
        Self { log, ..self }
    }

    /// Loads a graph. Its external weights are mapped by ONNX Runtime from beside it, and those that kernels want packed are copied.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn graph(&self, path: &Path) -> Result<Graph, RuntimeError> {
        self.load_graph(path, select::dispatches(self.chosen))
    }

    /// Loads a graph whose runs are short and many, from several callers at once: the decoder. ONNX Runtime's arena has one lock, which
    /// callers of a single-threaded engine would spend much of their time on, so that such a graph takes its memory from the system.
    /// (With several threads in a run the lock matters less, and the arena saves memory.)
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn graph_for_callers(&self, path: &Path) -> Result<Graph, RuntimeError> {
        let providers = match (self.chosen, self.options.threads) {
            (Provider::Cpu, Some(1)) => vec![ort::ep::CPU::default().with_arena_allocator(false).build()],
            (chosen, _) => select::dispatches(chosen),
        };
        self.load_graph(path, providers)
    }

    fn load_graph(&self, path: &Path, providers: Vec<ExecutionProviderDispatch>) -> Result<Graph, RuntimeError> {
        let failed = |source| RuntimeError::Graph { path: path.into(), source };
        let threads = self.options.threads.unwrap_or_else(cores);
        let build = || -> Result<Session, Source> {
            let mut builder = Session::builder(&self.environment)
                .map_err(source)?
                .with_optimization_level(GraphOptimizationLevel::All)
                .map_err(source)?
                // A pattern is traced for each set of shapes and kept beside what the first run took; decoding has a new set a step.
                .with_memory_pattern(false)
                .map_err(source)?
                .with_intra_threads(threads)
                .map_err(source)?
                // Threads that wait for work spin: longer than this they take the cores from other callers.
                .with_config_entry("session.intra_op.spin_duration_us", "20")
                .map_err(source)?
                .with_execution_providers(providers)
                .map_err(source)?;
            if self.log.is_on() {
                builder = builder
                    .with_log_level(ort::logging::LogLevel::Warning)
                    .map_err(source)?
                    .with_logger(logger(self.log.clone(), path))
                    .map_err(source)?;
            }
            builder.commit_from_file(path).map_err(source)
        };
        Graph::new(path, build().map_err(failed)?, self.chosen)
    }

    /// The provider that sessions run on.
    pub fn provider(&self) -> Provider {
        self.chosen
    }

    /// Why `auto` settled on it, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The version of ONNX Runtime, such as "1.31.1".
    pub fn version(&self) -> String {
        version::version(&self.library)
    }

    /// The loaded library.
    pub fn library(&self) -> &Path {
        &self.library
    }
}

/// What ONNX Runtime calls with its messages about a graph.
fn logger(log: Log, path: &Path) -> ort::logging::LoggerFunction {
    let graph = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Arc::new(move |level, _category, _id, _location, message| {
        let level = match level {
            ort::logging::LogLevel::Verbose | ort::logging::LogLevel::Info => LogLevel::Debug,
            ort::logging::LogLevel::Warning => LogLevel::Warning,
            ort::logging::LogLevel::Error | ort::logging::LogLevel::Fatal => LogLevel::Error,
        };
        log.write(level, || format!("ONNX Runtime on {graph}: {}", brief(message)));
    })
}

/// All providers, the fastest first, with the reasons against those that cannot run.
pub fn availability(runtime: &Runtime) -> Vec<Availability> {
    [Provider::TensorRt(0), Provider::Cuda(0), Provider::Cpu]
        .map(|provider| {
            let outcome = select::probe(provider, &runtime.environment);
            Availability {
                provider: provider.to_string(),
                available: outcome.is_ok(),
                reason: outcome.err().map(|problem| problem.to_string()),
            }
        })
        .into()
}
