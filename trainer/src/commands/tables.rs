//! The command `tables`.

use super::phantom::MARK;
use crate::evaluation::{Case, read};
use crate::predictions::file::{self, key};
use crate::predictions::form::Form;
use crate::predictions::judges::{Folders, Judges};
use crate::predictions::scores::{Figures, figures};
use crate::progress;
use crate::tables::groups::{Condition, Given, Measured, label_scores};
use crate::tables::journal::{Answer, Record};
use crate::tables::layout::{Model, Table, tables};
use crate::tables::measure::measure;
use crate::tables::shown::{Shown, look};
use crate::tables::{forms, page, render};
use anatomix::output::write_whole;
use anatomix::{Engine, Provider, Task};
use anyhow::{Context, Result, bail, ensure};
use rayon::ThreadPool;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure a bundle on the test split of a prepared folder, and write the paper's tables with the paper's figures beside it.
///
/// The answers are kept in OUT image by image: an interrupted command goes on when it is called again.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the bundle.
    #[arg(long)]
    bundle: PathBuf,
    /// Prepared folder, or folder of phantoms; phantoms with training seeds are refused.
    #[arg(long)]
    data: PathBuf,
    /// The same images without markers and text, as `phantom --without-markers` draws them, for table E1.
    #[arg(long, value_name = "DIR")]
    without_markers: Option<PathBuf>,
    /// Answers of another model: MODEL=FILE, where MODEL is RadVLM, MAIRA-2, CheXagent, RaDialog, MedGemma or AnatomiX.
    #[arg(long, value_name = "MODEL=FILE")]
    predictions: Vec<String>,
    /// Folder that is written: tables.md, tables.csv, tables.json, tables.html, and the answers.
    #[arg(long)]
    out: PathBuf,
    /// Also write the questions in the form of these models, separated by commas: OUT/MODEL.jsonl, to which their answers are added. A file
    /// with answers is not replaced.
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    form: Vec<String>,
    /// Leave mirrored images out.
    #[arg(long)]
    skip_mirrored: bool,
    /// Largest number of images [default: all].
    #[arg(long)]
    limit: Option<usize>,
    /// Largest number of questions for each task and image [default: all].
    #[arg(long)]
    questions: Option<usize>,
    #[command(flatten)]
    judges: Folders,
    /// Execution provider.
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Number of images that are measured in parallel [default: one per core, one on a GPU].
    #[arg(long)]
    workers: Option<usize>,
    /// Number of threads of the engine. Each image is computed on one thread by default.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seed of the resampling for confidence intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What tables.json holds.
#[derive(Serialize)]
struct Results<'a> {
    bundle: &'a str,
    bundle_sha256: &'a str,
    images: usize,
    flagged_images: usize,
    labels: Figures,
    tables: &'a [Table],
    models: &'a [Model],
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    // Everything that can be wrong with files is found before an hour of measuring.
    let others = arguments.predictions.iter().map(|given| Other::read(given)).collect::<Result<Vec<_>>>()?;
    let forms = arguments.form.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?;
    for &form in &forms {
        forms::ensure_replaceable(&arguments.out, form)?;
    }
    let judges = Judges::open(&arguments.judges)?;
    let questions = arguments.questions.unwrap_or(usize::MAX);
    let cases = read(&arguments.data, &Task::ALL, questions, arguments.limit)?;
    let mut shown = vec![Shown::new(Condition::Upright, cases)?];
    if !arguments.skip_mirrored {
        shown.push(Shown::new(Condition::Mirrored, shown[0].cases.clone())?);
    }
    if let Some(folder) = &arguments.without_markers {
        ensure_without_markers(folder)?;
        let unmarked = Shown::new(Condition::Unmarked, read(folder, &Task::ALL, questions, arguments.limit)?)?;
        shown[0].ensure_same_questions(&unmarked, folder)?;
        shown.push(unmarked);
    }
    for other in &others {
        other.check(&shown)?;
    }
    let pool = workers(arguments, shown[0].cases.len())?;
    let files = shown.iter().filter(|own| !own.mirrored()).map(|own| own.cases.len() as u64).sum();
    let bar = progress::bar(files, "checking images");
    look(&mut shown, &pool, || bar.inc(1))?;
    bar.finish_and_clear();
    if let (Some(folder), Some(unmarked)) = (&arguments.without_markers, shown.last()) {
        shown[0].ensure_other_pictures(unmarked, folder)?;
    }
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make the folder {}", arguments.out.display()))?;
    let engine = Engine::builder().provider(arguments.provider).threads(arguments.threads).open(&arguments.bundle)?;
    let name = engine.bundle().manifest().name.clone();
    let mut bundle = Model { name: format!("bundle {name}"), is_bundle: true, conditions: BTreeMap::new() };
    let mut kept: BTreeMap<Condition, Vec<Record>> = BTreeMap::new();
    for condition in &shown {
        let (cases, mirrored) = (&condition.cases, condition.mirrored());
        let records = answers(&engine, &pool, condition, &arguments.out)?;
        let given: HashMap<&str, &Answer> =
            records.iter().flat_map(|record| &record.answers).map(|own| (own.sample.as_str(), own)).collect();
        let own = |sample: &_, _: &Case| {
            let answer = given.get(key(sample, mirrored).as_str())?;
            Some(Given { text: answer.text.clone(), boxes: answer.boxes.clone(), unread: 0 })
        };
        let mut measured = Measured::answers(cases, mirrored, own, &judges, arguments.seed)?;
        measured.add_perceived(cases, &records, mirrored, &judges, arguments.seed)?;
        bundle.conditions.insert(condition.condition, measured);
        kept.insert(condition.condition, records);
    }
    let mut models = vec![bundle];
    for other in &others {
        models.push(other.model(&shown, &judges, arguments.seed)?);
    }
    for form in forms {
        forms::write(&arguments.out, form, &shown, &kept)?;
    }
    let upright = kept.remove(&Condition::Upright).unwrap_or_default();
    let predictions = label_scores(&shown[0].cases, &upright);
    let none = vec![Default::default(); predictions.len()];
    let all: Vec<usize> = (0..predictions.len()).collect();
    let labels = figures(&predictions, &none, &all, arguments.seed, |name| ["auroc", "calibration_error"].contains(&name));
    let tables = tables(&models);
    let flagged_images = upright.iter().filter(|record| !record.flags.is_empty()).count();
    let results = Results {
        bundle: &name,
        bundle_sha256: engine.bundle().hash(),
        images: upright.len(),
        flagged_images,
        labels,
        tables: &tables,
        models: &models,
    };
    write_whole(arguments.out.join("tables.json"), &serde_json::to_vec_pretty(&results)?)?;
    write_whole(arguments.out.join("tables.csv"), &render::csv(&tables)?)?;
    write_whole(arguments.out.join("tables.md"), render::markdown(&tables, &head(&results)).as_bytes())?;
    page::write(&arguments.out, &models[0], &shown[0].cases, &upright, &predictions, &engine.bundle().manifest().preprocess)?;
    println!("{}", arguments.out.join("tables.md").display());
    Ok(())
}

/// What is above the tables.
fn head(results: &Results) -> String {
    let mut head = format!(
        "# The paper's tables, measured on the bundle {} ({})\n\nResearch use, not a medical device. {} images, of which {} are flagged as \
         no frontal chest radiographs. Figures in parentheses are 95 % intervals from resampling patients.\nIn the paper's protocol, \
         answers without boxes are left out and mAP is the mean over questions; in the corrected one they count 0, mAP is that of all \
         questions together, and F1 is the mean over labels instead of weighted.\nRows that are quoted are the paper's own figures, on \
         its own data.\n",
        render::plain(results.bundle),
        results.bundle_sha256.get(..12).unwrap_or_default(),
        results.images,
        results.flagged_images,
    );
    for model in results.models {
        for (condition, measured) in &model.conditions {
            head += &format!(
                "\n- {}, {}: {} questions, {} of them without an answer, {} boxes that could not be read",
                render::plain(&model.name),
                condition.name(),
                measured.questions,
                measured.unanswered,
                measured.unread
            );
        }
    }
    for (name, figure) in &results.labels {
        let [low, high] = figure.interval.unwrap_or([figure.value; 2]);
        head += &format!("\n- scores of the 14 labels: {} {:.3} ({low:.3} to {high:.3})", name.replace('_', " "), figure.value);
    }
    head
}

/// The threads that images are read and measured on.
fn workers(arguments: &Arguments, images: usize) -> Result<ThreadPool> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = arguments.workers.unwrap_or_else(|| if arguments.provider == Provider::Cpu { cores() } else { 1 });
    rayon::ThreadPoolBuilder::new().num_threads(workers.clamp(1, images.max(1))).build().context("cannot start the workers")
}

/// Measures under one condition, or reads what was measured.
fn answers(engine: &Engine, pool: &ThreadPool, shown: &Shown, out: &Path) -> Result<Vec<Record>> {
    let (condition, cases) = (shown.condition, &shown.cases);
    let bar = progress::bar(cases.len() as u64, condition.name());
    let path = out.join(format!("{}.jsonl", condition.name()));
    let (start, earlier) = (Instant::now(), std::sync::OnceLock::new());
    let records = measure(engine, pool, shown, &path, |count| {
        // The first call tells what an earlier command measured, which is no rate.
        if earlier.set(count).is_ok() {
            bar.set_position(count);
            bar.reset_eta();
        } else {
            bar.inc(count);
        }
    });
    bar.finish_and_clear();
    let records = records?;
    let earlier = earlier.get().copied().unwrap_or_default();
    let (new, seconds) = (records.len() as u64 - earlier, start.elapsed().as_secs_f64());
    let kept = if earlier > 0 { format!(", {earlier} were measured before") } else { String::new() };
    progress::say(&format!("{}: {new} images in {seconds:.1} s, {:.2} images/s{kept}", condition.name(), new as f64 / seconds.max(1e-9)));
    Ok(records)
}

/// Refuses a folder of phantoms that were drawn with markers. Other folders do not say it.
fn ensure_without_markers(folder: &Path) -> Result<()> {
    let path = folder.join(MARK);
    if path.exists() {
        let bytes = anatomix::parts::files::read(&path, 1 << 16).with_context(|| format!("cannot read {}", path.display()))?;
        let drawn: serde_json::Value = serde_json::from_slice(&bytes).with_context(|| format!("{} is not valid", path.display()))?;
        ensure!(
            drawn["markers"] != true,
            "{} holds phantoms with markers; draw others with `anatomix-trainer phantom --without-markers`",
            folder.display()
        );
    }
    Ok(())
}

fn named(name: &str) -> Result<Form> {
    let names = || Form::ALL.map(Form::name).join(", ");
    Form::from_name(name).with_context(|| format!("{name:?} is no form of answers; use one of {}", names()))
}

/// The answers of another model.
struct Other {
    name: String,
    form: Form,
    path: PathBuf,
    answers: HashMap<String, String>,
}

impl Other {
    fn read(given: &str) -> Result<Self> {
        let Some((name, path)) = given.split_once('=') else {
            bail!("--predictions {given:?} is not MODEL=FILE, such as RadVLM=radvlm.jsonl");
        };
        let (form, path) = (named(name)?, PathBuf::from(path));
        Ok(Self { name: name.into(), form, answers: file::answers(&path)?, path })
    }

    fn known<'a>(&'a self, shown: &'a Shown) -> impl Iterator<Item = &'a str> {
        let keys = shown.cases.iter().flat_map(|case| &case.samples).map(|sample| key(sample, shown.mirrored()));
        keys.filter_map(|key| self.answers.get(&key).map(String::as_str))
    }

    /// Checks that the answers are to questions of these data.
    fn check(&self, shown: &[Shown]) -> Result<()> {
        let known: usize = shown.iter().map(|own| self.known(own).count()).sum();
        ensure!(
            known > 0,
            "{} answers no question of these data; write the questions with --form {}, and add `answer` to their lines",
            self.path.display(),
            self.form.name()
        );
        Ok(())
    }

    /// The figures under each condition that it has answers for. Images without markers have the questions of those with markers, so its
    /// answers are not to them.
    fn model(&self, shown: &[Shown], judges: &Judges, seed: u64) -> Result<Model> {
        let mut conditions = BTreeMap::new();
        for own in shown.iter().filter(|own| own.condition != Condition::Unmarked) {
            if self.known(own).next().is_none() {
                continue;
            }
            let mirrored = own.mirrored();
            let given = |sample: &_, case: &Case| {
                let content = self.form.read(self.answers.get(&key(sample, mirrored))?, &case.image.letterbox());
                Some(Given { text: content.words(), boxes: content.boxes(), unread: content.unread })
            };
            conditions.insert(own.condition, Measured::answers(&own.cases, mirrored, given, judges, seed)?);
        }
        Ok(Model { name: self.name.clone(), is_bundle: false, conditions })
    }
}
