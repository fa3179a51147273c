//! Export of a run as a bundle: three graphs, the sentence database, the tokenizer, a golden input and the manifest. An incomplete run is
//! exported as the graphs of the models that it has.
//!
//! Equal runs give equal bytes: a bundle depends neither on the time, the folder or the number of the export nor on the machine. Stored
//! figures are computed in fp64 and rounded to a [`grid`], or by operations that are exact or have a fixed order.

mod calibration;
mod check;
mod destination;
mod deviation;
mod files;
mod golden;
mod graphs;
mod grid;
mod manifest;
mod phantom;
mod prompt;
mod settings;

pub use check::Check;
pub use deviation::{ApmDeviation, DecoderDeviation, Deviations, Measured};
pub use graphs::{apm as write_apm, check_apm, check_decoder, decoder as write_decoder, projector as write_projector};
pub use settings::{Measure, Settings};

use crate::destination::Destination;
use crate::graph::onnx::Precision;
use crate::graph::{Params, ParamsError, Torch, TorchTensor};
use crate::models::gemma::HEAD;
use crate::models::text::project;
use crate::progress;
use crate::run::{self, Run};
use crate::training::perception_outputs::Database;
use anatomix::parts::bundle;
use anatomix::parts::prompt::PromptTokenizer;
use anatomix::parts::retrieval::{self, SentenceDatabase, SentenceList};
use anyhow::{Context, Result, bail};
use files::{contents, write};
use serde::Serialize;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// The result of an export.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// The bundle's name.
    pub name: String,
    /// Names of all files, sorted.
    pub files: Vec<String>,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// SHA-256 of the manifest; `None` for an incomplete bundle.
    pub sha256: Option<String>,
    /// What the run lacks for a bundle, with the commands that make it.
    pub missing: Vec<String>,
    /// Result of the golden check.
    pub check: Check,
    /// Deviations of the graphs from fp32.
    pub deviations: Deviations,
}

/// Exports a run: as a bundle if the run is complete, otherwise as graphs alone. The folder appears completely or not at all. If the SDK
/// does not reproduce the bundle's golden outputs, an earlier bundle at the same path stays.
///
/// # Errors
/// If the run has no model, one of its files does not fit its configuration, a precision is not supported for its model, the folder cannot
/// be written, or the SDK does not open the bundle.
pub fn export(run: &Run, settings: &Settings) -> Result<Exported> {
    check_apm(settings.apm)?;
    check_decoder(settings.decoder, settings.operators)?;
    let mut models = run.models()?;
    let parts = Parts::find(run)?;
    if !(parts.apm || parts.language || parts.adapter) {
        bail!("{} holds no model to export; it lacks {}", run.folder.display(), parts.missing.join("; "));
    }
    let destination = Destination::new(&settings.out, destination::check_replaceable)?;
    let folder = destination.folder();
    let bar = progress::bar(8, "exporting");
    let begin = |file: &str| bar.set_message(file.to_string());
    let _guard = tch::no_grad_guard();

    let mut apm = None;
    let mut database = None;
    if parts.apm {
        begin(bundle::APM);
        let path = run.file(run::APM);
        let perception = Params::load(&path, Device::Cpu)?;
        let int8 = settings.apm == Precision::Int8;
        let ranges = int8.then(|| calibration::ranges(&models, &perception, settings.calibrate.as_deref())).transpose()?;
        apm = Some(graphs::apm(&folder.join(bundle::APM), &models.apm, &perception, settings.apm, ranges)?);
        bar.inc(1);
        if parts.is_complete() {
            begin(bundle::SENTENCES);
            database = Some(sentences(&Database::build(run, &models, &perception, Kind::Double)?)?);
            perception.check(&path)?;
        } else {
            // The projection of sentences is in the same file, unless the module was imported alone.
            if perception.shape(TEXT_PROJECTION).is_some() {
                let sentence = TorchTensor(Tensor::zeros([1, models.text.width], (Kind::Float, Device::Cpu)));
                let _ = project(&Torch::new(&perception), &models.text, models.apm.embedding, &sentence);
            }
            perception.check(&path)?;
        }
        bar.inc(1);
    }
    let language = language(run, &parts)?;
    // Instruction tuning may have given the output layer a table of its own.
    models.language.tie_word_embeddings &= language.shape(HEAD).is_none();
    let mut projector = None;
    if parts.projectors {
        begin(bundle::PROJECTOR);
        projector = Some(graphs::projector(&folder.join(bundle::PROJECTOR), &models, &language, settings.projector())?);
        bar.inc(1);
    }
    let mut decoder = None;
    if parts.language {
        begin(bundle::DECODER);
        let path = folder.join(bundle::DECODER);
        decoder = Some(graphs::decoder(&path, &models, &language, settings.decoder, settings.operators)?);
        language.check(&run.folder)?;
        bar.inc(1);
    }

    let name = match &settings.name {
        Some(name) => name.clone(),
        None => run.folder.canonicalize()?.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned()),
    };
    if let (Some(apm), Some(projector), Some(decoder), Some(database)) = (&apm, &projector, &decoder, &database) {
        let path = folder.join(bundle::SENTENCES);
        retrieval::write(&path, database)?;
        // Opening does not check everything.
        SentenceDatabase::open(&path, models.apm.embedding as usize)?.verify()?;
        begin(bundle::TOKENIZER);
        let source = run.file(run::TOKENIZER);
        let tokenizer = PromptTokenizer::open(&source)?;
        let bytes = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        write(&folder.join(bundle::TOKENIZER), &bytes)?;
        bar.inc(1);

        begin(bundle::GOLDEN);
        let stored = golden::Stored { apm, projector, decoder };
        golden::write(&folder.join(bundle::GOLDEN), &models, &stored, &tokenizer, database)?;
        bar.inc(1);

        begin(bundle::MANIFEST);
        manifest::write(folder, &name, &models, settings)?;
        bar.inc(1);
    }
    drop((apm, projector));
    let check = if parts.is_complete() {
        begin("golden input");
        check::check(folder, settings)?
    } else {
        Check::LeftOut("graphs alone have no golden input".into())
    };
    bar.inc(1);
    begin("deviations");
    let decoder = decoder.map(|stored| deviation::Decoder { stored, original: language });
    let deviations = deviation::measure(folder, run, &models, settings, decoder)?;
    bar.finish_and_clear();
    let (files, bytes) = contents(folder)?;
    destination.install()?;
    let sha256 = if parts.is_complete() { Some(anatomix::Bundle::open(&settings.out)?.hash().into()) } else { None };
    Ok(Exported { name, files, bytes, sha256, missing: parts.missing, check, deviations })
}

/// A parameter that exists if the file has the projection of sentences.
const TEXT_PROJECTION: &str = "project_head.proj.0.weight";
/// A parameter that exists if the file has the projectors.
const PROJECTORS: &str = "image_projectionhead.proj.0.weight";

/// The parts of a run.
struct Parts {
    apm: bool,
    language: bool,
    adapter: bool,
    projectors: bool,
    missing: Vec<String>,
}

impl Parts {
    fn find(run: &Run) -> Result<Self> {
        let has = |file: &str| run.file(file).exists();
        let needed = [
            (run::TOKENIZER, "`train text` or `import --language`"),
            (run::TEXT, "`train text` or `import --text-encoder`"),
            (run::APM, "`train apm` or `import --apm`"),
            (run::SENTENCES, "`train apm` or `import --sentences`"),
            (run::LANGUAGE, "`train language` or `import --language`"),
            (run::ADAPTER, "`train align` and `train instruct`, or `import --adapter`"),
        ];
        let missing = needed.into_iter().filter(|(file, _)| !has(file)).map(|(file, steps)| format!("{file}, from {steps}"));
        let mut missing: Vec<String> = missing.collect();
        // Imported files may lack a part that training always writes.
        let mut part = |file: &str, name: &str, lacking: &str| {
            let there = has(file) && Params::lazy(&[run.file(file)])?.shape(name).is_some();
            if has(file) && !there {
                missing.push(format!("{lacking} in {file}"));
            }
            Ok::<bool, ParamsError>(there)
        };
        part(run::APM, TEXT_PROJECTION, "the projection of sentences, from `train apm`,")?;
        let projectors = part(run::ADAPTER, PROJECTORS, "the projectors, from `train align`,")?;
        Ok(Self { apm: has(run::APM), language: has(run::LANGUAGE), adapter: has(run::ADAPTER), projectors, missing })
    }

    fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Parameters of base model, projectors and adapters. Parameters that were trained in full replace those of the base model.
fn language(run: &Run, parts: &Parts) -> Result<Params> {
    let files = [(parts.language, run::LANGUAGE), (parts.adapter, run::ADAPTER)];
    let files: Vec<PathBuf> = files.into_iter().filter(|(there, _)| *there).map(|(_, file)| run.file(file)).collect();
    Ok(Params::lazy(&files)?)
}

/// The sentences with embeddings on the grid. The database's writer normalises them by operations that give the same bits everywhere.
fn sentences(database: &Database) -> Result<Vec<SentenceList>> {
    let lists = database.sentences.iter().zip(&database.embeddings);
    lists
        .map(|(sentences, embeddings)| {
            let embeddings = grid::rounded("embeddings of sentences", embeddings)?.flatten(0, -1);
            Ok(SentenceList { sentences: sentences.clone(), embeddings: Vec::<f32>::try_from(embeddings)? })
        })
        .collect()
}
