//! The trainer's side of `make bench-training`. It makes a model with random parameters, then takes an optimiser step for each line on
//! standard input, and prints its milliseconds and the largest resident memory of the process in MiB.
//!
//! `training WORK DEVICE THREADS BATCH TOKENS SETTINGS MODELS`: WORK is `apm`, `instruct`, or `adamw` (the optimiser alone, on BATCH
//! million values), TOKENS the length of a pack, SETTINGS a file of a stage's settings, MODELS one of models.

use anatomix::{LABEL_COUNT, STRUCTURE_COUNT};
use anatomix_trainer::data::packs::{self, Pack};
use anatomix_trainer::distributed::Peers;
use anatomix_trainer::graph::Params;
use anatomix_trainer::graph::adamw::AdamW;
use anatomix_trainer::run::ModelConfig;
use anatomix_trainer::training::config::LanguageStage;
use anatomix_trainer::training::objective::{LanguageObjective, PerceptionObjective, Targets, trains_perception};
use anatomix_trainer::training::settings::{LossWeights, Missing, Precision, StageSettings};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;
use tch::{Cuda, Device, Kind, Tensor};

/// Number of questions of a pack, each with this many tokens of question and answer.
const QUESTIONS: (usize, usize, usize) = (8, 12, 20);
/// Number of distinct sentences.
const SENTENCES: i64 = 2000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, device, threads, batch, tokens, settings, models] = arguments.as_slice() else {
        bail!("usage: training apm|instruct|adamw cpu|cuda THREADS BATCH TOKENS SETTINGS MODELS");
    };
    let device = if device == "cuda" { Device::Cuda(0) } else { Device::Cpu };
    tch::set_num_threads(threads.parse()?);
    tch::manual_seed(1);
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"));
    let models: ModelConfig = toml::from_str(&read(models)?)?;
    let table = toml::from_str(&read(settings)?)?;
    let (batch, tokens): (usize, usize) = (batch.parse()?, tokens.parse()?);
    match work.as_str() {
        "apm" => perception(&models, &StageSettings::apm().with(table)?, device, batch as i64),
        "instruct" => language(&models, &StageSettings::instruct().with(table)?, device, batch, tokens),
        "adamw" => optimiser(&StageSettings::instruct().with(table)?, device, batch as i64),
        other => bail!("there is no work {other}"),
    }
}

/// Ten matrices of `millions / 10` million values each, whose gradients are their values.
fn optimiser(settings: &StageSettings, device: Device, millions: i64) -> Result<()> {
    let params = Params::create(device);
    for number in 0..10 {
        params.insert(&format!("{number}"), Tensor::rand([millions * 100, 1000], (Kind::Float, device)));
    }
    params.train(|_| true);
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    let half = |(_, tensor): &(String, Tensor)| (tensor.square() * 0.5).sum(Kind::Float);
    params.named().iter().for_each(|one| half(one).backward());
    each(device, || {
        optimiser.step(settings.rate)?;
        Ok(())
    })
}

fn perception(models: &ModelConfig, settings: &StageSettings, device: Device, batch: i64) -> Result<()> {
    let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, device));
    let structures = STRUCTURE_COUNT as i64;
    let (image, frozen) = (random(&[batch, 1, models.apm.image_size, models.apm.image_size]), random(&[SENTENCES, models.text.width]));
    let rows = Tensor::randint(SENTENCES, [batch * structures], (Kind::Int64, device));
    let boxes = random(&[batch, structures, 4]) * 0.3 + 0.2;
    let labels = random(&[batch, LABEL_COUNT as i64]).lt(0.3).to_kind(Kind::Float);
    let targets = Targets::new(boxes, Tensor::ones([batch, structures], (Kind::Float, device)), labels, &rows, Missing::Masked);
    let weights = LossWeights::default();
    let &StageSettings { precision, checkpointing, .. } = settings;
    let objective = PerceptionObjective { models, weights: &weights, precision, checkpointing, peers: Peers::alone() };
    let params = Params::create(device);
    // The first run makes the parameters.
    let _ = tch::no_grad(|| anatomix_trainer::training::objective::perceive(&params, models, &image.narrow(0, 0, 1), &frozen));
    params.train(|name| trains_perception(&models.apm, name));
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    each(device, || {
        optimiser.zero_gradients();
        objective.gradients(&params, &image, &frozen, &targets, settings.batch)?;
        optimiser.step(settings.rate)?;
        Ok(())
    })
}

fn language(models: &ModelConfig, settings: &StageSettings, device: Device, batch: usize, tokens: usize) -> Result<()> {
    let (questions, question, answer) = QUESTIONS;
    let ids = |count: usize| (0..count).map(|i| (i * 7 % models.language.vocab_size as usize) as i64).collect::<Vec<i64>>();
    let packs: Vec<Pack> = (0..batch)
        .map(|_| {
            let context = tokens - questions * (question + answer);
            let mut pack = Pack::over(ids(context), vec![-1; context]);
            (0..questions).for_each(|_| pack.ask(ids(question), ids(answer)));
            pack
        })
        .collect();
    let (batch, targets, weights) = packs::batch(&packs, None, settings.answer_weights, device);
    let total = packs.iter().map(|pack| pack.weight(settings.answer_weights)).sum();
    let objective = LanguageObjective::new(models, LanguageStage::Instruct, settings);
    let params = Params::create(device);
    let (first, first_targets, first_weights) = packs::batch(&packs[..1], None, settings.answer_weights, device);
    let _ = tch::no_grad(|| objective.loss(&params, &first, &first_targets, &first_weights, total));
    params.train(|name| objective.trains(name));
    if settings.precision == Precision::Bf16 {
        params.reduce_frozen(|_| true);
    }
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    each(device, || {
        optimiser.zero_gradients();
        let _ = objective.gradients(&params, &batch, &targets, &weights, total);
        optimiser.step(settings.rate)?;
        Ok(())
    })
}

/// Does the work for each line on standard input.
fn each(device: Device, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let wait = || {
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        work()?;
        wait();
        writeln!(out, "{} {}", start.elapsed().as_secs_f64() * 1e3, peak()?)?;
        out.flush()?;
    }
    Ok(())
}

/// Largest resident memory of this process in MiB.
fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the system does not tell the resident memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
