//! A run: the folder with the results of a training.

use crate::graph::Ops;
use crate::models::apm::ApmConfig;
use crate::models::gemma::GemmaConfig;
use crate::models::lora::Lora;
use crate::models::projector::{pooled, projector};
use crate::models::text::TextConfig;
use crate::prompt::PromptConfig;
use anatomix::{Histogram, Preprocess};
use anyhow::{Context, Result, ensure};
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
    /// What the language model reads of a study.
    pub prompt: PromptConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            histogram: Histogram::Equalize,
            apm: Default::default(),
            text: Default::default(),
            language: Default::default(),
            lora: Default::default(),
            prompt: Default::default(),
        }
    }
}

impl ModelConfig {
    /// Preprocessing of radiographs for these models.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess { version: 1, size: self.apm.image_size as u32, histogram: self.histogram }
    }

    /// Checks that the sizes fit together, so that no operation fails later.
    ///
    /// # Errors
    /// If they do not; the message names the first size that does not fit.
    pub fn check(&self) -> Result<()> {
        self.apm.check()?;
        self.text.check()?;
        self.language.check()?;
        ensure!((1..=MAX_RANK).contains(&self.lora.rank), "lora.rank {} is not between 1 and {MAX_RANK}", self.lora.rank);
        self.prompt.check(self.apm.patches())
    }

    /// Number of rows of visual features of an image, without those of its structures.
    pub fn image_features(&self) -> usize {
        self.prompt.form().image_features(self.apm.patches() as usize)
    }

    /// Visual features `[B, image features + 36, hidden]` of image tokens `[B, P, width]` and object embeddings `[B, 36, E]`.
    pub fn visual_features<O: Ops>(&self, ops: &O, image_tokens: &O::Tensor, object_embeddings: &O::Tensor) -> O::Tensor {
        let (width, embedding, hidden) = (self.apm.width, self.apm.embedding, self.language.hidden_size);
        let tokens = pooled(ops, image_tokens, [self.apm.grid(), width], self.prompt.pool as i64);
        projector(ops, (width, embedding, hidden), &tokens, object_embeddings)
    }
}

/// Largest rank of adapters.
const MAX_RANK: i64 = 4096;

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
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; run `train text` or `import` first", path.display()))?;
        let models: ModelConfig = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        models.check().with_context(|| format!("{} is not valid", path.display()))?;
        Ok(models)
    }

    /// Writes the models' configuration, or checks that the one that is already in the run is equal.
    ///
    /// # Errors
    /// If the run has another configuration, or the file cannot be written.
    pub fn keep_models(&self, models: &ModelConfig) -> Result<()> {
        let path = self.file(MODELS);
        if path.exists() {
            ensure!(
                &self.models()? == models,
                "{} has models of another configuration; choose another run folder, or the configuration that the run was started with",
                self.folder.display()
            );
            return Ok(());
        }
        self.write_models(models)
    }

    /// Replaces the models' configuration if it differs.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_models(&self, models: &ModelConfig) -> Result<()> {
        if self.models().is_ok_and(|present| present == *models) {
            return Ok(());
        }
        let path = self.file(MODELS);
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
/// File name of what `align` gave, or of an imported adapter that `instruct` started from.
pub const ALIGNED: &str = "aligned.safetensors";
/// File name of the projectors, the adapters and the other trained parameters of the language model, by the latest stage.
pub const ADAPTER: &str = "adapter.safetensors";
