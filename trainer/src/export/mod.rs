//! From a run to a bundle: three graphs, the sentence database, the tokenizer, a golden input and the manifest.
//!
//! Equal runs give equal bytes: nothing in a bundle depends on when, where or how often it was made.

mod golden;
mod graphs;
mod manifest;
mod replace;

pub use graphs::{apm as write_apm, decoder as write_decoder, projector as write_projector};

use crate::graph::Params;
use crate::graph::onnx::Storage;
use crate::run::{self, Run};
use crate::training::perceived::Database;
use crate::training::progress;
use anatomix::bundle;
use anatomix::prompt::PromptTokenizer;
use anatomix::retrieval::{self, SentenceList};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// What to make.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bundle's folder. One that is there is replaced if it is a bundle.
    pub out: PathBuf,
    /// How large weights are stored.
    pub storage: Storage,
    /// The bundle's name; the run folder's where this is `None`.
    pub name: Option<String>,
}

/// What a bundle is, once it is there.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// SHA-256 of its manifest.
    pub sha256: String,
}

/// Exports a run. The bundle appears whole or not at all.
///
/// # Errors
/// If a file of the run is missing or does not fit its configuration, or the bundle cannot be written.
pub fn export(run: &Run, settings: &Settings) -> Result<Exported> {
    let models = run.models()?;
    let place = replace::Place::new(&settings.out)?;
    let folder = place.folder();
    let bar = progress::bar(7, "exporting");
    let begin = |file: &str| bar.set_message(file.to_string());
    let _guard = tch::no_grad_guard();

    begin(bundle::APM);
    let apm_path = run.file(run::APM);
    let perception = Params::load(&apm_path, Device::Cpu).context("the run has no perception module; run `train apm` first")?;
    let apm = graphs::apm(&folder.join(bundle::APM), &models.apm, &perception, settings.storage)?;
    bar.inc(1);

    begin(bundle::SENTENCES);
    let database = Database::build(run, &models, &perception)?;
    perception.check(&apm_path)?;
    write_sentences(&folder.join(bundle::SENTENCES), &database)?;
    bar.inc(1);

    begin(bundle::PROJECTOR);
    let language = language(run)?;
    let projector = graphs::projector(&folder.join(bundle::PROJECTOR), &models, &language, settings.storage)?;
    bar.inc(1);
    begin(bundle::DECODER);
    let decoder = graphs::decoder(&folder.join(bundle::DECODER), &models, &language, settings.storage)?;
    language.check(&run.folder)?;
    bar.inc(1);

    begin(bundle::TOKENIZER);
    let source = run.file(run::TOKENIZER);
    let tokenizer = PromptTokenizer::open(&source)?;
    let bytes = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    write(&folder.join(bundle::TOKENIZER), &bytes)?;
    bar.inc(1);

    begin(bundle::GOLDEN);
    let settled = golden::Settled { apm: &apm, projector: &projector, decoder: &decoder };
    golden::write(&folder.join(bundle::GOLDEN), &models, &settled, &tokenizer, &database)?;
    bar.inc(1);

    begin(bundle::MANIFEST);
    let name = match &settings.name {
        Some(name) => name.clone(),
        None => run.folder.canonicalize()?.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned()),
    };
    manifest::write(folder, &name, &models, settings.storage)?;
    bar.inc(1);
    bar.finish_and_clear();
    place.install()?;
    let made = bundle::Bundle::open(&settings.out)?;
    Ok(Exported { name, bytes: made.bytes(), sha256: made.hash().into() })
}

/// Base model, projectors and adapters; what was trained in full stands in the base's place.
fn language(run: &Run) -> Result<Params> {
    let load = |file: &str, steps: &str| {
        Params::load(&run.file(file), Device::Cpu).with_context(|| format!("the run's language model is not complete; run {steps} first"))
    };
    let params = load(run::LANGUAGE, "`train language`")?;
    let adapter = load(run::ADAPTER, "`train align` and `train instruct`")?;
    for (name, tensor) in adapter.named() {
        params.insert(&name, tensor);
    }
    Ok(params)
}

fn write_sentences(path: &Path, database: &Database) -> Result<()> {
    let lists = database
        .sentences
        .iter()
        .zip(&database.embeddings)
        .map(|(sentences, embeddings)| {
            let embeddings = embeddings.to_kind(Kind::Float).flatten(0, -1);
            Ok(SentenceList { sentences: sentences.clone(), embeddings: Vec::<f32>::try_from(embeddings)? })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(retrieval::write(path, &lists)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
