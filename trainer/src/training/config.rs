//! Configuration of a training step: one TOML file for a run, one table for each step.

use crate::data::augment::Augmentation;
use crate::graph::adamw::Settings;
use crate::run::ModelConfig;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A run's recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The run's folder.
    pub run: PathBuf,
    /// The data set's folder.
    pub data: PathBuf,
    /// Sizes of the models.
    #[serde(default)]
    pub models: ModelConfig,
    /// The sentence encoder, where none is imported.
    #[serde(default)]
    pub text: Step,
    /// The Anatomy Perception Module (step 1).
    #[serde(default = "Step::apm")]
    pub apm: Step,
    /// The base language model, where none is imported.
    #[serde(default)]
    pub language: Step,
    /// Alignment of the projectors (step 2).
    #[serde(default)]
    pub align: Step,
    /// Instruction tuning (step 3).
    #[serde(default)]
    pub instruct: Step,
    /// Weights of the losses of step 1.
    #[serde(default)]
    pub losses: LossWeights,
    /// Augmentation in step 1.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Splits whose sentences make the retrieval database; never the test split.
    #[serde(default = "validation")]
    pub database_splits: Vec<String>,
}

fn validation() -> Vec<String> {
    vec!["validate".into()]
}

/// How a step is trained. The defaults are the paper's for the language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Images, or packs of questions over one image, in a batch.
    pub batch: usize,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Largest learning rate.
    pub rate: f64,
    /// Factor on the rate for the backbone.
    pub backbone_factor: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradients.
    pub clip: f64,
    /// Share of the steps over which the rate rises.
    pub warmup: f64,
    /// Share of the largest rate that is left at the end; the way down is linear.
    pub final_rate: f64,
    /// Questions over one context.
    pub questions: usize,
    /// Every how many steps a checkpoint is written.
    pub checkpoint_every: u64,
    /// Seed of shuffling, augmentation and dropout.
    pub seed: i64,
    /// Trains the whole model instead of adapters.
    pub full: bool,
    /// Share of the base training that sees contexts of a few structures only: looking things up is learned there sooner.
    pub short_contexts: f64,
    /// How many images of the training split are used; all for `None`.
    pub images: Option<usize>,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            batch: 8,
            steps: 10_000,
            rate: 2e-4,
            backbone_factor: 0.1,
            weight_decay: 1e-4,
            clip: 0.3,
            warmup: 0.03,
            final_rate: 0.0,
            questions: 12,
            checkpoint_every: 500,
            seed: 2025,
            full: false,
            short_contexts: 0.6,
            images: None,
        }
    }
}

impl Step {
    /// The paper's settings for the Anatomy Perception Module: 45 epochs of 237,938 images in batches of 48.
    pub fn apm() -> Self {
        Self { batch: 48, steps: 223_067, rate: 1e-4, clip: 0.1, warmup: 0.0, final_rate: 1.0, ..Self::default() }
    }

    /// The rate at a step: a rise, then a straight line down.
    pub fn rate_at(&self, step: u64) -> f64 {
        let done = step as f64 / self.steps.max(1) as f64;
        if done < self.warmup {
            return self.rate * (done / self.warmup).max(1e-3);
        }
        let left = (1.0 - done) / (1.0 - self.warmup).max(1e-9);
        self.rate * (self.final_rate + (1.0 - self.final_rate) * left.clamp(0.0, 1.0))
    }

    /// The optimiser's settings.
    pub fn optimiser(&self) -> Settings {
        Settings { beta1: 0.9, beta2: 0.999, weight_decay: self.weight_decay, clip: self.clip }
    }
}

/// Weights of the losses of step 1. The defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// L1 distance of box parameters.
    pub l1: f64,
    /// Generalised IoU.
    pub giou: f64,
    /// Binary cross-entropy of the image labels.
    pub labels: f64,
    /// Contrastive alignment.
    pub contrastive: f64,
    /// Its temperature.
    pub temperature: f64,
    /// CLIP's hard targets instead of soft ones (an ablation).
    pub clip: bool,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { l1: 5.0, giou: 3.0, labels: 2.0, contrastive: 1.0, temperature: 0.01, clip: false }
    }
}

impl Recipe {
    /// Reads a recipe; relative folders in it are relative to its own.
    ///
    /// # Errors
    /// If it cannot be read or is not valid.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut recipe: Self = toml::from_str(&text).with_context(|| format!("{} is not a valid recipe", path.display()))?;
        recipe.models.apm.check().with_context(|| format!("{} is not a valid recipe", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        recipe.run = base.join(&recipe.run);
        recipe.data = base.join(&recipe.data);
        Ok(recipe)
    }
}

/// Which training of the language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The base model, from text alone.
    Base,
    /// Step 2: the projectors, on reports.
    Align,
    /// Step 3: adapters, projectors and embeddings, on all tasks.
    Instruct,
}

impl Phase {
    /// The name of the step and of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "language",
            Self::Align => "align",
            Self::Instruct => "instruct",
        }
    }

    /// The part of the recipe that is its own.
    pub fn settings(self, recipe: &Recipe) -> &Step {
        match self {
            Self::Base => &recipe.language,
            Self::Align => &recipe.align,
            Self::Instruct => &recipe.instruct,
        }
    }
}
