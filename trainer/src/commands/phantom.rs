//! The command `phantom`.

use crate::data::loading::prepared::INSIDE;
use crate::data::samples::config::{Config, Folders};
use crate::data::samples::prepare::prepare;
use crate::data::sources::split::Split;
use crate::progress;
use anatomix::output::write_whole;
use anatomix_phantom::dataset::{EVALUATION_SEEDS, Options, write};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};

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
    /// Draw no markers, the letters of a side or a view; all else of a seed's radiograph is the same.
    #[arg(long)]
    without_markers: bool,
}

/// File name of what was drawn. It is written first, and says that a folder is of phantoms.
pub(super) const MARK: &str = "phantoms.json";

/// Makes the folder. One that has something else than phantoms is refused, as files of the same names would be replaced.
fn claim(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let is_empty = std::fs::read_dir(out).with_context(|| format!("cannot read the folder {}", out.display()))?.next().is_none();
    ensure!(
        is_empty || out.join(MARK).exists(),
        "{} is not empty and has no {MARK}, so its files are not phantoms; choose another folder, or empty it",
        out.display()
    );
    Ok(())
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref out, count, seed, size, dicom_every, without_markers } = arguments;
    ensure!(count > 0, "--count is 0; draw at least one radiograph");
    let end = seed.checked_add(count).with_context(|| format!("--seed {seed} and --count {count} are too large together"))?;
    ensure!(
        seed >= EVALUATION_SEEDS || end <= EVALUATION_SEEDS,
        "seeds {seed} to {} are for training and for evaluation; stay below {EVALUATION_SEEDS}, or begin there",
        end - 1
    );
    claim(out)?;
    let drawn = json!({ "count": count, "seed": seed, "size": size, "dicom_every": dicom_every, "markers": !without_markers });
    write_whole(out.join(MARK), format!("{drawn:#}\n").as_bytes())?;
    let bar = progress::bar(count, "drawing");
    write(&Options { out: out.clone(), count, seed, size, dicom_every, markers: !without_markers }, |n| bar.inc(n))?;
    bar.finish_and_clear();
    // A phantom of training resembles one of validation as much as two of training do, so that both give sentences.
    let database_splits = vec![Split::Train, Split::Validate];
    let sources = Folders { phantom: Some(out.clone()), ..Folders::default() };
    prepare(&Config { database_splits, sources, ..Config::default() }, &out.join(INSIDE), false)?;
    eprintln!("{count} phantoms in {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let arguments = Arguments { out: out.clone(), count: 1, seed: 0, size: 64, dicom_every: 0, without_markers: false };
        run(&arguments).unwrap();
        let drawn = |out: &Path| std::fs::read_to_string(out.join(MARK)).unwrap();
        assert!(drawn(&out).contains("\"markers\": true"));
        // Phantoms are drawn again.
        run(&arguments).unwrap();
        std::fs::remove_file(out.join(MARK)).unwrap();
        let table = out.join("mimic-cxr-2.0.0-split.csv");
        std::fs::write(&table, "of MIMIC-CXR").unwrap();
        let error = run(&arguments).unwrap_err().to_string();
        assert!(error.contains(&out.display().to_string()) && error.contains("choose another folder"), "{error}");
        assert_eq!(std::fs::read_to_string(&table).unwrap(), "of MIMIC-CXR");
    }
}
