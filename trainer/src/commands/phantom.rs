//! Draws a data set of synthetic radiographs.

use crate::training::progress;
use anatomix_phantom::dataset::{Options, write};
use anyhow::Result;
use std::path::PathBuf;

/// Draws synthetic chest radiographs with boxes, sentences, reports, labels and instruction samples.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// How many.
    #[arg(long)]
    count: u64,
    /// Seed of the first one; below 1,000,000 for training, from there on for evaluation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest side in pixels.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u32).range(64..=4096))]
    size: u32,
    /// Every how many phantoms a DICOM file is written beside the PNG; 0 for never.
    #[arg(long, default_value_t = 10)]
    dicom_every: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref out, count, seed, size, dicom_every } = arguments;
    let bar = progress::bar(count, "drawing");
    write(&Options { out: out.clone(), count, seed, size, dicom_every }, |n| bar.inc(n))?;
    bar.finish_and_clear();
    eprintln!("{count} phantoms in {}", out.display());
    Ok(())
}
