//! Published checkpoints become a run: what `train` and `export` read, with sizes from the checkpoints' own configurations.
//!
//! Everything is checked by names and shapes before a value is read; then values are copied as they are, block by block, so that
//! memory does not grow with the model.

mod adapter;
mod apm;
mod checkpoint;
mod dino;
mod error;
mod language;
mod names;
mod stored;
mod text;
mod tokens;
mod write;

pub use error::ImportError;

use crate::models::gemma::EMBEDDING;
use crate::models::lora::Lora;
use crate::run::{self, ModelConfig, Run};
use crate::training::{self, progress};
use adapter::Adapter;
use anyhow::{Context, Result, ensure};
use apm::Perception;
use checkpoint::Checkpoint;
use dino::ImageEncoder;
use language::LanguageModel;
use std::path::PathBuf;
use text::SentenceEncoder;
use tokenizers::Tokenizer;
use write::Files;

/// What to import, and where to.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The run's folder; a run that is there keeps what it holds.
    pub out: PathBuf,
    /// The perception module: safetensors or a pickle.
    pub apm: Option<PathBuf>,
    /// Side of the image that the module was trained on, in pixels: nothing in its parameters says it.
    pub image_size: i64,
    /// A pretrained image encoder's folder, for a perception module that is to be trained.
    pub image_encoder: Option<PathBuf>,
    /// The sentence encoder's folder.
    pub text_encoder: Option<PathBuf>,
    /// The base language model's folder.
    pub language: Option<PathBuf>,
    /// The fine-tuned part: a file, or a PEFT adapter's folder.
    pub adapter: Option<PathBuf>,
    /// A data set whose validation split gives the sentences that are retrieved.
    pub sentences: Option<PathBuf>,
}

/// Imports checkpoints into a run; returns a line about each part.
///
/// # Errors
/// If a checkpoint cannot be read, does not fit its model or is of another kind, or if the run holds such a part already. The
/// run is then as it was.
pub fn import(settings: &Settings) -> Result<Vec<String>> {
    let Settings { out, apm, image_size, image_encoder, text_encoder, language, adapter, sentences } = settings;
    ensure!(
        [apm, image_encoder, text_encoder, language, adapter, sentences].into_iter().any(Option::is_some),
        "nothing to import; give --apm, --image-encoder, --text-encoder, --language, --adapter or --sentences"
    );
    ensure!(
        apm.is_none() || image_encoder.is_none(),
        "a perception module holds its image encoder: give --apm, or --image-encoder to train one"
    );
    ensure!(*image_size > 0 && image_size % 32 == 0 && *image_size <= 8192, "--image-size must be a multiple of 32 up to 8192");
    let run = Run { folder: out.clone() };
    let mut models = if run.file(run::MODELS).exists() { run.models()? } else { ModelConfig::default() };
    for (chosen, files) in [
        (apm, [run::APM].as_slice()),
        (image_encoder, &[run::IMAGE_ENCODER, run::APM]),
        (text_encoder, &[run::TEXT, run::TEXT_TOKENIZER]),
        (language, &[run::LANGUAGE]),
        (adapter, &[run::ADAPTER]),
        (sentences, &[run::SENTENCES]),
    ] {
        if let Some(file) = files.iter().map(|file| run.file(file)).find(|file| chosen.is_some() && file.exists()) {
            anyhow::bail!("{} is there already; import into another folder, or remove it first", file.display());
        }
    }

    // First all that can be wrong is found, from headers alone; then the files are written.
    let mut lines = Vec::new();
    let apm = apm.as_deref().map(|path| Perception::open(path, *image_size)).transpose()?;
    let image_encoder = image_encoder.as_deref().map(ImageEncoder::open).transpose()?;
    let text = text_encoder.as_deref().map(SentenceEncoder::open).transpose()?;
    let language = language.as_deref().map(LanguageModel::open).transpose()?;
    if let Some(text) = &text {
        models.text = crate::models::text::TextConfig { projection: models.text.projection, ..text.config.clone() };
        lines.push(format!("sentence encoder: {} layers, {} wide, {}", text.config.layers, text.config.width, size(&text.checkpoint)));
    }
    if let Some(apm) = &apm {
        take_perception(apm, &mut models, text.is_some() || run.file(run::TEXT).exists())?;
        let sentences = if apm.projection.is_some() { "with" } else { "without" };
        lines.push(format!("perception module: {image_size}x{image_size}, {sentences} a text projection, {}", size(&apm.checkpoint)));
    }
    if let Some(encoder) = &image_encoder {
        ensure!(
            image_size % encoder.config.patch == 0,
            "--image-size must be a multiple of the encoder's patches of {}",
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
    if let Some(language) = &language {
        models.language = language.config.clone();
        let rows = if language.grown > 0 { format!("{} rows added", language.grown) } else { "no rows added".into() };
        lines.push(format!("language model: {} layers, {rows}, {}", language.config.num_hidden_layers, size(&language.checkpoint)));
    }
    if adapter.is_none() && language.is_some() && run.file(run::ADAPTER).exists() {
        let own_head = Adapter::held(&run.file(run::ADAPTER), &models.language, &models.lora, widths(&models))?;
        models.language.tie_word_embeddings &= !own_head;
    }
    let adapter = match adapter {
        Some(path) => {
            let held = run.file(run::LANGUAGE);
            let held = if language.is_none() && held.exists() { Some(Checkpoint::open(&held)?) } else { None };
            let base = language.as_ref().map(|l| &l.checkpoint).or(held.as_ref());
            // Where the run has no base model yet, the adapter must fit MedGemma-4b-it, which the published one adapts.
            let table = base.and_then(|base| base.tensors.get(EMBEDDING));
            let adapter = Adapter::open(path, &models.language, table, widths(&models));
            let adapter = adapter.map_err(anyhow::Error::from).with_context(|| {
                let alone = base.is_none().then_some("; without a base model it must fit MedGemma-4b-it, give --language for another");
                format!("cannot use the adapter{}", alone.unwrap_or_default())
            })?;
            models.lora = adapter.lora.clone();
            models.language.tie_word_embeddings = !adapter.untied;
            let projectors = if adapter.projectors { "with projectors" } else { "without projectors, which `train align` makes" };
            let Lora { rank, alpha, .. } = adapter.lora;
            lines.push(format!("adapter: rank {rank}, scaling {alpha}, {projectors}, {}", size(&adapter.checkpoint)));
            Some(adapter)
        }
        None => None,
    };

    let sentences = sentences.as_deref().map(|data| training::apm::database_sentences(data, &["validate".into()])).transpose()?;

    Run::create(out)?;
    let mut files = Files::default();
    let parts = [
        (run::TEXT, text.as_ref().map(|t| &t.checkpoint)),
        (run::APM, apm.as_ref().map(|a| &a.checkpoint)),
        (run::IMAGE_ENCODER, image_encoder.as_ref().map(|e| &e.checkpoint)),
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
    files.install()?;
    Ok(lines)
}

/// Widths that the projectors are between: of image tokens, object embeddings and the language model.
fn widths(models: &ModelConfig) -> (i64, i64, i64) {
    (models.apm.width, models.apm.embedding, models.language.hidden_size)
}

/// Takes over the module's sizes; its text projection must fit the sentence encoder.
fn take_perception(apm: &Perception, models: &mut ModelConfig, encoder: bool) -> Result<()> {
    models.apm = apm.config.clone();
    if let Some((width, inner)) = apm.projection {
        ensure!(
            !encoder || width == models.text.width,
            "the text projection of {} takes sentences {width} wide, but the sentence encoder's are {} wide; they do not belong together",
            apm.checkpoint.path.display(),
            models.text.width
        );
        models.text.width = width;
        models.text.projection = inner;
    }
    Ok(())
}

/// The language model's tokenizer is the run's; a sentence encoder of another keeps its own beside it.
fn write_tokenizers(files: &mut Files, run: &Run, text: Option<&SentenceEncoder>, language: Option<&LanguageModel>) -> Result<()> {
    if let Some(text) = text {
        files.bytes(run.file(run::TEXT_TOKENIZER), &serialized(&text.tokenizer)?)?;
    }
    let Some(language) = language else { return Ok(()) };
    let (own, sentences) = (run.file(run::TOKENIZER), run.file(run::TEXT_TOKENIZER));
    if text.is_none() && run.file(run::TEXT).exists() && own.exists() && !sentences.exists() {
        // The sentence encoder that the run holds was trained with the tokenizer that is replaced now.
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
