//! A run: the folder in which training keeps what it has made.

use crate::models::apm::ApmConfig;
use crate::models::gemma::GemmaConfig;
use crate::models::lora::Lora;
use crate::models::text::TextConfig;
use anatomix::radiograph::{Histogram, Preprocess};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Configuration of every model of a run, and of how an image is prepared for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// How a radiograph becomes the network's input; the size is the module's.
    pub histogram: Histogram,
    /// The Anatomy Perception Module.
    pub apm: ApmConfig,
    /// The sentence encoder.
    pub text: TextConfig,
    /// The language model.
    pub language: GemmaConfig,
    /// Adapters of the language model.
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
    /// How a radiograph becomes the network's input.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess { version: 1, size: self.apm.image_size as u32, histogram: self.histogram }
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where it is.
    pub folder: PathBuf,
}

impl Run {
    /// The run in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self { folder: folder.into() })
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads the models' configuration.
    ///
    /// # Errors
    /// If the run has none or it is not valid.
    pub fn models(&self) -> Result<ModelConfig> {
        let path = self.file(MODELS);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}; train a model into this run first", path.display()))?;
        let models: ModelConfig = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        models.apm.check().with_context(|| format!("{} is not valid", path.display()))?;
        Ok(models)
    }

    /// Keeps the models' configuration; one that is already there must be the same.
    ///
    /// # Errors
    /// If it differs or cannot be written.
    pub fn keep_models(&self, models: &ModelConfig) -> Result<()> {
        let path = self.file(MODELS);
        if path.exists() {
            anyhow::ensure!(
                &self.models()? == models,
                "{} holds models of another configuration; choose another run folder or the configuration it was begun with",
                self.folder.display()
            );
            return Ok(());
        }
        std::fs::write(&path, toml::to_string_pretty(models)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Run {
    /// The tokenizer of the sentence encoder: its own if it was imported with one.
    pub fn sentence_tokenizer(&self) -> PathBuf {
        let own = self.file(TEXT_TOKENIZER);
        if own.exists() { own } else { self.file(TOKENIZER) }
    }
}

/// Configuration of the models.
pub const MODELS: &str = "models.toml";
/// The tokenizer that all text passes through, but for the sentence encoder's where it has its own.
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template of an imported language model, which the prompt follows.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The sentence encoder's own tokenizer, where it is not the run's.
pub const TEXT_TOKENIZER: &str = "text.tokenizer.json";
/// The frozen sentence encoder.
pub const TEXT: &str = "text.safetensors";
/// The Anatomy Perception Module, with the text projection that was aligned with it.
pub const APM: &str = "apm.safetensors";
/// An image encoder that was imported alone, for `train apm --from`.
pub const IMAGE_ENCODER: &str = "image_encoder.safetensors";
/// The sentences that each structure's findings are retrieved from: a list of 36 lists.
pub const SENTENCES: &str = "sentences.json";
/// The base language model.
pub const LANGUAGE: &str = "language.safetensors";
/// Projectors, adapters and what else was trained of the language model.
pub const ADAPTER: &str = "adapter.safetensors";
