//! Computes losses and gradients of one optimiser step from given parameters and a given batch, for tests/test_gradients_*.py.
//!
//! `step STAGE FOLDER` with STAGE `apm`, `language`, `align`, `instruct` or `full` (instruction tuning without adapters) reads from FOLDER
//!
//! - `models.toml`: configuration of the models, as in a run; `losses.toml`: weights of the losses of the stage `apm`; `settings.toml`:
//!   what differs from the stage's default settings;
//! - `params.safetensors`: all parameters;
//! - `batch.safetensors`: for the perception module `image`, `boxes`, `present`, `labels`, `frozen` and `sentences` (for each structure the
//!   row of `frozen`); for the language model `image_tokens` and `object_embeddings`, unless its input is text only;
//! - `packs.json`: a list of `{"ids": [..], "visual_index": [..], "turns": [[[question ids], [answer ids]], ..]}`.
//!
//! It writes `step.safetensors`, with `loss`, `loss.PART`, `gradient.NAME` for each trained parameter, `peak`, the largest resident memory
//! in MiB, and, if the settings have `steps`, `after.NAME`, the parameters after so many steps with the same batch. The settings' seed is
//! that of libtorch's generator in each step.

use anatomix_trainer::data::packs::{self, Pack};
use anatomix_trainer::distributed::Peers;
use anatomix_trainer::graph::Params;
use anatomix_trainer::graph::adamw::AdamW;
use anatomix_trainer::run::ModelConfig;
use anatomix_trainer::training::config::LanguageStage;
use anatomix_trainer::training::objective::{LanguageObjective, PARTS, PerceptionLoss, PerceptionObjective, Targets, trains_perception};
use anatomix_trainer::training::settings::{LossWeights, Precision, StageSettings};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

#[derive(Deserialize)]
struct Questions {
    ids: Vec<i64>,
    visual_index: Vec<i64>,
    turns: Vec<(Vec<i64>, Vec<i64>)>,
}

type Named = Vec<(String, f64)>;

/// What does not change from step to step.
struct Work<'a> {
    folder: &'a Path,
    models: &'a ModelConfig,
    settings: &'a StageSettings,
    batch: BTreeMap<String, Tensor>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stage, folder] = arguments.as_slice() else { bail!("usage: step apm|language|align|instruct|full FOLDER") };
    let folder = Path::new(folder);
    let models: ModelConfig = table(&folder.join("models.toml"))?;
    let defaults = if stage == "apm" { StageSettings::apm() } else { StageSettings::instruct() };
    let settings = StageSettings { full: stage == "full", ..defaults }.with(table(&folder.join("settings.toml"))?)?;
    let of = match stage.as_str() {
        "apm" => None,
        "language" => Some(LanguageStage::Base),
        "align" => Some(LanguageStage::Align),
        "instruct" | "full" => Some(LanguageStage::Instruct),
        other => bail!("there is no stage {other}"),
    };
    let objective = of.map(|stage| LanguageObjective::new(&models, stage, &settings));
    let path = folder.join("params.safetensors");
    let params = Params::load(&path, Device::Cpu)?;
    let trains = |name: &str| objective.as_ref().map_or_else(|| trains_perception(&models.apm, name), |objective| objective.trains(name));
    if let Some(objective) = &objective {
        objective.separate_head(&params);
    }
    params.train(trains);
    if settings.precision == Precision::Bf16 && objective.is_some() {
        params.reduce_frozen(|_| true);
    }
    let batch = Tensor::read_safetensors(folder.join("batch.safetensors"))?.into_iter().collect();
    let work = Work { folder, models: &models, settings: &settings, batch };
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    let mut out = Vec::new();
    for step in 0..settings.steps.unwrap_or(1) {
        tch::manual_seed(settings.seed);
        optimiser.zero_gradients();
        let losses = match &objective {
            None => work.perception(&params)?,
            Some(objective) => work.language(&params, objective)?,
        };
        if step == 0 {
            params.check(&path)?;
            out.extend(losses.into_iter().map(|(name, value)| (name, Tensor::from(value))));
            let gradients = params.named().into_iter().map(|(name, tensor)| (format!("gradient.{name}"), tensor.grad()));
            // Gradients of kernels have the channels innermost, but a file has the values in the order of the dimensions.
            out.extend(gradients.filter(|(_, gradient)| gradient.defined()).map(|(name, gradient)| (name, gradient.copy().contiguous())));
        }
        if settings.steps.is_some() {
            optimiser.step(settings.rate)?;
        }
    }
    if settings.steps.is_some() {
        out.extend(params.named().into_iter().map(|(name, tensor)| (format!("after.{name}"), tensor.detach().contiguous())));
    }
    out.push(("peak".into(), Tensor::from(peak()?)));
    Ok(Tensor::write_safetensors(&out, folder.join("step.safetensors"))?)
}

impl Work<'_> {
    fn perception(&self, params: &Params) -> Result<Named> {
        let part = |name: &str| self.batch.get(name).map(Tensor::shallow_clone).with_context(|| format!("the batch has no {name}"));
        let weights: LossWeights = table(&self.folder.join("losses.toml"))?;
        let rows = part("sentences")?.flatten(0, -1);
        let targets = Targets::new(part("boxes")?, part("present")?, part("labels")?, &rows, weights.missing);
        let &StageSettings { precision, checkpointing, batch, .. } = self.settings;
        let objective = PerceptionObjective { models: self.models, weights: &weights, precision, checkpointing, peers: Peers::alone() };
        let PerceptionLoss { parts, total } = objective.gradients(params, &part("image")?, &part("frozen")?, &targets, batch)?;
        let parts = PARTS.iter().zip(parts).map(|(name, part)| (format!("loss.{name}"), part));
        Ok(parts.chain([("loss".into(), total)]).collect())
    }

    fn language(&self, params: &Params, objective: &LanguageObjective) -> Result<Named> {
        let path = self.folder.join("packs.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let questions: Vec<Questions> = serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))?;
        let packs = questions.into_iter().map(|one| {
            let mut pack = Pack::over(one.ids, one.visual_index);
            one.turns.into_iter().for_each(|(question, answer)| pack.ask(question, answer));
            pack
        });
        let packs: Vec<Pack> = packs.collect();
        let weighted = self.settings.answer_weights;
        let (total, mut loss, mut from) = (packs.iter().map(|pack| pack.weight(weighted)).sum(), 0.0, 0);
        for packs in packs.chunks(self.settings.batch) {
            let count = packs.len() as i64;
            let part = |name: &str| self.batch.get(name).map(|whole| whole.narrow(0, from, count));
            let features = part("image_tokens").zip(part("object_embeddings"));
            let features = features.map(|(tokens, objects)| objective.visual(params, tokens, objects, true));
            let (batch, targets, weights) = packs::batch(packs, features.as_ref(), weighted, Device::Cpu);
            loss += objective.gradients(params, &batch, &targets, &weights, total).0.double_value(&[]);
            from += count;
        }
        Ok(vec![("loss".into(), loss)])
    }
}

/// Largest resident memory of this process in MiB.
fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the system does not tell the resident memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn table<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}
