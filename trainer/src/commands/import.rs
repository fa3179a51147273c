//! The command `import`.

use crate::import::{Settings, import};
use crate::models::apm::ApmConfig;
use anyhow::Result;
use std::path::PathBuf;

/// Import published checkpoints into a run, for `train` and `export`. Any subset can be given; values keep their precision.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the run; parts that an existing run has are kept.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// The Anatomy Perception Module: safetensors, or a PyTorch checkpoint (read, never executed).
    #[arg(long, value_name = "FILE")]
    apm: Option<PathBuf>,
    /// Side of the images that the perception module was trained on, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = ApmConfig::default().image_size)]
    image_size: i64,
    /// A pretrained image encoder for training a perception module: a Hugging Face folder with a DINOv3 vision transformer, or a file with
    /// a ResNet-50 of torchvision (safetensors, or a PyTorch checkpoint).
    #[arg(long, value_name = "DIR|FILE")]
    image_encoder: Option<PathBuf>,
    /// The sentence encoder: a Hugging Face folder with a BERT model and its tokenizer.
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// The base language model: a Hugging Face folder with a Gemma 3 model; a vision tower in it is not imported.
    #[arg(long, value_name = "DIR")]
    language: Option<PathBuf>,
    /// Fine-tuned parts: the published file, or the folder of a PEFT adapter, which may contain projectors.safetensors.
    #[arg(long, value_name = "FILE|DIR")]
    adapter: Option<PathBuf>,
    /// A prepared folder, or a folder of phantoms, whose sentences are retrieved.
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
