//! The options of an engine, and how it is opened.

use super::limits::{Limits, Timer};
use super::verify::{self, VerifiedBundle};
use super::{Engine, Inner, golden};
use crate::bundle::{GOLDEN, PublicKey, SENTENCES};
use crate::control::{CancelHandle, Until};
use crate::decoder::RunCosts;
use crate::error::{Error, Result};
use crate::language::LanguageModel;
use crate::log::{Log, LogLevel};
use crate::parallel;
use crate::perception::PerceptionModule;
use crate::progress::{Phase, Progress, Watcher};
use crate::retrieval::SentenceDatabase;
use crate::runtime::{self, Provider, Runtime, Workers};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Graphs of a bundle: perception module, projector, decoder.
const GRAPHS: u64 = 3;

/// Options of an engine.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EngineBuilder {
    options: runtime::Options,
    look_up: Option<bool>,
    draft_cost: Option<f32>,
    golden_check: Option<bool>,
    memory_limit: Option<u64>,
    public_key: Option<PublicKey>,
    log: Log,
    deadline: Option<Duration>,
    cancel: Option<CancelHandle>,
    progress: Watcher,
}

impl EngineBuilder {
    /// Where to compute; [`Provider::Auto`] by default.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.options.provider = provider;
        self
    }

    /// Number of CPU threads that one caller computes with, for the graphs and for the steps before and after them: 1 to the number of
    /// cores that the process may use ([`runtime::cores`]), or 0 for all of them, which is the default. More threads than cores are an
    /// error. Opening a bundle takes up to three threads for a moment, and [`Radiograph::open`](crate::Radiograph::open), which has no
    /// engine, as many as there are cores.
    ///
    /// Callers of an engine with one thread compute side by side, each on its own thread. Callers of an engine with several threads share
    /// them, so that a single caller is faster and several callers wait for each other.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = (threads > 0).then_some(threads);
        self
    }

    /// The path of ONNX Runtime's library. By default it is searched for: the environment variable `ORT_DYLIB_PATH`, then beside this
    /// library and the program, then `lib` beside the program's folder, then the system's search path. A process loads one library and
    /// keeps it; a later engine that names another one is an error.
    pub fn library(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.library = Some(path.into());
        self
    }

    /// Switches prompt look-up decoding on, which is the default, or off. With it, one run of the decoder verifies several draft tokens,
    /// which are looked up in the prompt and in earlier answers. The answers are the same either way. How many draft tokens a run verifies
    /// depends on how many are accepted and on what a run of several tokens costs on this machine, which is measured while the engine
    /// decodes. An account limits what rejected drafts may cost, to 3 % of the time that plain decoding takes by these measurements.
    pub fn look_up(mut self, look_up: bool) -> Self {
        self.look_up = Some(look_up);
        self
    }

    /// Sets the cost that look-up assumes for one more draft token in a run of the decoder, relative to a run of one token, 0 to 1. By
    /// default the engine measures it. With a given cost, [`Answer::runs`](crate::Answer::runs) and the last digits of log probabilities no
    /// longer depend on the machine's speed: an engine that is asked the same questions in the same order repeats them exactly. But look-up
    /// may then take more time than it saves.
    pub fn draft_cost(mut self, cost: f32) -> Self {
        self.draft_cost = Some(cost);
        self
    }

    /// Limits how many bytes the KV caches of all studies take together, see [`Engine::study_bytes`]; there is no limit by default. A
    /// question that would need more is refused. An answer that comes to need more ends with the tokens decoded so far
    /// ([`crate::Finish::Memory`]).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Whether opening runs the bundle's golden input on the provider and compares the outputs; it does by default. Without this check
    /// opening is faster by about the time that a study's prefill takes, but a provider that computes wrong results goes unnoticed. So
    /// switch it off only for a bundle that was opened before with this library on this machine.
    pub fn golden_check(mut self, golden_check: bool) -> Self {
        self.golden_check = Some(golden_check);
        self
    }

    /// Opens only a bundle whose manifest is signed by the owner of this key, and compares the hashes of all its files, however large they
    /// are: a bundle that is unsigned, altered or signed by another is refused. By default nothing is asked of a signature. `anatomix
    /// bundle sign` and `minisign -S` sign a bundle. If files change between comparing and loading, the bundle is refused. But they stay
    /// mapped afterwards, so nobody else may write into the folder.
    pub fn public_key(mut self, key: PublicKey) -> Self {
        self.public_key = Some(key);
        self
    }

    /// Passes messages about what the engine does to a callback; by default there are none.
    ///
    /// | level | message |
    /// | --- | --- |
    /// | [`LogLevel::Info`] | opening: bundle, provider and why it was chosen, ONNX Runtime's version and path, seconds of each step |
    /// | [`LogLevel::Debug`] | each study: size, time of each step, codes of its flags; each answer: tokens, runs, times, why it ended |
    /// | [`LogLevel::Warning`] | what may make results wrong or slow, for example a processor that the bundle was not checked on |
    /// | [`LogLevel::Error`] | failures inside ONNX Runtime, whose own warnings and errors about the bundle's graphs arrive here, too |
    ///
    /// A message is one line for a person; its wording may change. It holds no data of patients: no names of files, texts, findings or
    /// pixels. A radiograph is named by the first 12 digits of its SHA-256 ([`Provenance::input_sha256`](crate::Provenance)).
    ///
    /// The callback may be called by any thread, and by several at once, until the engine and its last study are dropped. Calls of the
    /// engine wait for it. A panic in it is caught and ignored.
    ///
    /// ```no_run
    /// # fn main() -> anatomix::Result<()> {
    /// let engine = anatomix::Engine::builder().log(|level, message| eprintln!("{level}: {message}")).open("examples/reference-bundle")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn log(mut self, callback: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        self.log = Log::new(callback);
        self
    }

    /// Ends the call this long after it began with [`StoppedError::Deadline`](crate::error::StoppedError::Deadline); no limit by default.
    /// The call ends between two of its parts: a mebibyte of a file that is hashed, a graph that is loaded, a run of the golden input.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }

    /// Ends the call with [`StoppedError::Cancelled`](crate::error::StoppedError::Cancelled) when this handle is cancelled, or at once if
    /// it was cancelled before. It ends where a [deadline](EngineBuilder::deadline) would end it.
    pub fn cancel(mut self, handle: &CancelHandle) -> Self {
        self.cancel = Some(handle.clone());
        self
    }

    /// Calls this with how far the call has come: bytes of the files that are hashed, graphs that are loaded, graphs of the golden input.
    /// A phase begins with 0 and is left out if there is nothing to do in it.
    ///
    /// The callback is called during the call only, by one thread at a time, which may be another than the caller's. The call waits for it.
    /// A panic in it is caught and ignored.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Watcher::new(callback);
        self
    }

    /// Verifies a bundle without opening an engine: the hashes of all its files, however large they are, and the whole sentence database.
    /// With a [public key](EngineBuilder::public_key), its manifest has to be signed by the key's owner. ONNX Runtime is not needed. Of the
    /// options, deadline, cancel handle and progress count, too.
    ///
    /// ```no_run
    /// # fn main() -> anatomix::Result<()> {
    /// let bundle = anatomix::Engine::builder().verify_bundle("examples/reference-bundle")?;
    /// println!("{} is whole: {} files, {} bytes", bundle.name, bundle.files, bundle.bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a file is missing, damaged or altered, the signature is not the owner's, or the call was stopped.
    pub fn verify_bundle(self, bundle: impl AsRef<Path>) -> Result<VerifiedBundle> {
        let until = Until::begin(self.cancel.as_ref(), self.deadline);
        verify::verify(bundle.as_ref(), self.public_key.as_ref(), &until, &self.progress)
    }

    /// Opens a bundle, loads its graphs and runs its golden input on the provider.
    ///
    /// # Errors
    /// If more threads are asked for than the machine has (before anything is read or started), the system refuses threads, a file is
    /// missing, damaged, altered or changed meanwhile, ONNX Runtime or the provider cannot be used, the golden outputs are not reproduced
    /// within 1e-3 of their largest value, or what the manifest allows, or the call was stopped.
    pub fn open(self, bundle: impl AsRef<Path>) -> Result<Engine> {
        let mut steps = Steps::start();
        self.options.check()?;
        let (until, progress) = (Until::begin(self.cancel.as_ref(), self.deadline), &self.progress);
        let bundle = verify::open(bundle.as_ref(), self.public_key.as_ref(), false, &until, progress)?;
        let sentences = SentenceDatabase::open(&bundle.file(SENTENCES), bundle.manifest().apm.embedding_width)?;
        steps.finish("bundle");
        let workers = Workers::new(self.options.threads)?;
        let runtime = Runtime::load(self.options)?.with_log(self.log.clone());
        steps.finish("ONNX Runtime");
        let costs = self.draft_cost.map_or_else(RunCosts::measured, |row| RunCosts::fixed(f64::from(row.clamp(0.0, 1.0))));
        let costs = self.look_up.unwrap_or(true).then_some(costs);
        // ONNX Runtime loads a graph on one thread, so the two models are loaded at once.
        let graphs = progress.begin(Phase::Graphs, GRAPHS);
        let loaded = || -> Result<()> {
            graphs.advance(1);
            Ok(until.check()?)
        };
        until.check()?;
        let module = || PerceptionModule::load(&runtime, &bundle).map_err(Error::from).and_then(|module| loaded().map(|()| module));
        let model = || LanguageModel::load(&runtime, &bundle, self.memory_limit, costs, &loaded);
        let (module, model) = parallel::join(module, model);
        let (module, model) = (module?, Arc::new(model?));
        steps.finish("graphs");
        let timer = Timer::default();
        if self.golden_check.unwrap_or(true) {
            let limits = Limits::within(until.clone(), &timer, || progress.begin(Phase::GoldenCheck, golden::GRAPHS))?;
            golden::check(&bundle.file(GOLDEN), bundle.manifest().tolerances(), &module, &model, &limits)?;
            steps.finish("golden check");
        }
        until.check()?;
        // Files were opened once to compare them, and again to load them.
        bundle.check_unchanged()?;
        let (provider, onnx_runtime, log) = (runtime.provider(), runtime.version(), self.log);
        let is_cpu = provider == Provider::Cpu;
        let processor = is_cpu.then(|| bundle.manifest().processor_note(runtime::processor())).flatten();
        log.write(LogLevel::Info, || {
            let (bundle, library) = (bundle.manifest().name.as_str(), runtime.library().display());
            format!("the bundle {bundle} computes on {provider}, with ONNX Runtime {onnx_runtime} from {library}")
        });
        runtime.notes().iter().for_each(|note| log.write(LogLevel::Info, || note.clone()));
        processor.iter().for_each(|note| log.write(LogLevel::Warning, || note.clone()));
        log.write(LogLevel::Info, || format!("opening took {}", steps.describe()));
        let notes = runtime.notes().iter().cloned().chain(processor).collect();
        Ok(Engine(Arc::new(Inner { bundle, provider, onnx_runtime, notes, workers, module, sentences, model, log, timer })))
    }
}

/// The time of each step of opening.
struct Steps {
    since: Instant,
    seconds: Vec<(&'static str, f64)>,
}

impl Steps {
    fn start() -> Self {
        Self { since: Instant::now(), seconds: Vec::new() }
    }

    fn finish(&mut self, step: &'static str) {
        let now = Instant::now();
        self.seconds.push((step, (now - self.since).as_secs_f64()));
        self.since = now;
    }

    fn describe(&self) -> String {
        self.seconds.iter().map(|(step, seconds)| format!("{step} {seconds:.3} s")).collect::<Vec<_>>().join(", ")
    }
}

impl Engine {
    /// Options, all with good defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }
}
