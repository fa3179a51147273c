//! From a run to a bundle: three graphs, the sentence database, the tokenizer, a golden input and the manifest. A run that does
//! not hold all of it yet gives the graphs of what it holds.
//!
//! Equal runs give equal bytes: nothing in a bundle depends on when, where or how often it was made, nor on the machine. What is
//! computed for it is computed in fp64 and stored on a [`grid`], or by operations that are exact or have one order.

mod calibration;
mod check;
mod deviation;
mod files;
mod golden;
mod graphs;
mod grid;
mod manifest;
mod phantom;
mod prompt;
mod replace;
mod settings;

pub use check::Check;
pub use deviation::{ApmDeviation, DecoderDeviation, Deviations, Measured};
pub use graphs::{apm as write_apm, check_apm, check_decoder, decoder as write_decoder, projector as write_projector};
pub use settings::{Measure, Settings};

use crate::graph::onnx::Precision;
use crate::graph::{Params, ParamsError, Torch, TorchTensor};
use crate::models::text::project;
use crate::run::{self, Run};
use crate::training::perceived::Database;
use crate::training::progress;
use anatomix::parts::bundle;
use anatomix::parts::prompt::PromptTokenizer;
use anatomix::parts::retrieval::{self, SentenceDatabase, SentenceList};
use anyhow::{Context, Result, bail};
use files::{contents, write};
use serde::Serialize;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// The bundle's name.
    pub name: String,
    /// All files, in order.
    pub files: Vec<String>,
    /// Their size in bytes.
    pub bytes: u64,
    /// SHA-256 of the manifest; `None` for a part of a bundle.
    pub sha256: Option<String>,
    /// What the run lacks for a bundle, with what makes it.
    pub missing: Vec<String>,
    /// Whether the bundle's golden input came out right.
    pub check: Check,
    /// How far the graphs are from fp32.
    pub deviations: Deviations,
}

/// Exports a run. The folder appears whole or not at all: a bundle if the run holds everything, otherwise graphs alone. A bundle that the
/// SDK does not reproduce the golden input of leaves what was at its place as it was.
///
/// # Errors
/// If the run holds nothing to export, a file of it does not fit its configuration, a precision does not suit its model, the
/// folder cannot be written, or the SDK does not open what was written.
pub fn export(run: &Run, settings: &Settings) -> Result<Exported> {
    check_apm(settings.apm)?;
    check_decoder(settings.decoder, settings.operators)?;
    let models = run.models()?;
    let held = Held::look(run)?;
    if !(held.apm || held.language || held.adapter) {
        bail!("{} holds no model to export; it lacks {}", run.folder.display(), held.missing.join("; "));
    }
    let place = replace::Place::new(&settings.out)?;
    let folder = place.folder();
    let bar = progress::bar(8, "exporting");
    let begin = |file: &str| bar.set_message(file.to_string());
    let _guard = tch::no_grad_guard();

    let mut apm = None;
    let mut database = None;
    if held.apm {
        begin(bundle::APM);
        let path = run.file(run::APM);
        let perception = Params::load(&path, Device::Cpu)?;
        let int8 = settings.apm == Precision::Int8;
        let ranges = int8.then(|| calibration::ranges(&models, &perception, settings.calibrate.as_deref())).transpose()?;
        apm = Some(graphs::apm(&folder.join(bundle::APM), &models.apm, &perception, settings.apm, ranges)?);
        bar.inc(1);
        if held.whole() {
            begin(bundle::SENTENCES);
            database = Some(sentences(&Database::build(run, &models, &perception, Kind::Double)?)?);
            perception.check(&path)?;
        } else {
            // The projection of sentences is part of the file too, unless the module was imported alone.
            if perception.shape(TEXT_PROJECTION).is_some() {
                let sentence = TorchTensor(Tensor::zeros([1, models.text.width], (Kind::Float, Device::Cpu)));
                let _ = project(&Torch::new(&perception), &models.text, models.apm.embedding, &sentence);
            }
            perception.check(&path)?;
        }
        bar.inc(1);
    }
    let language = language(run, &held)?;
    let mut projector = None;
    if held.projectors {
        begin(bundle::PROJECTOR);
        projector = Some(graphs::projector(&folder.join(bundle::PROJECTOR), &models, &language, settings.projector())?);
        bar.inc(1);
    }
    let mut decoder = None;
    if held.language {
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
        // Readers check what they use only.
        SentenceDatabase::open(&path, models.apm.embedding as usize)?.verify()?;
        begin(bundle::TOKENIZER);
        let source = run.file(run::TOKENIZER);
        let tokenizer = PromptTokenizer::open(&source)?;
        let bytes = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        write(&folder.join(bundle::TOKENIZER), &bytes)?;
        bar.inc(1);

        begin(bundle::GOLDEN);
        let settled = golden::Settled { apm, projector, decoder };
        golden::write(&folder.join(bundle::GOLDEN), &models, &settled, &tokenizer, database)?;
        bar.inc(1);

        begin(bundle::MANIFEST);
        manifest::write(folder, &name, &models, settings)?;
        bar.inc(1);
    }
    drop((apm, projector));
    let check = if held.whole() {
        begin("golden input");
        check::check(folder, settings)?
    } else {
        Check::LeftOut("graphs alone have no golden input".into())
    };
    bar.inc(1);
    begin("deviations");
    let decoder = decoder.map(|settled| deviation::Decoder { settled, given: language });
    let deviations = deviation::measure(folder, run, &models, settings, decoder)?;
    bar.finish_and_clear();
    let (files, bytes) = contents(folder)?;
    place.install()?;
    let sha256 = if held.whole() { Some(bundle::Bundle::open(&settings.out)?.hash().into()) } else { None };
    Ok(Exported { name, files, bytes, sha256, missing: held.missing, check, deviations })
}

/// A parameter of the projection of sentences.
const TEXT_PROJECTION: &str = "project_head.proj.0.weight";
/// A parameter of the projectors.
const PROJECTORS: &str = "image_projectionhead.proj.0.weight";

/// What a run holds.
struct Held {
    apm: bool,
    language: bool,
    adapter: bool,
    projectors: bool,
    missing: Vec<String>,
}

impl Held {
    fn look(run: &Run) -> Result<Self> {
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
        // What was imported may lack a part of a file that training writes whole.
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

    fn whole(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Base model, projectors and adapters; what was trained in full stands in the base's place.
fn language(run: &Run, held: &Held) -> Result<Params> {
    let files = [(held.language, run::LANGUAGE), (held.adapter, run::ADAPTER)];
    let files: Vec<PathBuf> = files.into_iter().filter(|(there, _)| *there).map(|(_, file)| run.file(file)).collect();
    Ok(Params::lazy(&files)?)
}

/// A database as it is stored: its writer makes rows of length one of these, by operations that are the same anywhere.
fn sentences(database: &Database) -> Result<Vec<SentenceList>> {
    let lists = database.sentences.iter().zip(&database.embeddings);
    lists
        .map(|(sentences, embeddings)| {
            let embeddings = grid::rounded("embeddings of sentences", embeddings)?.flatten(0, -1);
            Ok(SentenceList { sentences: sentences.clone(), embeddings: Vec::<f32>::try_from(embeddings)? })
        })
        .collect()
}
