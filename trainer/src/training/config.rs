//! Recipes: a TOML file for a run, with a table for each training stage.

use crate::data::augment::Augmentation;
use crate::graph::adamw::Settings;
use crate::run::ModelConfig;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The recipe of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Folder of the run.
    pub run: PathBuf,
    /// Folder of the data set.
    pub data: PathBuf,
    /// Configuration of the models.
    #[serde(default)]
    pub models: ModelConfig,
    /// Training of the sentence encoder, if none is imported.
    #[serde(default)]
    pub text: StageSettings,
    /// Training of the Anatomy Perception Module (stage 1).
    #[serde(default = "StageSettings::apm")]
    pub apm: StageSettings,
    /// Training of the base language model, if none is imported.
    #[serde(default)]
    pub language: StageSettings,
    /// Alignment of the projectors (stage 2).
    #[serde(default)]
    pub align: StageSettings,
    /// Instruction tuning (stage 3).
    #[serde(default)]
    pub instruct: StageSettings,
    /// Weights of the losses of stage 1.
    #[serde(default)]
    pub losses: LossWeights,
    /// Augmentation in stage 1.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Splits whose sentences go into the sentence database. The test split is not allowed.
    #[serde(default = "validation")]
    pub database_splits: Vec<String>,
}

fn validation() -> Vec<String> {
    vec!["validate".into()]
}

/// Settings of a training stage. The defaults are the paper's for the language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageSettings {
    /// Batch size in images, or in packs (a context with its questions).
    pub batch: usize,
    /// Number of optimiser steps.
    pub steps: u64,
    /// Largest learning rate.
    pub rate: f64,
    /// Factor of the backbone's learning rate.
    pub backbone_factor: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Gradients are clipped to this norm.
    pub clip: f64,
    /// Fraction of the optimiser steps over which the learning rate rises.
    pub warmup: f64,
    /// Learning rate at the end as a fraction of the largest; the decay after the warm-up is linear.
    pub final_rate: f64,
    /// Number of questions in a pack.
    pub questions: usize,
    /// Number of optimiser steps between checkpoints.
    pub checkpoint_every: u64,
    /// Seed of shuffling, augmentation and dropout.
    pub seed: i64,
    /// Whether instruction tuning trains the whole model instead of adapters.
    pub full: bool,
    /// Fraction of the base training in which contexts have a few structures only, because the model learns look-up sooner there.
    pub short_contexts: f64,
    /// Number of images of the training split to use; `None` means all.
    pub images: Option<usize>,
}

impl Default for StageSettings {
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

impl StageSettings {
    /// The paper's settings for the Anatomy Perception Module: 45 epochs of 237,938 images in batches of 48.
    pub fn apm() -> Self {
        Self { batch: 48, steps: 223_067, rate: 1e-4, clip: 0.1, warmup: 0.0, final_rate: 1.0, ..Self::default() }
    }

    /// The learning rate at an optimiser step: linear warm-up, then linear decay.
    pub fn rate_at(&self, step: u64) -> f64 {
        let done = step as f64 / self.steps.max(1) as f64;
        if done < self.warmup {
            return self.rate * (done / self.warmup).max(1e-3);
        }
        let left = (1.0 - done) / (1.0 - self.warmup).max(1e-9);
        self.rate * (self.final_rate + (1.0 - self.final_rate) * left.clamp(0.0, 1.0))
    }

    /// Settings of the optimiser.
    pub fn optimiser(&self) -> Settings {
        Settings { beta1: 0.9, beta2: 0.999, weight_decay: self.weight_decay, clip: self.clip }
    }
}

/// Weights of the losses of stage 1. The defaults are the published ones.
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
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { l1: 5.0, giou: 3.0, labels: 2.0, contrastive: 1.0, temperature: 0.01, clip: false }
    }
}

/// Longest recipe in bytes.
const MAX_RECIPE: u64 = 1 << 20;

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_RECIPE + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_RECIPE, "it has more than {MAX_RECIPE} bytes; a recipe has a few hundred");
    Ok(text)
}

impl Recipe {
    /// Reads a recipe. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// If the file cannot be read or is not valid.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut recipe: Self = toml::from_str(&text).with_context(|| format!("{} is not a valid recipe", path.display()))?;
        recipe.models.apm.check().with_context(|| format!("{} is not a valid recipe", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        recipe.run = base.join(&recipe.run);
        recipe.data = base.join(&recipe.data);
        Ok(recipe)
    }
}

/// The training stages of the language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanguageStage {
    /// Training of the base model, on text only.
    Base,
    /// Stage 2: training of the projectors, on reports.
    Align,
    /// Stage 3: training of adapters, projectors and embeddings, on all tasks.
    Instruct,
}

impl LanguageStage {
    /// Name of the training stage, in recipes and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "language",
            Self::Align => "align",
            Self::Instruct => "instruct",
        }
    }

    /// The recipe's settings of this training stage.
    pub fn settings(self, recipe: &Recipe) -> &StageSettings {
        match self {
            Self::Base => &recipe.language,
            Self::Align => &recipe.align,
            Self::Instruct => &recipe.instruct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_without_an_end_is_not_read() {
        let error = format!("{:#}", Recipe::read(Path::new("/dev/zero")).unwrap_err());
        assert!(error.contains("/dev/zero") && error.contains("more than 1048576 bytes"), "{error}");
    }
}
