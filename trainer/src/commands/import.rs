//! Imports published checkpoints.

use crate::import::{Settings, import};
use crate::models::apm::ApmConfig;
use anyhow::Result;
use std::path::PathBuf;

/// Imports published checkpoints into a run, which `train` and `export` then read. Any subset can be given; values are kept in
/// the precision that they have.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The run's folder; a run that is there keeps what it holds.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// The Anatomy Perception Module: safetensors, or a PyTorch checkpoint (read, never executed).
    #[arg(long, value_name = "FILE")]
    apm: Option<PathBuf>,
    /// Side of the image that the module was trained on, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = ApmConfig::default().image_size)]
    image_size: i64,
    /// A pretrained image encoder to train a module with: a Hugging Face folder with a DINOv3 vision transformer.
    #[arg(long, value_name = "DIR")]
    image_encoder: Option<PathBuf>,
    /// The sentence encoder: a Hugging Face folder with a BERT model and its tokenizer.
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// The base language model: a Hugging Face folder with a Gemma 3 model; a vision tower in it is left out.
    #[arg(long, value_name = "DIR")]
    language: Option<PathBuf>,
    /// What was fine-tuned: the published file, or the folder of a PEFT adapter, with projectors.safetensors in it if there
    /// are any.
    #[arg(long, value_name = "FILE|DIR")]
    adapter: Option<PathBuf>,
    /// A data set in Chest ImaGenome's layout; its validation split gives the sentences that are retrieved.
    #[arg(long, value_name = "DATA")]
    sentences: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, apm, image_size, image_encoder, text_encoder, language, adapter, sentences } = arguments;
    let settings = Settings {
        out: out.clone(),
        apm: apm.clone(),
        image_size: *image_size,
        image_encoder: image_encoder.clone(),
        text_encoder: text_encoder.clone(),
        language: language.clone(),
        adapter: adapter.clone(),
        sentences: sentences.clone(),
    };
    for line in import(&settings)? {
        eprintln!("{line}");
    }
    eprintln!("imported into {}", out.display());
    Ok(())
}
