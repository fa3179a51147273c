//! A run: the folder with the results of a training.

use crate::models::apm::ApmConfig;
use crate::models::gemma::GemmaConfig;
use crate::models::lora::Lora;
use crate::models::text::TextConfig;
use anatomix::{Histogram, Preprocess};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Configuration of all models of a run, and of preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Histogram step of preprocessing. The input's size is `apm.image_size`.
    pub histogram: Histogram,
    /// The Anatomy Perception Module.
    pub apm: ApmConfig,
    /// The sentence encoder.
    pub text: TextConfig,
    /// The language model.
    pub language: GemmaConfig,
    /// LoRA adapters of the language model.
    pub lora: Lora,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            histogram: Histogram::Equalize,
            apm: Default::default(),
            text: Default::default(),
            language: Default::default(),
            lora: Default::default(),
        }
    }
}

impl ModelConfig {
    /// Preprocessing of radiographs for these models.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess { version: 1, size: self.apm.image_size as u32, histogram: self.histogram }
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    /// Path of the folder.
    pub folder: PathBuf,
}

impl Run {
    /// Opens the run in this folder, which is created if it is missing.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        Ok(Self { folder: folder.into() })
    }

    /// Path of a file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads the models' configuration.
    ///
    /// # Errors
    /// If the run has no configuration, or an invalid one.
    pub fn models(&self) -> Result<ModelConfig> {
        let path = self.file(MODELS);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}; train a model into this run first", path.display()))?;
        let models: ModelConfig = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        models.apm.check().with_context(|| format!("{} is not valid", path.display()))?;
        Ok(models)
    }

    /// Writes the models' configuration, or checks that the one that is already in the run is equal.
    ///
    /// # Errors
    /// If the run has another configuration, or the file cannot be written.
    pub fn keep_models(&self, models: &ModelConfig) -> Result<()> {
        let path = self.file(MODELS);
        if path.exists() {
            anyhow::ensure!(
                &self.models()? == models,
                "{} has models of another configuration; choose another run folder, or the configuration that the run was started with",
                self.folder.display()
            );
            return Ok(());
        }
        std::fs::write(&path, toml::to_string_pretty(models)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Run {
    /// Path of the sentence encoder's tokenizer: its own if it was imported with one, otherwise the run's.
    pub fn sentence_tokenizer(&self) -> PathBuf {
        let own = self.file(TEXT_TOKENIZER);
        if own.exists() { own } else { self.file(TOKENIZER) }
    }
}

/// File name of the models' configuration.
pub const MODELS: &str = "models.toml";
/// File name of the run's tokenizer, that of the language model.
pub const TOKENIZER: &str = "tokenizer.json";
/// File name of an imported language model's chat template, which the prompt follows.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// File name of the sentence encoder's own tokenizer, if it does not use the run's.
pub const TEXT_TOKENIZER: &str = "text.tokenizer.json";
/// File name of the frozen sentence encoder.
pub const TEXT: &str = "text.safetensors";
/// File name of the Anatomy Perception Module, with the text projection that was aligned with it.
pub const APM: &str = "apm.safetensors";
/// File name of an image encoder that was imported by itself, for `train apm --from`.
pub const IMAGE_ENCODER: &str = "image_encoder.safetensors";
/// File name of the sentences of the sentence database: a list of 36 lists.
pub const SENTENCES: &str = "sentences.json";
/// File name of the base language model.
pub const LANGUAGE: &str = "language.safetensors";
/// File name of the projectors, the adapters and the other trained parameters of the language model.
pub const ADAPTER: &str = "adapter.safetensors";
