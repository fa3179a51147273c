//! Settings of a training stage: a recipe's tables over the defaults.

use crate::data::packs::AnswerWeights;
use crate::graph::adamw::Settings;
use anyhow::{Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Largest number of samples of an optimiser step.
const MAX_SAMPLES: usize = 1 << 24;

/// Which parameters a training stage ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those of the last step.
    #[default]
    Last,
    /// Those with the best score on the validation split, which is computed with each checkpoint.
    Best,
}

/// Which parameters weight decay applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decays {
    /// Matrices and kernels; not norms and biases, which it would only shift.
    #[default]
    Matrices,
    /// All parameters, as published.
    Published,
}

/// Where the boxes of anatomy grounding are from in instruction tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroundingBoxes {
    /// The annotations, as in the paper.
    #[default]
    Annotated,
    /// The context, which holds the boxes that the perception module found; the annotations if the prompt has no boxes.
    Context,
}

/// What convolutions, matrix products and attention compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As everything else does.
    #[default]
    Fp32,
    /// Parameters, moments, norms, sums and losses stay in fp32.
    Bf16,
}

/// Settings of a training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSettings {
    /// Batch size in images, in packs (a context with its questions), or in sentences.
    pub batch: usize,
    /// Number of batches of an optimiser step, whose gradients are those of one batch that is as many times as large.
    pub accumulate: usize,
    /// What products compute in.
    pub precision: Precision,
    /// Whether inner values of the transformer's layers are computed again in the backward pass instead of being kept.
    pub checkpointing: bool,
    /// Number of optimiser steps; either this or `epochs`.
    pub steps: Option<u64>,
    /// Number of epochs; in each, every sample is taken once.
    pub epochs: Option<u64>,
    /// Largest learning rate.
    pub rate: f64,
    /// Factor of the backbone's learning rate.
    pub backbone_factor: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Which parameters weight decay applies to.
    pub decays: Decays,
    /// Gradients are clipped to this norm; 0 means no clipping.
    pub clip: f64,
    /// Fraction of the optimiser steps over which the learning rate rises.
    pub warmup: f64,
    /// Learning rate at the end as a fraction of the largest; the decay after the warm-up is linear.
    pub final_rate: f64,
    /// Number of questions in a pack.
    pub questions: usize,
    /// Weights of the answers in a pack.
    pub answer_weights: AnswerWeights,
    /// Where the boxes of anatomy grounding are from in instruction tuning.
    pub grounding_boxes: GroundingBoxes,
    /// Number of optimiser steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number of optimiser steps between lines of the log.
    pub log_every: u64,
    /// Which parameters the stage ends with.
    pub keep: Keep,
    /// Seed of order, augmentation and dropout.
    pub seed: i64,
    /// Whether instruction tuning trains the whole model instead of adapters.
    pub full: bool,
    /// Whether instruction tuning of a model whose output layer shares the embedding table gives that layer a table of its own, as
    /// published. It begins with the same values.
    pub own_head: bool,
    /// Fraction of the base training in which contexts have a few structures only, because the model learns look-up sooner there.
    pub short_contexts: f64,
    /// Number of images of the training split to use; all if absent.
    pub images: Option<usize>,
}

impl StageSettings {
    /// The paper's settings for the language model: batch size and number of epochs are those of instruction tuning.
    pub fn instruct() -> Self {
        Self {
            batch: 8,
            accumulate: 1,
            precision: Precision::Fp32,
            checkpointing: false,
            steps: None,
            epochs: Some(4),
            rate: 2e-4,
            backbone_factor: 0.1,
            weight_decay: 1e-4,
            decays: Decays::Matrices,
            clip: 0.3,
            warmup: 0.03,
            final_rate: 0.0,
            questions: 12,
            answer_weights: AnswerWeights::Balanced,
            grounding_boxes: GroundingBoxes::Annotated,
            checkpoint_every: 500,
            log_every: 10,
            keep: Keep::Last,
            seed: 2025,
            full: false,
            own_head: false,
            short_contexts: 0.6,
            images: None,
        }
    }

    /// The paper's settings for alignment: 2 epochs.
    pub fn align() -> Self {
        Self { epochs: Some(2), ..Self::instruct() }
    }

    /// Settings of stages that the paper does not have, because it takes pretrained models.
    pub fn pretraining() -> Self {
        Self { steps: Some(10_000), epochs: None, ..Self::instruct() }
    }

    /// The paper's settings for the Anatomy Perception Module: 45 epochs of 237,938 images in batches of 48.
    pub fn apm() -> Self {
        Self { batch: 48, epochs: Some(45), rate: 1e-4, clip: 0.1, warmup: 0.0, final_rate: 1.0, ..Self::instruct() }
    }

    /// Applies a table of a recipe. `steps` in it replaces the default `epochs`, and the other way round.
    ///
    /// # Errors
    /// If the table names what does not exist, or has a value that cannot be used.
    pub fn with(mut self, table: Table) -> Result<Self> {
        let named = |key: &str| table.contains_key(key);
        ensure!(!(named("steps") && named("epochs")), "both steps and epochs are given; keep one of them");
        if named("steps") {
            self.epochs = None;
        }
        if named("epochs") {
            self.steps = None;
        }
        let settings = over(&self, table)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        let fraction = |name: &str, value: f64| {
            ensure!((0.0..=1.0).contains(&value), "{name} = {value} is not between 0 and 1");
            Ok(())
        };
        ensure!(self.batch > 0, "batch = 0; a batch has at least 1 sample");
        ensure!(self.accumulate > 0, "accumulate = 0; a step has at least 1 batch");
        let of_step = self.batch.checked_mul(self.accumulate).filter(|&samples| samples <= MAX_SAMPLES);
        ensure!(
            of_step.is_some(),
            "batch = {} with accumulate = {} is more than {MAX_SAMPLES} samples a step",
            self.batch,
            self.accumulate
        );
        ensure!(self.steps != Some(0) && self.epochs != Some(0), "0 steps or epochs would train nothing");
        ensure!(self.rate.is_finite() && self.rate > 0.0, "rate = {} is not a positive number", self.rate);
        ensure!(self.questions > 0, "questions = 0; a pack has at least 1 question");
        for (name, steps) in [("checkpoint_every", self.checkpoint_every), ("log_every", self.log_every)] {
            ensure!(steps > 0, "{name} = 0; it is a number of steps, at least 1");
        }
        ensure!(self.images != Some(0), "images = 0; leave it out to use all images");
        for (name, value) in [("backbone_factor", self.backbone_factor), ("weight_decay", self.weight_decay), ("clip", self.clip)] {
            ensure!(value.is_finite() && value >= 0.0, "{name} = {value} is not a number of at least 0");
        }
        fraction("warmup", self.warmup)?;
        fraction("final_rate", self.final_rate)?;
        fraction("short_contexts", self.short_contexts)
    }

    /// The learning rate at an optimiser step of so many: linear warm-up, then linear decay.
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        if done < self.warmup {
            return self.rate * (done / self.warmup).max(1e-3);
        }
        let left = (1.0 - done) / (1.0 - self.warmup).max(1e-9);
        self.rate * (self.final_rate + (1.0 - self.final_rate) * left.clamp(0.0, 1.0))
    }

    /// Number of samples of an optimiser step.
    pub fn samples_of_step(&self) -> usize {
        self.batch.saturating_mul(self.accumulate)
    }

    /// Settings of the optimiser.
    pub fn optimiser(&self) -> Settings {
        let all = self.decays == Decays::Published;
        Settings { beta1: 0.9, beta2: 0.999, weight_decay: self.weight_decay, decays_all: all, clip: self.clip }
    }
}

/// What the losses of the stage `apm` do with structures that an image has no box of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// They are left out of the losses of boxes and of contrastive alignment.
    #[default]
    Masked,
    /// They have the box (0, 0, 0, 0) and the sentence of a healthy structure, as published.
    Published,
}

/// Weights of the losses of the stage `apm`. The defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// Weight of the boxes' L1 distance.
    pub l1: f64,
    /// Weight of the boxes' generalised IoU.
    pub giou: f64,
    /// Weight of the image labels' binary cross-entropy.
    pub labels: f64,
    /// Weight of contrastive alignment.
    pub contrastive: f64,
    /// Temperature of contrastive alignment.
    pub temperature: f64,
    /// Whether contrastive alignment has CLIP's hard targets instead of soft ones (an ablation).
    pub clip: bool,
    /// What is done with structures that an image has no box of.
    pub missing: Missing,
    /// Whether the boxes of every decoder layer count, as published, instead of those of the last one only.
    pub aux: bool,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { l1: 5.0, giou: 3.0, labels: 2.0, contrastive: 1.0, temperature: 0.01, clip: false, missing: Missing::Masked, aux: false }
    }
}

impl LossWeights {
    /// Checks the weights.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn check(&self) -> Result<()> {
        let weights = [("l1", self.l1), ("giou", self.giou), ("labels", self.labels), ("contrastive", self.contrastive)];
        for (name, weight) in weights {
            ensure!(weight.is_finite() && weight >= 0.0, "{name} = {weight} is not a number of at least 0");
        }
        ensure!(self.temperature.is_finite() && self.temperature > 0.0, "temperature = {} is not a positive number", self.temperature);
        Ok(())
    }
}

/// Defaults with what a table names in their place.
pub(crate) fn over<T: Serialize + DeserializeOwned>(defaults: &T, table: Table) -> Result<T> {
    let mut whole = Table::try_from(defaults)?;
    merge(&mut whole, table);
    // Its message has several lines.
    whole.try_into().map_err(|e| anyhow!("{}", e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let settings = StageSettings { rate: 1.0, warmup: 0.1, final_rate: 0.2, ..StageSettings::instruct() };
        let rates: Vec<f64> = [0, 50, 100, 550, 1000].map(|step| settings.rate_at(step, 1000)).to_vec();
        for (found, expected) in rates.iter().zip([0.001, 0.5, 1.0, 0.6, 0.2]) {
            assert!((found - expected).abs() < 1e-9, "{rates:?}");
        }
    }
}
