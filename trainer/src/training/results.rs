//! The files that a stage leaves in its run, and what becomes of stages that were trained on earlier ones.
//!
//! A stage's result may be replaced, by training the stage again. Whatever later stages made of the earlier result does not fit the new
//! one. It is renamed, so that neither a training nor an export takes both together.

use super::checkpoint::Checkpoint;
use super::kept;
use crate::progress::say;
use crate::run::{self, Run};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The stages that are trained on the result of a stage, directly or not.
fn later(stage: &str) -> &'static [&'static str] {
    match stage {
        "text" => &["apm", "language", "align", "instruct"],
        "apm" | "language" => &["align", "instruct"],
        "align" => &["instruct"],
        _ => &[],
    }
}

/// The files with the results of a stage.
fn results(stage: &str) -> &'static [&'static str] {
    match stage {
        "text" => &[run::TEXT],
        "apm" => &[run::APM, run::SENTENCES],
        "language" => &[run::LANGUAGE],
        "align" => &[run::ALIGNED, run::ADAPTER],
        _ => &[run::ADAPTER],
    }
}

/// Puts a result of a stage, which `write` writes to a path, at its place in the run. If there is another one already, later stages are set
/// aside first. Returns whether the file is new or has changed.
///
/// # Errors
/// If a file cannot be written or renamed.
pub fn put(run: &Run, stage: &str, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    let (path, new) = (run.file(name), run.file(&format!("{name}.new")));
    write(&new)?;
    if path.exists() {
        if same(&path, &new).with_context(|| format!("cannot compare {} with {}", path.display(), new.display()))? {
            fs::remove_file(&new).with_context(|| format!("cannot remove {}", new.display()))?;
            return Ok(false);
        }
        set_aside_later(run, stage)?;
    }
    rename(&new, &path)?;
    Ok(true)
}

/// Renames what later stages of this run were trained to.
///
/// # Errors
/// If a file cannot be renamed.
pub fn set_aside_later(run: &Run, stage: &str) -> Result<()> {
    for later in later(stage).iter().filter(|later| was_trained(run, later)) {
        Checkpoint::new(run, later).set_aside()?;
        for name in results(later).iter().map(|name| (*name).to_owned()).chain([format!("{later}.best.safetensors"), kept::name(later)]) {
            let (path, aside) = (run.file(&name), earlier(&run.file(&name)));
            if path.exists() {
                rename(&path, &aside)?;
                say(&format!("{stage}: {} was trained on what this stage made earlier; it is now {}", path.display(), aside.display()));
            }
        }
    }
    Ok(())
}

/// Whether a stage was begun in this run. Otherwise its result was imported, or there is none.
fn was_trained(run: &Run, stage: &str) -> bool {
    run.file(&kept::name(stage)).exists() || Checkpoint::new(run, stage).exists()
}

/// The file from which instruction tuning starts: what alignment gave, or what was imported; `None` if there is neither, so that projectors
/// begin at random. If `keeps`, an imported file is copied, because its own one will be replaced.
///
/// # Errors
/// If what alignment gave is missing, or the copy cannot be written.
pub fn start_of_instruct(run: &Run, keeps: bool) -> Result<Option<PathBuf>> {
    let (aligned, adapter) = (run.file(run::ALIGNED), run.file(run::ADAPTER));
    if aligned.exists() {
        return Ok(Some(aligned));
    }
    ensure!(
        !was_trained(run, "align"),
        "`train align` was begun in this run, but {} is missing; run it to its end, or name the file to start from with --from",
        aligned.display()
    );
    // An adapter that instruction tuning made itself did not begin with another one.
    if !adapter.exists() || was_trained(run, "instruct") {
        return Ok(None);
    }
    if keeps {
        let new = run.file(&format!("{}.new", run::ALIGNED));
        fs::copy(&adapter, &new).with_context(|| format!("cannot write {}", new.display()))?;
        rename(&new, &aligned)?;
    }
    Ok(Some(adapter))
}

/// `adapter.earlier.safetensors` for `adapter.safetensors`.
fn earlier(path: &Path) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_extension(format!("earlier.{extension}"))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let [mut one, mut other] = [one, other].map(|file| BufReader::with_capacity(1 << 20, file));
    let (mut own, mut its) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut own)?;
        if count == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut its[..count]) {
            Ok(()) if own[..count] == its[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with a file for each name, whose content is the name.
    fn run_with(names: &[&str]) -> (tempfile::TempDir, Run) {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path()).unwrap();
        names.iter().for_each(|name| fs::write(run.file(name), name).unwrap());
        (folder, run)
    }

    fn names(run: &Run) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&run.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn put_text(run: &Run, stage: &str, name: &str, text: &str) -> bool {
        put(run, stage, name, |path| Ok(fs::write(path, text)?)).unwrap()
    }

    #[test]
    fn another_result_sets_aside_what_was_trained_on_the_earlier_one() {
        let all = ["apm.safetensors", "language.safetensors", "recipe.align.toml", "align.checkpoint.safetensors", "aligned.safetensors"];
        let (_folder, run) = run_with(&all);
        // The same result, as when a stage is resumed that is done.
        assert!(!put_text(&run, "apm", run::APM, "apm.safetensors"));
        assert_eq!(names(&run).len(), all.len());
        assert!(put_text(&run, "apm", run::APM, "other"));
        let aside = ["aligned.earlier.safetensors", "align.checkpoint.earlier.safetensors", "recipe.align.earlier.toml"];
        let mut expected = [&all[..2], &aside[..]].concat();
        expected.sort();
        assert_eq!(names(&run), expected);
        assert_eq!(fs::read_to_string(run.file(run::APM)).unwrap(), "other");
    }

    #[test]
    fn imported_parts_stay() {
        let (_folder, run) = run_with(&["apm.safetensors", "adapter.safetensors"]);
        assert!(put_text(&run, "apm", run::APM, "other"));
        assert_eq!(names(&run), ["adapter.safetensors", "apm.safetensors"]);
    }

    #[test]
    fn instruction_tuning_never_starts_from_its_own_result() {
        let start = |names: &[&str]| {
            let (_folder, run) = run_with(names);
            let found = start_of_instruct(&run, true);
            found.map(|path| path.map(|path| fs::read_to_string(path).unwrap())).map_err(|error| error.to_string())
        };
        assert_eq!(start(&[]), Ok(None));
        assert_eq!(start(&["adapter.safetensors", "aligned.safetensors"]), Ok(Some("aligned.safetensors".into())));
        assert_eq!(start(&["adapter.safetensors"]), Ok(Some("adapter.safetensors".into())));
        assert_eq!(start(&["adapter.safetensors", "recipe.instruct.toml"]), Ok(None));
        let error = start(&["adapter.safetensors", "recipe.instruct.toml", "recipe.align.toml"]).unwrap_err();
        assert!(error.contains("aligned.safetensors is missing; run it to its end") && error.contains("--from"), "{error}");
        // An imported one is kept, and found again.
        let (_folder, run) = run_with(&["adapter.safetensors"]);
        start_of_instruct(&run, true).unwrap();
        fs::write(run.file("recipe.instruct.toml"), "").unwrap();
        fs::write(run.file(run::ADAPTER), "tuned").unwrap();
        let found = start_of_instruct(&run, true).unwrap().unwrap();
        assert_eq!(fs::read_to_string(found).unwrap(), "adapter.safetensors");
    }
}
