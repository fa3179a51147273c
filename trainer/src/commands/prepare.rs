//! The command `prepare`.

use crate::data::samples::config::Config;
use crate::data::samples::folder::SKIPPED;
use crate::data::samples::prepare::prepare;
use anyhow::Result;
use std::path::PathBuf;

/// Read the published data sets that one has, and write their images and the nine sample sets of the paper to a folder.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration, a TOML file that says where the data sets are.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Output folder; an earlier prepared folder is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Stop at the first thing that is not as published, instead of skipping it.
    #[arg(long)]
    strict: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref config, ref out, strict, json } = arguments;
    let summary = prepare(&Config::read(config)?, out, strict)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    println!("{}", summary.text());
    if !summary.skipped.is_empty() {
        println!("{} names files and rows", out.join(SKIPPED).display());
    }
    Ok(())
}
