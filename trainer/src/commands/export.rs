//! Exports a run as a bundle.

use crate::export::{Settings, export};
use crate::graph::onnx::Storage;
use crate::run::Run;
use anyhow::Result;
use std::path::PathBuf;

/// Exports a trained run as a bundle: graphs, sentences, tokenizer, manifest and golden input.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The run's folder.
    run: PathBuf,
    /// The bundle's folder; a bundle that is there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// How large weights are stored; arithmetic is in fp32 either way.
    #[arg(long, default_value = "f16")]
    storage: Storage,
    /// The bundle's name; the run folder's by default.
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { run, out, storage, name } = arguments;
    let settings = Settings { out: out.clone(), storage: *storage, name: name.clone() };
    let made = export(&Run { folder: run.clone() }, &settings)?;
    eprintln!("{} in {}: {:.1} MB, sha256 {}", made.name, out.display(), made.bytes as f64 / 1e6, made.sha256);
    Ok(())
}
