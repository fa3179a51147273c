//! The engine: an opened bundle on a provider, which its studies share.

use crate::anatomy::{Label, Structure};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::geometry::Letterbox;
use crate::language::LanguageModel;
use crate::log::Log;
use crate::perception::{Perception, PerceptionModule};
use crate::prompt::ContextLine;
use crate::provenance::{Provenance, Timing};
use crate::question::Question;
use crate::radiograph::{PixelHistory, Source};
use crate::results::{LabelScore, Retrieved, StructureResult};
use crate::retrieval::SentenceDatabase;
use crate::runtime::{Provider, Workers};
use crate::study::Study;
use std::sync::{Arc, OnceLock};

mod builder;
mod golden;
mod limits;
mod perceive;
#[cfg(test)]
mod tests;
mod verify;

pub use builder::EngineBuilder;
#[cfg(feature = "capi")]
pub(crate) use limits::Limits;
pub use limits::PerceiveOptions;
pub use verify::VerifiedBundle;

/// An opened bundle. Cloning it is cheap, and the clones share everything.
///
/// # Threads
/// Any number of threads may use an engine at once. Its weights are in memory once. On a CPU, callers of an engine with one thread
/// ([`EngineBuilder::threads`]) compute side by side, each on its own core; callers of an engine with several threads share them. On a GPU,
/// runs take turns. Each study is asked by one caller at a time ([`Study`]), so callers that ask in parallel need a study each.
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
    /// Threads for the work beside the graphs.
    workers: Workers,
    module: PerceptionModule,
    sentences: SentenceDatabase,
    pub(crate) model: Arc<LanguageModel>,
    log: Log,
    timer: limits::Timer,
}

impl Engine {
    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }

    /// Where graphs are computed.
    pub fn provider(&self) -> Provider {
        self.0.provider
    }

    /// Notes on where graphs are computed, a line each: why [`Provider::Auto`] chose the provider, and whether the bundle was checked on
    /// this kind of processor.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// Bytes that the KV cache of a study takes at most for this many tokens: those of its context (about 2,500 with published sizes), and
    /// of the questions and answers of its conversation. An answer counts with the most tokens that it may have
    /// ([`Question::max_tokens`], by default 512). The number is an upper bound: it assumes the shortest possible context, because layers
    /// with a sliding window then store most; [`Study::cache_bytes`](crate::Study::cache_bytes) is what a study takes exactly. It does not
    /// decrease with the number of tokens, and stays the same from the model's longest context on. A study takes
    /// the memory from its first question on until it is dropped. While a cache grows, one layer is held twice.
    ///
    /// An [`EngineBuilder::memory_limit`] equal to the sum of these numbers is enough: no question is refused and no answer ends for lack
    /// of it.
    pub fn study_bytes(&self, tokens: usize) -> u64 {
        self.0.model.study_bytes(tokens)
    }

    /// Runs work that uses several threads on the engine's threads.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.workers.within(work)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

/// What a study is about, beside its perception.
pub(crate) struct Subject<'a> {
    pub name: &'a str,
    pub letterbox: Letterbox,
    pub input_sha256: &'a str,
    pub source: Source,
    pub pixels: PixelHistory,
}

impl Inner {
    /// The study of a perception, with retrieved sentences and the prompt's context, but without flags and timing.
    pub(crate) fn assemble(&self, subject: Subject, perception: Perception) -> Result<Study> {
        let Subject { name, letterbox, input_sha256, source, pixels } = subject;
        let structures = self.retrieve(&perception, &letterbox)?;
        let lines = structures.iter().zip(&perception.boxes).map(|(found, bounds)| ContextLine {
            structure: found.structure,
            grid: bounds.to_grid(),
            sentence: found.sentence.text.clone(),
        });
        let context = self.model.context(&lines.collect::<Vec<_>>())?;
        let labels = Label::ALL.into_iter().zip(perception.scores()).map(|(label, score)| LabelScore { label, score }).collect();
        Ok(Study {
            facts: OnceLock::new(),
            model: Arc::clone(&self.model),
            name: name.into(),
            letterbox,
            source,
            structures,
            labels,
            flags: Vec::new(),
            provenance: self.provenance(input_sha256, pixels),
            timing: Timing::default(),
            perception: Arc::new(perception),
            context,
            conversation: None,
            cancel: Default::default(),
            log: self.log.clone(),
        })
    }

    fn retrieve(&self, perception: &Perception, letterbox: &Letterbox) -> Result<Vec<StructureResult>> {
        let hits = self.sentences.search_all(&perception.object_embeddings, 2)?;
        let found = Structure::all().zip(hits).map(|(structure, hits)| {
            let similarity = |i: usize| hits.get(i).map_or(-1.0, |hit| hit.similarity);
            let text = hits.first().map_or(Ok(""), |hit| self.sentences.sentence(structure, hit.index))?;
            let margin = similarity(0) - similarity(1);
            Ok(StructureResult {
                structure,
                bounds: perception.boxes.get(structure.index()).map(|b| letterbox.restore(b)).unwrap_or_default(),
                sentence: Retrieved { text: text.into(), similarity: similarity(0), margin },
            })
        });
        found.collect()
    }

    fn provenance(&self, input_sha256: &str, pixels: PixelHistory) -> Provenance {
        let manifest = self.bundle.manifest();
        Provenance {
            sdk: env!("CARGO_PKG_VERSION").into(),
            bundle: manifest.name.clone(),
            bundle_sha256: self.bundle.hash().into(),
            provider: self.provider.to_string(),
            precision: manifest.decoder.precision.clone(),
            input_sha256: input_sha256.into(),
            decoding: Question::default().settings(self.model.uses_look_up()),
            scores: "uncalibrated".into(),
            intended_use: "research use, not a medical device".into(),
            onnx_runtime: self.onnx_runtime.clone(),
            pixels,
        }
    }
}
