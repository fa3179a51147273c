//! The command `phantom`.

use crate::data::loading::prepared::INSIDE;
use crate::data::samples::config::{Config, Folders};
use crate::data::samples::prepare::prepare;
use crate::data::sources::split::Split;
use crate::progress;
use anatomix_phantom::dataset::{EVALUATION_SEEDS, Options, write};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// Draw synthetic chest radiographs with boxes, sentences, reports, labels and instruction samples, and prepare them for training.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Output folder.
    #[arg(long)]
    out: PathBuf,
    /// Number of radiographs.
    #[arg(long)]
    count: u64,
    /// Seed of the first radiograph. Seeds below 1,000,000 are for training, the others for evaluation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest side in pixels.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u32).range(64..=4096))]
    size: u32,
    /// Write a DICOM file in addition to the PNG for each seed divisible by this; 0 writes none.
    #[arg(long, default_value_t = 10)]
    dicom_every: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref out, count, seed, size, dicom_every } = arguments;
    ensure!(count > 0, "--count is 0; draw at least one radiograph");
    let end = seed.checked_add(count).with_context(|| format!("--seed {seed} and --count {count} are too large together"))?;
    ensure!(
        seed >= EVALUATION_SEEDS || end <= EVALUATION_SEEDS,
        "seeds {seed} to {} are for training and for evaluation; stay below {EVALUATION_SEEDS}, or begin there",
        end - 1
    );
    let bar = progress::bar(count, "drawing");
    write(&Options { out: out.clone(), count, seed, size, dicom_every }, |n| bar.inc(n))?;
    bar.finish_and_clear();
    // A phantom of training resembles one of validation as much as two of training do, so that both give sentences.
    let database_splits = vec![Split::Train, Split::Validate];
    let sources = Folders { phantom: Some(out.clone()), ..Folders::default() };
    prepare(&Config { database_splits, sources, ..Config::default() }, &out.join(INSIDE), false)?;
    eprintln!("{count} phantoms in {}", out.display());
    Ok(())
}
