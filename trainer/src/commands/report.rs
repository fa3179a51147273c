//! The commands `report` and `compare`.

use crate::reporting::comparison;
use crate::reporting::page::{self, PAGE};
use crate::run::Run;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// Write a page with plots of a run's losses and figures, for a browser.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Folder of the run.
    run: PathBuf,
    /// The page [default: report.html in the run's folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Print the latest figures of runs side by side.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// Folders of the runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn open(folder: &Path) -> Result<Run> {
    ensure!(folder.is_dir(), "there is no folder {}", folder.display());
    Ok(Run { folder: folder.into() })
}

pub(super) fn report(arguments: &Report) -> Result<()> {
    let run = open(&arguments.run)?;
    let out = arguments.out.clone().unwrap_or_else(|| run.file(PAGE));
    page::write(&run, &out)?;
    println!("{}", out.display());
    Ok(())
}

pub(super) fn compare(arguments: &Compare) -> Result<()> {
    let runs = arguments.runs.iter().map(|folder| open(folder)).collect::<Result<Vec<_>>>()?;
    let rows = comparison::compare(&runs)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", comparison::table(&runs, &rows));
    }
    Ok(())
}
