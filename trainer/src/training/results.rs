//! The files that a stage leaves in its run, and what becomes of stages that were trained on earlier ones.
//!
//! A stage's result may be replaced, by training the stage again. Whatever later stages made of the earlier result does not fit the new
//! one. It is renamed, so that neither a training nor an export takes both together.

use super::checkpoint::{self, Checkpoint};
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

/// What writes a result to a path.
pub type Write<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// Puts the results of a stage, each written by its function, at their places in the run; the last one is the stage's main result. If other
/// ones are there, later stages are set aside first. Whenever this is killed, no main result stands beside another training's file: it is
/// missing then, and resuming the stage puts all of them.
///
/// # Errors
/// If a file cannot be written or renamed.
pub fn put(run: &Run, stage: &str, written: &[(&str, Write)]) -> Result<()> {
    let mut changed = Vec::new();
    for (name, write) in written {
        let (path, new) = (run.file(name), run.file(&format!("{name}.new")));
        write(&new)?;
        let compared = || format!("cannot compare {} with {}", path.display(), new.display());
        if path.exists() && same(&path, &new).with_context(compared)? {
            remove(&new)?;
        } else {
            changed.push((*name, path, new));
        }
    }
    let main = written.last().map(|(name, _)| *name);
    if changed.last().map(|(name, ..)| *name) != main {
        // A bundle may be made of what is aligned only. If alignment gave the same again, what was tuned after it stays.
        let (theirs, own): (Vec<_>, _) = changed.into_iter().partition(|(name, path, _)| path.exists() && is_of_later(run, stage, name));
        theirs.iter().try_for_each(|(.., new)| remove(new))?;
        changed = own;
    }
    if changed.iter().any(|(_, path, _)| path.exists()) {
        set_aside_later(run, stage)?;
    }
    if let [_, .., (_, path, _)] = changed.as_slice()
        && path.exists()
    {
        remove(path)?;
    }
    changed.iter().try_for_each(|(_, path, new)| rename(new, path))
}

/// Whether a later stage was trained in this run that replaces this file by its own result.
fn is_of_later(run: &Run, stage: &str, name: &str) -> bool {
    later(stage).iter().any(|later| was_trained(run, later) && results(later).contains(&name))
}

/// Renames what later stages of this run were trained to.
fn set_aside_later(run: &Run, stage: &str) -> Result<()> {
    for later in later(stage).iter().filter(|later| was_trained(run, later)) {
        for (path, aside) in set_aside(run, later)? {
            say(&format!("{stage}: {} was trained on what this stage made earlier; it is now {}", path.display(), aside.display()));
        }
    }
    Ok(())
}

/// Renames all that a stage left in this run, so that it was never begun. Returns the paths before and after.
///
/// # Errors
/// If a file cannot be renamed.
pub fn set_aside(run: &Run, stage: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let own = [format!("{stage}.checkpoint.safetensors"), format!("{stage}.best.safetensors"), kept::name(stage)];
    // The recipe comes last, because it says that the rest is still to be renamed.
    let paths = results(stage).iter().map(|name| run.file(name)).chain(own.iter().map(|name| run.file(name)));
    let renamed = paths.map(|path| Ok(checkpoint::set_aside(&path)?.map(|aside| (path, aside))));
    renamed.filter_map(Result::transpose).collect()
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

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
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

    fn put_texts(run: &Run, stage: &str, names: &[&str], text: &str) {
        let write = |path: &Path| Ok(fs::write(path, text)?);
        let written: Vec<(&str, Write)> = names.iter().map(|name| (*name, &write as Write)).collect();
        put(run, stage, &written).unwrap();
    }

    fn read(run: &Run, name: &str) -> String {
        fs::read_to_string(run.file(name)).unwrap()
    }

    #[test]
    fn another_result_sets_aside_what_was_trained_on_the_earlier_one() {
        let all = ["apm.safetensors", "language.safetensors", "recipe.align.toml", "align.checkpoint.safetensors", "aligned.safetensors"];
        let (_folder, run) = run_with(&all);
        // The same result, as when a stage is resumed that is done.
        put_texts(&run, "apm", &[run::APM], "apm.safetensors");
        assert_eq!(names(&run).len(), all.len());
        put_texts(&run, "apm", &[run::APM], "other");
        let aside = ["aligned.earlier.safetensors", "align.checkpoint.earlier.safetensors", "recipe.align.earlier.toml"];
        let mut expected = [&all[..2], &aside[..]].concat();
        expected.sort();
        assert_eq!(names(&run), expected);
        assert_eq!(read(&run, run::APM), "other");
        // What was set aside before is kept.
        fs::write(run.file("recipe.align.toml"), "").unwrap();
        fs::write(run.file(run::ALIGNED), "second").unwrap();
        put_texts(&run, "apm", &[run::APM], "third");
        assert_eq!(read(&run, "aligned.earlier.safetensors"), "aligned.safetensors");
        assert_eq!(read(&run, "aligned.earlier.2.safetensors"), "second");
    }

    #[test]
    fn a_main_result_never_stands_beside_another_trainings_file() {
        let (_folder, run) = run_with(&["tokenizer.json", "text.safetensors"]);
        // A folder does not replace a file, so that this stops where a kill may.
        let (folder, write) = (|path: &Path| Ok(fs::create_dir(path)?), |path: &Path| Ok(fs::write(path, "other")?));
        assert!(put(&run, "text", &[(run::TOKENIZER, &folder), (run::TEXT, &write)]).is_err());
        assert!(!run.file(run::TEXT).exists());
        fs::remove_dir(run.file("tokenizer.json.new")).unwrap();
        put_texts(&run, "text", &[run::TOKENIZER, run::TEXT], "other");
        assert_eq!([run::TOKENIZER, run::TEXT].map(|name| read(&run, name)), ["other", "other"]);
        assert_eq!(names(&run), ["text.safetensors", "tokenizer.json"]);
    }

    #[test]
    fn an_alignment_that_was_killed_while_it_put_its_results_puts_both() {
        let align = |run: &Run| put_texts(run, "align", &[run::ADAPTER, run::ALIGNED], "aligned.safetensors");
        // Tuning never began, so the adapter is an earlier alignment's.
        let (_folder, run) = run_with(&["aligned.safetensors", "adapter.safetensors"]);
        align(&run);
        assert_eq!(read(&run, run::ADAPTER), "aligned.safetensors");
        // The same alignment again leaves what was tuned after it.
        let (_folder, run) = run_with(&["aligned.safetensors", "adapter.safetensors", "recipe.instruct.toml"]);
        align(&run);
        assert_eq!(names(&run), ["adapter.safetensors", "aligned.safetensors", "recipe.instruct.toml"]);
        assert_eq!(read(&run, run::ADAPTER), "adapter.safetensors");
        // What was tuned without an alignment is set aside by the first one.
        let (_folder, run) = run_with(&["adapter.safetensors", "recipe.instruct.toml"]);
        align(&run);
        assert_eq!(read(&run, run::ADAPTER), "aligned.safetensors");
        assert_eq!(read(&run, "adapter.earlier.safetensors"), "adapter.safetensors");
    }

    #[test]
    fn a_stage_that_is_set_aside_was_never_begun() {
        let (_folder, run) = run_with(&["recipe.instruct.toml", "instruct.checkpoint.safetensors", "instruct.best.safetensors"]);
        assert_eq!(set_aside(&run, "instruct").unwrap().len(), 3);
        assert!(!was_trained(&run, "instruct"));
        fs::write(run.file(run::ADAPTER), "imported").unwrap();
        assert_eq!(start_of_instruct(&run, false).unwrap(), Some(run.file(run::ADAPTER)));
    }

    #[test]
    fn imported_parts_stay() {
        let (_folder, run) = run_with(&["apm.safetensors", "adapter.safetensors"]);
        put_texts(&run, "apm", &[run::APM], "other");
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
