//! ONNX Runtime, which is found and loaded at run time: its library, the choice of a provider, and graphs.

mod error;
mod graph;
mod locate;
mod processor;
mod provider;
mod select;
mod stop;
mod tensor;
mod threads;
mod version;
mod view;
mod workers;

pub use crate::parallel::cores;
pub use error::RuntimeError;
#[cfg(test)]
pub(crate) use graph::tests::Meeting;
pub use graph::{Binding, Graph, Outputs};
pub use processor::{PROCESSORS, processor};
pub use provider::{Availability, Provider};
pub(crate) use stop::StopSignal;
pub use tensor::Tensor;
use threads::GraphThreads;
pub(crate) use view::rows_from;
pub(crate) use workers::Workers;

use crate::cause::{Source, refuses_files, source};
use crate::log::{Log, LogLevel};
use crate::text::brief;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Options of ONNX Runtime.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Path of ONNX Runtime's library; `None` to search for it.
    pub library: Option<PathBuf>,
    /// The provider.
    pub provider: Provider,
    /// Number of threads of an operator on the CPU, 1 to [`cores`]; `None` means [`cores`].
    pub threads: Option<usize>,
}

impl Options {
    /// Checks the number of threads.
    ///
    /// # Errors
    /// [`RuntimeError::TooManyThreads`] for 0 and for more than [`cores`].
    pub fn check(&self) -> Result<(), RuntimeError> {
        let most = cores();
        let wrong = self.threads.filter(|threads| !(1..=most).contains(threads));
        wrong.map_or(Ok(()), |threads| Err(RuntimeError::TooManyThreads { threads, most }))
    }
}

/// The loaded ONNX Runtime with the chosen provider.
pub struct Runtime {
    environment: Environment,
    options: Options,
    library: PathBuf,
    chosen: Provider,
    notes: Vec<String>,
    log: Log,
}

/// The process's only environment, with the path of its library. The first engine creates it.
static ENVIRONMENT: Mutex<Option<(Environment, PathBuf)>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads ONNX Runtime and chooses a provider. A process loads one library, which stays loaded.
    ///
    /// # Errors
    /// If there are fewer cores than threads, no library is found, another library than the requested one is loaded, or the requested
    /// provider cannot run.
    pub fn load(options: Options) -> Result<Self, RuntimeError> {
        options.check()?;
        let mut loaded = ENVIRONMENT.lock().unwrap_or_else(|e| e.into_inner());
        let (environment, library) = match &*loaded {
            Some((environment, library)) => {
                let other = options.library.as_ref().and_then(|asked| Some((asked.clone(), locate::other(asked, library)?)));
                if let Some((asked, loaded)) = other {
                    return Err(RuntimeError::OtherLibrary { asked, loaded });
                }
                (environment.clone(), library.clone())
            }
            None => {
                let library = locate::find(options.library.as_deref())?;
                let failed = |source: Source| match refuses_files(&source.to_string()) {
                    true => RuntimeError::Files { path: library.clone(), source },
                    false => RuntimeError::Library { path: library.clone(), source },
                };
                let environment = ort::init_from(&library)
                    .map_err(|e| failed(locate::refused(&library).map_or_else(|| source(e), source)))?
                    .with_name("anatomix")
                    .with_telemetry(false)
                    .build()
                    .map_err(|e| failed(source(e)))?;
                *loaded = Some((environment.clone(), library.clone()));
                (environment, library)
            }
        };
        drop(loaded);
        let (chosen, notes) = select::choose(options.provider, &environment)?;
        Ok(Self { environment, options, library, chosen, notes, log: Log::default() })
    }

    /// Passes ONNX Runtime's warnings and errors about graphs that are loaded from now on to `log`.
    pub(crate) fn with_log(self, log: Log) -> Self {
        Self { log, ..self }
    }

    /// Loads a graph. ONNX Runtime maps the weights from files beside it, and copies weights that its kernels pack.
    ///
    /// # Errors
    /// If the graph cannot be loaded.
    pub fn graph(&self, path: &Path) -> Result<Graph, RuntimeError> {
        self.load_graph(path, select::dispatches(self.chosen))
    }

    /// Loads a graph that several callers run at the same time in many short runs: the decoder. On an engine of one thread, such a graph
    /// allocates from the system, because callers would wait for the lock of ONNX Runtime's arena. With several threads in a run this
    /// costs less, and the arena saves memory.
    ///
    /// # Errors
    /// If the graph cannot be loaded.
    pub fn concurrent_graph(&self, path: &Path) -> Result<Graph, RuntimeError> {
        let providers = match (self.chosen, self.options.threads) {
            (Provider::Cpu, Some(1)) => vec![ort::ep::CPU::default().with_arena_allocator(false).build()],
            (chosen, _) => select::dispatches(chosen),
        };
        self.load_graph(path, providers)
    }

    fn load_graph(&self, path: &Path, providers: Vec<ExecutionProviderDispatch>) -> Result<Graph, RuntimeError> {
        let threads = self.options.threads.unwrap_or_else(cores);
        let graph_threads = GraphThreads::default();
        let lacks_files = Cell::new(false);
        let failed = |error: Source| match graph_threads.refused() {
            Some(refusal) => RuntimeError::Threads { threads, source: source(refusal) },
            None if lacks_files.get() => RuntimeError::Files { path: path.into(), source: error },
            None => RuntimeError::Graph { path: path.into(), source: error },
        };
        let build = || -> Result<Session, Source> {
            let mut builder = Session::builder(&self.environment)
                .map_err(source)?
                .with_optimization_level(GraphOptimizationLevel::All)
                .map_err(source)?
                // ONNX Runtime keeps a memory pattern for each set of shapes. Each step of decoding has new shapes.
                .with_memory_pattern(false)
                .map_err(source)?
                .with_intra_threads(threads)
                .map_err(source)?
                .with_thread_manager(graph_threads.clone())
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
            } else {
                // ONNX Runtime would write errors to standard error, with names from the bundle as they are. They are errors of the call.
                builder = builder.with_log_level(ort::logging::LogLevel::Fatal).map_err(source)?;
            }
            builder.commit_from_file(path).map_err(|error| {
                // The source may be shortened.
                lacks_files.set(refuses_files(&error.to_string()));
                source(error)
            })
        };
        Graph::new(path, build().map_err(failed)?, self.chosen)
    }

    /// The chosen provider.
    pub fn provider(&self) -> Provider {
        self.chosen
    }

    /// Why `auto` chose this provider, one line for each reason.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The version of ONNX Runtime, such as "1.31.1".
    pub fn version(&self) -> String {
        version::version(&self.library)
    }

    /// Path of the loaded library.
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

/// All providers, the fastest first, each with the reason if it cannot run here.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::PoisonError;

    /// A field of a protobuf message: a message or text.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    /// A field of a protobuf message: a small number.
    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    /// A graph `y = Identity(x)`, with an initializer that no node uses, of which ONNX Runtime warns.
    fn with_unused_initializer() -> Vec<u8> {
        let shape = field(2, &field(1, &number(1, 1)));
        let tensor = field(2, &field(1, &[number(1, 1), shape].concat()));
        let value = |name: &str| [field(1, name.as_bytes()), tensor.clone()].concat();
        let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
        let unused = [number(1, 1), number(2, 1), field(8, b"left over"), field(9, &[0; 4])].concat();
        let graph = [field(1, &node), field(2, b"graph"), field(5, &unused), field(11, &value("x")), field(12, &value("y"))].concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()
    }

    #[test]
    fn warnings_of_onnx_runtime_reach_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.onnx");
        std::fs::write(&path, with_unused_initializer()).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log = Log::new(move |level, line| kept.lock().unwrap_or_else(PoisonError::into_inner).push((level, line.to_string())));
        let runtime = Runtime::load(Options { provider: Provider::Cpu, ..Options::default() }).unwrap();
        assert!(runtime.graph(&path).is_ok() && lines.lock().unwrap().is_empty());
        assert!(runtime.with_log(log).graph(&path).is_ok());
        let lines = lines.lock().unwrap();
        let [(LogLevel::Warning, line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with("ONNX Runtime on small.onnx: ") && line.contains("left over"), "{line}");
    }
}
