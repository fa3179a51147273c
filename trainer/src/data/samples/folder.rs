//! The prepared folder.
//!
//! ```text
//! OUT/prepared.json              what it was made of, and what was found and skipped
//! OUT/images.jsonl               a record for each image
//! OUT/samples/SET.SPLIT.jsonl    a sample a line
//! OUT/sentences.json             the sentences of the database: a list for each of the 36 structures
//! OUT/skipped.jsonl              what was skipped or changed, with file and row
//! ```

use super::record::{Image, Sample};
use super::set::Set;
use super::summary::Summary;
use crate::data::sources::skipped::Skipped;
use crate::data::sources::split::Split;
use crate::destination::Destination;
use anatomix::STRUCTURE_COUNT;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// File name of the summary.
pub const PREPARED: &str = "prepared.json";
/// File name of the images.
pub const IMAGES: &str = "images.jsonl";
/// Folder of the samples.
pub const SAMPLES: &str = "samples";
/// File name of what was skipped.
pub const SKIPPED: &str = "skipped.jsonl";
/// File name of the sentences, as in a run.
pub use crate::run::SENTENCES;

/// The path of the samples of a set and split in a prepared folder.
pub fn file_of(set: Set, split: Split) -> String {
    format!("{SAMPLES}/{}.{}.jsonl", set.name(), split.name())
}

/// Writes a prepared folder.
pub struct Folder {
    destination: Destination,
    images: Lines,
    samples: BTreeMap<(Set, Split), Lines>,
    sentences: Vec<BTreeSet<String>>,
    database_splits: Vec<Split>,
}

impl Folder {
    /// Begins a folder at this path. The sentences of these splits are kept.
    ///
    /// # Errors
    /// If the path has something that is not a prepared folder, or nothing can be written there.
    pub fn create(out: &Path, database_splits: &[Split]) -> Result<Self> {
        let destination = Destination::new(out, check_replaceable)?;
        let samples = destination.folder().join(SAMPLES);
        fs::create_dir(&samples).with_context(|| format!("cannot make the folder {}", samples.display()))?;
        let images = Lines::create(destination.folder().join(IMAGES))?;
        let sentences = vec![BTreeSet::new(); STRUCTURE_COUNT];
        Ok(Self { destination, images, samples: BTreeMap::new(), sentences, database_splits: database_splits.to_vec() })
    }

    /// Adds an image.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn image(&mut self, image: &Image) -> Result<()> {
        if image.split.is_some_and(|split| self.database_splits.contains(&split)) {
            for (own, sentence) in self.sentences.iter_mut().zip(&image.sentences) {
                if let Some(sentence) = sentence.as_ref().filter(|sentence| !own.contains(*sentence)) {
                    own.insert(sentence.clone());
                }
            }
        }
        self.images.push(image)
    }

    /// Adds a sample to its set and split.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sample(&mut self, set: Set, sample: &Sample) -> Result<()> {
        let lines = match self.samples.entry((set, sample.split)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Lines::create(self.destination.folder().join(file_of(set, sample.split)))?)
            }
        };
        lines.push(sample)
    }

    /// Numbers of samples by set and split.
    pub fn counts(&self) -> BTreeMap<(Set, Split), u64> {
        self.samples.iter().map(|(key, lines)| (*key, lines.count)).collect()
    }

    /// Number of sentences of the database.
    pub fn sentences(&self) -> usize {
        self.sentences.iter().map(BTreeSet::len).sum()
    }

    /// Writes the rest, and moves the folder to its path.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn install(self, summary: &Summary, skipped: &Skipped) -> Result<()> {
        let folder = self.destination.folder().to_owned();
        self.images.finish()?;
        self.samples.into_values().try_for_each(Lines::finish)?;
        let mut lines = Lines::create(folder.join(SKIPPED))?;
        skipped.entries().iter().try_for_each(|entry| lines.push(entry))?;
        lines.finish()?;
        write(&folder.join(SENTENCES), &self.sentences)?;
        write(&folder.join(PREPARED), summary)?;
        self.destination.install()
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(failed)?;
    let text = serde_json::to_string_pretty(value)?;
    file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).with_context(failed)
}

/// A file with one JSON value a line.
struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
    count: u64,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file: BufWriter::new(file), count: 0 })
    }

    fn push(&mut self, value: &impl Serialize) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let mut line = serde_json::to_vec(value).with_context(failed)?;
        line.push(b'\n');
        self.count += 1;
        self.file.write_all(&line).with_context(failed)
    }

    fn finish(self) -> Result<()> {
        let done = self.file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        done.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Checks that `out` does not exist, is empty, or is a prepared folder, so that no other files are deleted.
fn check_replaceable(out: &Path) -> Result<()> {
    const ADVICE: &str = "choose another folder or remove it yourself";
    if !out.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(out).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("{} is not a folder; {ADVICE}", out.display()))?;
    let names: Vec<String> = entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let own = [PREPARED, IMAGES, SAMPLES, SENTENCES, SKIPPED];
    match names.iter().find(|name| !own.contains(&name.as_str())) {
        Some(other) => bail!("{} holds {other}, which `prepare` did not write and which would be lost; {ADVICE}", out.display()),
        None if names.is_empty() || names.iter().any(|name| name == PREPARED) => Ok(()),
        None => bail!("{} is not a prepared folder; {ADVICE}", out.display()),
    }
}
