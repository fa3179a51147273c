//! Computes losses and gradients of one optimiser step from given parameters and a given batch, for tests/test_gradients_*.py.
//!
//! `step STAGE FOLDER` with STAGE `apm`, `language`, `align`, `instruct` or `full` (instruction tuning without adapters) reads from FOLDER
//!
//! - `models.toml`: configuration of the models, as in a run; `losses.toml`: weights of the losses of the stage `apm`;
//! - `params.safetensors`: all parameters;
//! - `batch.safetensors`: for the perception module `image`, `boxes`, `present`, `labels`, `frozen` and `sentences` (for each structure the
//!   row of `frozen`); for the language model `image_tokens` and `object_embeddings`, unless its input is text only;
//! - `packs.json`: a list of `{"ids": [..], "visual_index": [..], "turns": [[[question ids], [answer ids]], ..]}`.
//!
//! It writes `step.safetensors`, with `loss`, `loss.PART`, and `gradient.NAME` for each trained parameter.

use anatomix_trainer::data::packs::{self, AnswerWeights, Pack};
use anatomix_trainer::graph::Params;
use anatomix_trainer::run::ModelConfig;
use anatomix_trainer::training::config::LanguageStage;
use anatomix_trainer::training::objective::{LanguageObjective, PARTS, PerceptionLoss, Targets, trains_perception};
use anatomix_trainer::training::settings::LossWeights;
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

type Named = Vec<(String, Tensor)>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stage, folder] = arguments.as_slice() else { bail!("usage: step apm|language|align|instruct|full FOLDER") };
    let folder = Path::new(folder);
    let models: ModelConfig = table(&folder.join("models.toml"))?;
    let path = folder.join("params.safetensors");
    let params = Params::load(&path, Device::Cpu)?;
    let batch: BTreeMap<String, Tensor> = Tensor::read_safetensors(folder.join("batch.safetensors"))?.into_iter().collect();
    let (mut out, loss) = match stage.as_str() {
        "apm" => perception(&params, &models, &table(&folder.join("losses.toml"))?, &batch)?,
        "language" => language(&params, &LanguageObjective { models: &models, stage: LanguageStage::Base, full: false }, folder, &batch)?,
        "align" => language(&params, &LanguageObjective { models: &models, stage: LanguageStage::Align, full: false }, folder, &batch)?,
        "instruct" => {
            language(&params, &LanguageObjective { models: &models, stage: LanguageStage::Instruct, full: false }, folder, &batch)?
        }
        "full" => language(&params, &LanguageObjective { models: &models, stage: LanguageStage::Instruct, full: true }, folder, &batch)?,
        other => bail!("there is no stage {other}"),
    };
    params.check(&path)?;
    loss.backward();
    out.push(("loss".into(), loss.detach()));
    let gradients = params.named().into_iter().map(|(name, tensor)| (format!("gradient.{name}"), tensor.grad()));
    // Gradients of kernels have the channels innermost, but a file has the values in the order of the dimensions.
    out.extend(gradients.filter(|(_, gradient)| gradient.defined()).map(|(name, gradient)| (name, gradient.contiguous())));
    Ok(Tensor::write_safetensors(&out, folder.join("step.safetensors"))?)
}

fn perception(params: &Params, models: &ModelConfig, weights: &LossWeights, batch: &BTreeMap<String, Tensor>) -> Result<(Named, Tensor)> {
    params.train(|name| trains_perception(&models.apm, name));
    let part = |name: &str| batch.get(name).map(Tensor::shallow_clone).with_context(|| format!("the batch has no {name}"));
    let targets = Targets::new(part("boxes")?, part("present")?, part("labels")?, &part("sentences")?.flatten(0, -1));
    let PerceptionLoss { parts, loss } = PerceptionLoss::of(params, models, weights, &part("image")?, &part("frozen")?, &targets);
    Ok((PARTS.iter().zip(parts).map(|(name, part)| (format!("loss.{name}"), part.detach())).collect(), loss))
}

fn language(params: &Params, objective: &LanguageObjective, folder: &Path, batch: &BTreeMap<String, Tensor>) -> Result<(Named, Tensor)> {
    params.train(|name| objective.trains(name));
    let path = folder.join("packs.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let questions: Vec<Questions> = serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))?;
    let packs = questions.into_iter().map(|one| {
        let mut pack = Pack::over(one.ids, one.visual_index);
        one.turns.into_iter().for_each(|(question, answer)| pack.ask(question, answer));
        pack
    });
    let features = match (batch.get("image_tokens"), batch.get("object_embeddings")) {
        (Some(tokens), Some(objects)) => Some(objective.visual(params, tokens.shallow_clone(), objects.shallow_clone(), true)),
        _ => None,
    };
    let (batch, targets, weights) = packs::batch(&packs.collect::<Vec<_>>(), features.as_ref(), AnswerWeights::Balanced, Device::Cpu);
    let (loss, _) = objective.loss(params, &batch, &targets, &weights, true);
    Ok((vec![], loss))
}

fn table<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}
