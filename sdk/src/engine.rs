//! What is opened once: a bundle on a provider.

use crate::anatomy::{Label, Structure};
use crate::bundle::{Bundle, GOLDEN, SENTENCES};
use crate::decoder::{Form, RunCosts, Sampling};
use crate::error::Result;
use crate::findings::{LabelScore, Retrieved, StructureFinding};
use crate::geometry::Letterbox;
use crate::language::LanguageModel;
use crate::perception::{Perception, PerceptionModule, flags};
use crate::prompt::ContextLine;
use crate::provenance::{Provenance, Timing};
use crate::question::MAX_TOKENS;
use crate::radiograph::Radiograph;
use crate::retrieval::SentenceDatabase;
use crate::runtime::{self, Provider, Runtime, Workers};
use crate::study::Study;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

mod golden;
#[cfg(test)]
mod side_by_side;

/// An opened bundle. Cheap to clone; may be shared by threads.
///
/// ```no_run
/// use anatomix::{Engine, Provider, Radiograph, Task};
///
/// # fn main() -> anatomix::Result<()> {
/// let engine = Engine::builder().provider(Provider::Auto).open("examples/reference-bundle")?;
/// let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
/// for found in study.structures() {
///     println!("{:<32} {} {}", found.structure, found.bounds, found.sentence.text);
/// }
/// let report = study.ask(Task::Report)?;
/// println!("{}", report.text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    bundle: Bundle,
    provider: Provider,
    onnx_runtime: String,
    notes: Vec<String>,
    /// For what is done beside the graphs; rayon's own threads where these are no fewer.
    workers: Option<Workers>,
    module: PerceptionModule,
    sentences: SentenceDatabase,
    pub(crate) model: Arc<LanguageModel>,
}

/// Options of an engine.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EngineBuilder {
    options: runtime::Options,
    look_up: Option<bool>,
    row_cost: Option<f32>,
    golden_check: Option<bool>,
    memory_limit: Option<u64>,
}

impl EngineBuilder {
    /// Where to compute; [`Provider::Auto`] if not said.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.options.provider = provider;
        self
    }

    /// Threads on the CPU that one caller computes with, for the graphs and for what the engine does before and after them: 1 to the
    /// number of cores that the process may use ([`runtime::cores`]), all of them for 0 or if not said. More cannot be asked for, since
    /// they would only wait for each other. Opening a bundle takes up to three for a moment, and [`Radiograph::open`] rayon's own.
    ///
    /// Callers of an engine of one thread compute side by side, each on its own thread. Callers of an engine of several share the
    /// graphs' threads, so that one caller alone is quicker and several take turns at what is left.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = (threads > 0).then_some(threads);
        self
    }

    /// ONNX Runtime's library; if not said, the environment's `ORT_DYLIB_PATH`, beside this library or the program, the
    /// system's. A process loads one library, which stays; to name another one after that is an error.
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

    /// Sets what look-up takes one more token to cost in a run of the decoder, as a share of a run of one token, 0 to 1. By default the
    /// engine measures it. With a given cost, [`Answer::runs`](crate::Answer::runs) and the last digits of log probabilities no longer
    /// depend on the machine's speed: an engine that is asked the same questions in the same order repeats them exactly. But look-up may
    /// then take more time than it saves.
    pub fn row_cost(mut self, cost: f32) -> Self {
        self.row_cost = Some(cost);
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

    /// Opens a bundle, loads its graphs and runs its golden input on the provider.
    ///
    /// # Errors
    /// If more threads are asked for than the machine has (before anything is read or started), a file is missing, damaged or altered,
    /// ONNX Runtime or the provider cannot be used, or the golden outputs are not reproduced within 1e-3 of their largest value, or what
    /// the manifest allows.
    pub fn open(self, bundle: impl AsRef<Path>) -> Result<Engine> {
        self.options.check()?;
        let bundle = Bundle::open(bundle)?;
        let sentences = SentenceDatabase::open(&bundle.file(SENTENCES), bundle.manifest().apm.embedding_width)?;
        let workers = Workers::new(self.options.threads)?;
        let runtime = Runtime::load(self.options)?;
        let costs = self.row_cost.map_or_else(RunCosts::measured, |row| RunCosts::fixed(f64::from(row.clamp(0.0, 1.0))));
        let costs = self.look_up.unwrap_or(true).then_some(costs);
        // Loading a graph keeps one thread busy, so both are loaded at once.
        let (module, model) = std::thread::scope(|scope| {
            let module = scope.spawn(|| PerceptionModule::load(&runtime, &bundle));
            let model = LanguageModel::load(&runtime, &bundle, self.memory_limit, costs);
            (module.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), model)
        });
        let (module, model) = (module?, Arc::new(model?));
        if self.golden_check.unwrap_or(true) {
            golden::check(&bundle.file(GOLDEN), bundle.manifest().tolerances(), &module, &model)?;
        }
        let (provider, onnx_runtime, mut notes) = (runtime.provider(), runtime.version(), runtime.notes().to_vec());
        if provider == Provider::Cpu {
            notes.extend(bundle.manifest().processor_note(runtime::processor()));
        }
        Ok(Engine(Arc::new(Inner { bundle, provider, onnx_runtime, notes, workers, module, sentences, model })))
    }
}

/// How many tokens [`Engine::study_bytes`] allows for a question.
const QUESTION: usize = 256;

/// Takes the time of steps, in milliseconds.
#[derive(Clone)]
struct Clock {
    timing: Timing,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { timing: Timing::default(), since: Instant::now() }
    }

    /// A step is over that was done for so many.
    fn lap(&mut self, step: fn(&mut Timing) -> &mut Option<f64>, count: usize) {
        *step(&mut self.timing) = Some(self.since.elapsed().as_secs_f64() * 1e3 / count as f64);
        self.restart();
    }

    fn restart(&mut self) {
        self.since = Instant::now();
    }
}

impl Engine {
    /// Options, all with good defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }

    /// Where graphs are computed.
    pub fn provider(&self) -> Provider {
        self.0.provider
    }

    /// What is worth knowing about where graphs are computed, a line each: why [`Provider::Auto`] settled on the provider, and that the
    /// bundle was checked on other kinds of processors only.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// Bytes that the KV cache of a study with this many computed tokens takes at most: those of its context (about 2,500 with published
    /// sizes), up to 256 of a question, and those of its answer (at most 512 unless the question says otherwise). The price never falls
    /// with the number of tokens, and from the model's longest context on it stays the same. A study takes the memory from its first
    /// question on until it is dropped. A longer conversation takes more; while a cache grows, one layer is held twice.
    pub fn study_bytes(&self, tokens: usize) -> u64 {
        self.0.model.decoder.cache_bytes(tokens, MAX_TOKENS + QUESTION)
    }

    /// Perceives a radiograph and retrieves a sentence for each structure. The language model waits for a question.
    ///
    /// # Errors
    /// If a graph fails, or what it retrieves of the sentence database is damaged.
    pub fn study(&self, radiograph: &Radiograph) -> Result<Study> {
        self.within(|| self.perceive(radiograph))
    }

    fn perceive(&self, radiograph: &Radiograph) -> Result<Study> {
        let engine = &self.0;
        let mut clock = Clock::start();
        let image = radiograph.preprocess(&engine.bundle.manifest().preprocess)?;
        clock.lap(|timing| &mut timing.preprocess, 1);
        // What is left of the file's hash is worked out meanwhile.
        let (perception, _) = rayon::join(|| engine.module.run(&image), || radiograph.sha256());
        clock.lap(|timing| &mut timing.perceive, 1);
        self.perceived(radiograph, perception?, clock)
    }

    /// Perceives several radiographs: the outcomes are those of [`Engine::study`] for each, in the same order. One that fails takes
    /// nothing from the others. They are prepared side by side, and up to [`Engine::batch`] of them are looked at in one run of the
    /// perception module. Their timing is the share of each in what they took together.
    ///
    /// ```no_run
    /// # fn main() -> anatomix::Result<()> {
    /// use anatomix::{Engine, Radiograph};
    /// let engine = Engine::builder().open("examples/reference-bundle")?;
    /// let radiographs = [Radiograph::open("a.dcm")?, Radiograph::open("b.dcm")?];
    /// for (radiograph, study) in radiographs.iter().zip(engine.studies(&radiographs)) {
    ///     match study {
    ///         Ok(study) => println!("{}: {} flags", study.name(), study.flags().len()),
    ///         Err(error) => eprintln!("{}: {error}", radiograph.name()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn studies(&self, radiographs: &[Radiograph]) -> Vec<Result<Study>> {
        self.within(|| radiographs.chunks(self.batch()).flat_map(|batch| self.perceive_batch(batch)).collect())
    }

    /// What becomes of radiographs that are looked at in one run. Where that run fails, each is tried by itself.
    fn perceive_batch(&self, batch: &[Radiograph]) -> Vec<Result<Study>> {
        let engine = &self.0;
        let preprocess = &engine.bundle.manifest().preprocess;
        let mut clock = Clock::start();
        let prepared: Vec<_> = batch.par_iter().map(|radiograph| radiograph.preprocess(preprocess)).collect();
        clock.lap(|timing| &mut timing.preprocess, batch.len());
        let mut images = Vec::with_capacity(batch.len());
        let failures: Vec<_> = prepared.into_iter().map(|one| one.map(|image| images.push(image)).err()).collect();
        let hash = || batch.par_iter().for_each(|radiograph| _ = radiograph.sha256());
        let (perceptions, ()) = rayon::join(|| engine.module.run_batch(&images), hash);
        clock.lap(|timing| &mut timing.perceive, batch.len());
        let Ok(perceptions) = perceptions else {
            return batch.iter().map(|radiograph| self.perceive(radiograph)).collect();
        };
        let mut perceptions = perceptions.into_iter();
        let studies = batch.iter().zip(failures).filter_map(|(radiograph, failure)| match failure {
            Some(error) => Some(Err(error.into())),
            None => {
                let study = self.perceived(radiograph, perceptions.next()?, clock.clone());
                clock.restart();
                Some(study)
            }
        });
        studies.collect()
    }

    /// Up to how many radiographs [`Engine::studies`] looks at in one run: 8, or fewer where the bundle's input is so large that
    /// their memory would count. Whoever opens files for it does well to open as many at a time.
    pub fn batch(&self) -> usize {
        self.0.module.batch()
    }

    /// A study of what was perceived, with its flags.
    fn perceived(&self, radiograph: &Radiograph, perception: Perception, mut clock: Clock) -> Result<Study> {
        let letterbox = Letterbox::new(radiograph.width(), radiograph.height());
        let mut study = self.0.assemble(radiograph.name(), letterbox, radiograph.sha256(), perception)?;
        clock.lap(|timing| &mut timing.retrieve, 1);
        study.timing = clock.timing;
        study.flags = flags::of_radiograph(radiograph);
        let margins: Vec<f32> = study.structures.iter().map(|s| s.sentence.margin).collect();
        study.flags.extend(flags::of_perception(&study.perception.boxes, &margins, radiograph.header().orientation));
        Ok(study)
    }

    /// Does what takes several threads with as many as the engine may use.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0.workers {
            Some(workers) => workers.within(work),
            None => work(),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

impl Inner {
    /// A study of what was perceived: sentences are retrieved and the prompt is made. It has no flags yet.
    pub(crate) fn assemble(&self, name: &str, letterbox: Letterbox, input_sha256: &str, perception: Perception) -> Result<Study> {
        let structures = self.retrieve(&perception, &letterbox)?;
        let lines = structures.iter().zip(&perception.boxes).map(|(found, bounds)| ContextLine {
            structure: found.structure,
            grid: bounds.to_grid(),
            sentence: found.sentence.text.clone(),
        });
        let context = self.model.tokenizer.context(&lines.collect::<Vec<_>>(), self.bundle.manifest().apm.patches)?;
        let labels = Label::ALL.into_iter().zip(perception.scores()).map(|(label, score)| LabelScore { label, score }).collect();
        Ok(Study {
            model: Arc::clone(&self.model),
            name: name.into(),
            letterbox,
            structures,
            labels,
            flags: Vec::new(),
            provenance: self.provenance(input_sha256),
            timing: Timing::default(),
            perception,
            context,
            conversation: None,
            cancel: Default::default(),
        })
    }

    fn retrieve(&self, perception: &Perception, letterbox: &Letterbox) -> Result<Vec<StructureFinding>> {
        let hits = self.sentences.search_all(&perception.object_embeddings, 2)?;
        let found = Structure::all().zip(hits).map(|(structure, hits)| {
            let similarity = |i: usize| hits.get(i).map_or(-1.0, |hit| hit.similarity);
            let text = hits.first().map_or(Ok(""), |hit| self.sentences.sentence(structure, hit.index))?;
            let margin = similarity(0) - similarity(1);
            Ok(StructureFinding {
                structure,
                bounds: perception.boxes.get(structure.index()).map(|b| letterbox.restore(b)).unwrap_or_default(),
                sentence: Retrieved { text: text.into(), similarity: similarity(0), margin },
            })
        });
        found.collect()
    }

    fn provenance(&self, input_sha256: &str) -> Provenance {
        let manifest = self.bundle.manifest();
        Provenance {
            sdk: env!("CARGO_PKG_VERSION").into(),
            bundle: manifest.name.clone(),
            bundle_sha256: self.bundle.hash().into(),
            provider: self.provider.to_string(),
            precision: manifest.decoder.precision.clone(),
            input_sha256: input_sha256.into(),
            decoding: format!("{}, {}", Sampling::default(), Form::default()),
            scores: "uncalibrated".into(),
            intended_use: "research use, not a medical device".into(),
            onnx_runtime: self.onnx_runtime.clone(),
        }
    }
}
