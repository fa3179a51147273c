//! Import of published checkpoints into a run, which `train` and `export` then read. Sizes come from the checkpoints' configurations.
//!
//! All names and shapes are checked before a value is read. Values are then copied unchanged, block by block, so that memory does not
//! grow with the model.

mod adapter;
mod apm;
mod checkpoint;
mod dino;
pub mod encoder;
mod error;
mod language;
mod names;
mod resnet;
mod stored;
mod text;
mod tokens;
mod write;

pub use error::ImportError;

use crate::data::loading::prepared::Prepared;
use crate::lock::Lock;
use crate::models::gemma::EMBEDDING;
use crate::models::lora::Lora;
use crate::progress;
use crate::run::{self, ModelConfig, Run};
use crate::training::results;
use adapter::Adapter;
use anyhow::{Context, Result, ensure};
use apm::PerceptionModule;
use checkpoint::Checkpoint;
use dino::ImageEncoder;
use language::LanguageModel;
use resnet::Backbone;
use std::path::{Path, PathBuf};
use text::SentenceEncoder;
use tokenizers::Tokenizer;
use write::Files;

/// Options of [`import`].
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Folder of the run. Parts that an existing run has are kept.
    pub out: PathBuf,
    /// File of the perception module: safetensors or a pickle.
    pub apm: Option<PathBuf>,
    /// Side of the images that the module was trained on, in pixels. It cannot be derived from the module's parameters.
    pub image_size: i64,
    /// A pretrained image encoder, for training a perception module: the folder of a DINOv3 model, or the file of a ResNet.
    pub image_encoder: Option<PathBuf>,
    /// Folder of the sentence encoder.
    pub text_encoder: Option<PathBuf>,
    /// Folder of the base language model.
    pub language: Option<PathBuf>,
    /// Fine-tuned parts: the published file, or the folder of a PEFT adapter.
    pub adapter: Option<PathBuf>,
    /// A prepared folder, or a folder of phantoms, whose sentences are retrieved.
    pub sentences: Option<PathBuf>,
}

/// Imports checkpoints into a run. Returns a line of description for each part.
///
/// # Errors
/// If a checkpoint cannot be read, does not fit its model or is not supported, if the run already has such a part, or if another program
/// uses the run. The run is then unchanged.
pub fn import(settings: &Settings) -> Result<Vec<String>> {
    let Settings { out, apm, image_size, image_encoder, text_encoder, language, adapter, sentences } = settings;
    ensure!(
        [apm, image_encoder, text_encoder, language, adapter, sentences].into_iter().any(Option::is_some),
        "nothing to import; give --apm, --image-encoder, --text-encoder, --language, --adapter or --sentences"
    );
    ensure!(
        apm.is_none() || image_encoder.is_none(),
        "--apm and --image-encoder exclude each other, because a perception module contains its image encoder; give one of them"
    );
    ensure!(*image_size > 0 && image_size % 32 == 0 && *image_size <= 8192, "--image-size must be a multiple of 32 up to 8192");
    let run = Run { folder: out.clone() };
    // A training in the same folder must not change what is looked at here. A new folder is made when all is found to fit.
    let lock = if out.exists() { Some(Lock::take(out)?) } else { None };
    let mut models = if run.file(run::MODELS).exists() { run.models()? } else { ModelConfig::default() };
    for (chosen, files) in [
        (apm, [run::APM].as_slice()),
        (image_encoder, &[run::IMAGE_ENCODER, run::APM]),
        (text_encoder, &[run::TEXT, run::TEXT_TOKENIZER]),
        (language, &[run::LANGUAGE]),
        (adapter, &[run::ADAPTER, run::ALIGNED]),
        (sentences, &[run::SENTENCES]),
    ] {
        if let Some(file) = files.iter().map(|file| run.file(file)).find(|file| chosen.is_some() && file.exists()) {
            anyhow::bail!("{} exists already; import into another folder, or remove the file first", file.display());
        }
    }

    // All errors of names, shapes and configurations are found from headers, before any file is written.
    let mut lines = Vec::new();
    let apm = apm.as_deref().map(|path| PerceptionModule::open(path, *image_size)).transpose()?;
    let (encoder_folder, encoder_file) = match image_encoder.as_deref() {
        Some(path) if path.is_dir() => (Some(path), None),
        path => (None, path),
    };
    let image_encoder = encoder_folder.map(ImageEncoder::open).transpose()?;
    let backbone = encoder_file.map(Backbone::open).transpose()?;
    let text = text_encoder.as_deref().map(SentenceEncoder::open).transpose()?;
    let language = language.as_deref().map(LanguageModel::open).transpose()?;
    if let Some(text) = &text {
        models.text = crate::models::text::TextConfig { projection: models.text.projection, ..text.config.clone() };
        lines.push(format!("sentence encoder: {} layers, {} wide, {}", text.config.layers, text.config.width, size(&text.checkpoint)));
    }
    if let Some(apm) = &apm {
        apply_perception(apm, &mut models, text.is_some() || run.file(run::TEXT).exists())?;
        let sentences = if apm.projection.is_some() { "with" } else { "without" };
        lines.push(format!("perception module: {image_size}x{image_size}, {sentences} a text projection, {}", size(&apm.checkpoint)));
    }
    if let Some(encoder) = &image_encoder {
        ensure!(
            image_size % encoder.config.patch == 0,
            "--image-size must be a multiple of the encoder's patch size, {}",
            encoder.config.patch
        );
        models.apm.image_size = *image_size;
        models.apm.dino = Some(encoder.config.clone());
        lines.push(format!(
            "image encoder: {} layers, {} wide, {}",
            encoder.config.layers,
            encoder.config.width,
            size(&encoder.checkpoint)
        ));
    }
    if let Some(Backbone { blocks, planes, checkpoint }) = &backbone {
        models.apm.image_size = *image_size;
        models.apm.dino = None;
        (models.apm.blocks, models.apm.planes) = (*blocks, *planes);
        lines.push(format!("image encoder: a ResNet with {blocks:?} blocks, without its first convolution, {}", size(checkpoint)));
    }
    if let Some(language) = &language {
        models.language = language.config.clone();
        let rows = if language.added_rows > 0 { format!("{} rows added", language.added_rows) } else { "no rows added".into() };
        lines.push(format!("language model: {} layers, {rows}, {}", language.config.num_hidden_layers, size(&language.checkpoint)));
    }
    if adapter.is_none() && language.is_some() && run.file(run::ADAPTER).exists() {
        let has_head = Adapter::check_existing(&run.file(run::ADAPTER), &models.language, &models.lora, widths(&models))?;
        models.language.tie_word_embeddings &= !has_head;
    }
    let adapter = match adapter {
        Some(path) => {
            let existing = run.file(run::LANGUAGE);
            let existing = if language.is_none() && existing.exists() { Some(Checkpoint::open(&existing)?) } else { None };
            let base = language.as_ref().map(|l| &l.checkpoint).or(existing.as_ref());
            // Without a base model in the run, the adapter must fit MedGemma-4b-it, the base model of the published adapter.
            let table = base.and_then(|base| base.tensors.get(EMBEDDING));
            let adapter = Adapter::open(path, &models.language, table, widths(&models));
            let adapter = adapter.map_err(anyhow::Error::from).with_context(|| {
                let alone = base.is_none().then_some("; without a base model it must fit MedGemma-4b-it, give --language for another");
                format!("cannot use the adapter{}", alone.unwrap_or_default())
            })?;
            models.lora = adapter.lora.clone();
            models.language.tie_word_embeddings = !adapter.untied;
            let projectors = if adapter.projectors { "with projectors" } else { "without projectors (`train align` trains them)" };
            let Lora { rank, alpha, .. } = adapter.lora;
            lines.push(format!("adapter: rank {rank}, scaling {alpha}, {projectors}, {}", size(&adapter.checkpoint)));
            Some(adapter)
        }
        None => None,
    };

    let sentences = sentences.as_deref().map(|data| Prepared::open(data)?.sentences()).transpose()?;

    let _lock = match lock {
        Some(lock) => lock,
        None => lock_new(out)?,
    };
    let mut files = Files::default();
    let parts = [
        (run::TEXT, text.as_ref().map(|t| &t.checkpoint)),
        (run::APM, apm.as_ref().map(|a| &a.checkpoint)),
        (run::IMAGE_ENCODER, image_encoder.as_ref().map(|e| &e.checkpoint)),
        (run::IMAGE_ENCODER, backbone.as_ref().map(|b| &b.checkpoint)),
        (run::LANGUAGE, language.as_ref().map(|l| &l.checkpoint)),
        (run::ADAPTER, adapter.as_ref().map(|a| &a.checkpoint)),
    ];
    let bytes = |checkpoint: &Checkpoint| checkpoint.tensors.values().map(|t| t.bytes()).sum::<u64>();
    let bar = progress::bar(parts.iter().filter_map(|(_, part)| part.map(bytes)).sum(), "importing");
    for (name, part) in parts {
        if let Some(checkpoint) = part {
            bar.set_message(name);
            files.tensors(run.file(name), checkpoint, &bar)?;
        }
    }
    bar.finish_and_clear();
    write_tokenizers(&mut files, &run, text.as_ref(), language.as_ref())?;
    if let Some(sentences) = sentences {
        files.bytes(run.file(run::SENTENCES), &sentences)?;
    }
    files.bytes(run.file(run::MODELS), toml::to_string_pretty(&models)?.as_bytes())?;
    if adapter.is_some() {
        // Instruction tuning is to start from the imported adapter, not to resume a training whose result was removed.
        for stage in ["align", "instruct"] {
            for (path, aside) in results::set_aside(&run, stage)? {
                lines.push(format!("{} is of a training before this adapter; it is now {}", path.display(), aside.display()));
            }
        }
    }
    files.install()?;
    Ok(lines)
}

/// Makes a run's folder, which must not have appeared meanwhile, and locks it.
fn lock_new(folder: &Path) -> Result<Lock> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create the folder {}", parent.display()))?;
    }
    std::fs::create_dir(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    Lock::take(folder)
}

/// Widths of image tokens, object embeddings and the language model, which determine the projectors' shapes.
fn widths(models: &ModelConfig) -> (i64, i64, i64) {
    (models.apm.width, models.apm.embedding, models.language.hidden_size)
}

/// Sets the configuration of the perception module, and checks that its text projection fits the sentence encoder.
fn apply_perception(apm: &PerceptionModule, models: &mut ModelConfig, encoder: bool) -> Result<()> {
    models.apm = apm.config.clone();
    if let Some((width, inner)) = apm.projection {
        ensure!(
            !encoder || width == models.text.width,
            "the text projection of {} takes embeddings of width {width}, but the sentence encoder has width {}; they do not belong \
             together",
            apm.checkpoint.path.display(),
            models.text.width
        );
        models.text.width = width;
        models.text.projection = inner;
    }
    Ok(())
}

/// Writes the language model's tokenizer as the run's, and that of an imported sentence encoder to a file of its own.
fn write_tokenizers(files: &mut Files, run: &Run, text: Option<&SentenceEncoder>, language: Option<&LanguageModel>) -> Result<()> {
    if let Some(text) = text {
        files.bytes(run.file(run::TEXT_TOKENIZER), &serialized(&text.tokenizer)?)?;
    }
    let Some(language) = language else { return Ok(()) };
    let (own, sentences) = (run.file(run::TOKENIZER), run.file(run::TEXT_TOKENIZER));
    if text.is_none() && run.file(run::TEXT).exists() && own.exists() && !sentences.exists() {
        // The run's sentence encoder was trained with the tokenizer that is replaced here, so it keeps a copy.
        files.bytes(sentences, &checkpoint::bytes(&own)?)?;
    }
    files.bytes(own, &serialized(&language.tokenizer)?)?;
    if let Some(template) = &language.chat_template {
        files.bytes(run.file(run::CHAT_TEMPLATE), template.as_bytes())?;
    }
    Ok(())
}

fn serialized(tokenizer: &Tokenizer) -> Result<Vec<u8>> {
    Ok(tokenizer.to_string(false).map_err(|e| anyhow::anyhow!("cannot write the tokenizer: {e}"))?.into_bytes())
}

fn size(checkpoint: &Checkpoint) -> String {
    let values: u64 = checkpoint.tensors.values().map(|t| t.values()).sum();
    format!("{} tensors, {:.2} M values", checkpoint.tensors.len(), values as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_run_is_locked_before_it_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let says = |out: &Path| {
            let settings =
                Settings { out: out.into(), apm: Some(folder.path().join("missing.pth")), image_size: 64, ..Settings::default() };
            format!("{:#}", import(&settings).unwrap_err())
        };
        let run = folder.path().join("run");
        assert!(says(&run).contains("missing.pth"));
        assert!(!run.exists(), "a refused import leaves no run behind");
        fs::create_dir(&run).unwrap();
        fs::write(run.join(run::APM), "").unwrap();
        assert!(says(&run).contains("apm.safetensors exists already"));
        let lock = Lock::take(&run).unwrap();
        assert!(says(&run).contains("is in use by process"));
        drop(lock);
        assert!(lock_new(&run).is_err(), "a folder that appeared meanwhile is not taken for a new one");
    }
}
