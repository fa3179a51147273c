//! What a bundle answered, in a file that grows image by image, so that an interrupted measurement goes on where it was.

use anatomix::{LABEL_COUNT, PixelBox};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Version of the lines.
const VERSION: u32 = 1;
/// Longest line in bytes: an image with some hundred answers.
const MAX_LINE: u64 = 16 << 20;

/// What was measured. A journal goes on only if all of it is equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the lines.
    version: u32,
    /// Version of the SDK.
    sdk: String,
    /// SHA-256 of the bundle's manifest.
    pub bundle_sha256: String,
    /// SHA-256 of the condition, and of all images with their questions.
    pub questions_sha256: String,
    /// Execution provider.
    pub provider: String,
    /// Whether the images are mirrored.
    pub mirrored: bool,
}

impl Header {
    /// The header of a measurement by this version.
    pub fn new(bundle_sha256: String, questions_sha256: String, provider: String, mirrored: bool) -> Self {
        Self { version: VERSION, sdk: env!("CARGO_PKG_VERSION").into(), bundle_sha256, questions_sha256, provider, mirrored }
    }
}

/// What was perceived and answered on one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The image's identifier.
    pub image: String,
    /// Boxes of the structures in index order, in pixels of the image that was shown.
    pub boxes: Vec<PixelBox>,
    /// Their retrieved sentences.
    pub sentences: Vec<String>,
    /// Scores of the labels in index order.
    pub labels: [f32; LABEL_COUNT],
    /// Codes of the image's flags that a question has to accept.
    pub flags: Vec<String>,
    /// The answers to the image's questions, in their order.
    pub answers: Vec<Answer>,
    /// Milliseconds for all of it.
    pub milliseconds: f64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The key of the sample.
    pub sample: String,
    /// The answer as the model wrote it.
    pub raw: String,
    /// The answer without tags and coordinates.
    pub text: String,
    /// Its boxes in pixels of the image that was shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<PixelBox>,
}

/// A journal, open for more records.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Whether a line could not be written. What there is of it is removed when the file is opened again; a line
    /// after it would be joined to it.
    failed: bool,
}

impl Journal {
    /// Opens a journal, or begins one, and returns what it holds. A last line that an interruption cut is removed.
    ///
    /// # Errors
    /// If the file cannot be read or written, is of another measurement, or has a line that is no record; the error names file and line.
    pub fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Record>)> {
        let failed = || format!("cannot write {}", path.display());
        if path.exists() {
            // A pipe would block.
            anatomix::parts::files::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).with_context(failed)?;
        // A file system without locks is used without them.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("{} is in use by another measurement; wait for it", path.display());
        }
        let mut journal = Self { path: path.into(), file, failed: false };
        let records = journal.records(header)?;
        Ok((journal, records))
    }

    fn records(&mut self, header: &Header) -> Result<Vec<Record>> {
        let path = self.path.display().to_string();
        let (mut line, mut end, mut records) = (Vec::new(), 0, Vec::new());
        let mut reader = BufReader::new(&self.file);
        for number in 1.. {
            let place = || format!("{path} line {number}");
            line.clear();
            let length = (&mut reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).with_context(place)? as u64;
            ensure!(length <= MAX_LINE, "{} has more than {MAX_LINE} bytes", place());
            if line.last() != Some(&b'\n') {
                break;
            }
            end += length;
            if number > 1 {
                records.push(serde_json::from_slice(&line).with_context(place)?);
                continue;
            }
            let found: Header = serde_json::from_slice(&line)
                .with_context(|| format!("{path} is no journal of a measurement; name another folder with --out"))?;
            if found != *header {
                bail!(
                    "{path} is of another bundle, other images, other questions or another version; name another folder with --out, \
                     or delete it"
                );
            }
        }
        self.file.set_len(end).with_context(|| format!("cannot write {path}"))?;
        self.file.seek(SeekFrom::End(0))?;
        if end == 0 {
            self.line(header)?;
        }
        Ok(records)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it cannot be written, or an earlier one could not.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        self.line(record)
    }

    fn line(&mut self, object: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        let path = self.path.display();
        ensure!(!self.failed, "{path} takes no more lines, as an earlier one could not be written");
        // One write, so that a killed process leaves at most the last line incomplete.
        let written = self.file.write_all(&line);
        self.failed = written.is_err();
        written.with_context(|| format!("cannot write {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: &str) -> Record {
        let answers =
            vec![Answer { sample: "a".into(), raw: "b".into(), text: "b".into(), boxes: vec![PixelBox::new(0.5, 1.0, 2.0, 3.25)] }];
        Record { image: image.into(), boxes: vec![], sentences: vec![], labels: [0.5; 14], flags: vec![], answers, milliseconds: 1.5 }
    }

    fn header(bundle: &str) -> Header {
        Header::new(bundle.into(), "q".into(), "cpu".into(), false)
    }

    #[test]
    fn an_interrupted_journal_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, records) = Journal::open(&path, &header("a")).unwrap();
        assert_eq!(records, []);
        journal.add(&record("one")).unwrap();
        assert!(format!("{:#}", Journal::open(&path, &header("a")).unwrap_err()).contains("in use"));
        journal.add(&record("two")).unwrap();
        drop(journal);
        // The second record is cut in the middle.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        let (mut journal, records) = Journal::open(&path, &header("a")).unwrap();
        assert_eq!(records, [record("one")]);
        journal.add(&record("two")).unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        // A cut header is an empty journal.
        std::fs::write(&path, &whole[..9]).unwrap();
        assert_eq!(Journal::open(&path, &header("a")).unwrap().1, []);
    }

    #[test]
    fn nothing_follows_a_line_that_could_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path, &header("a")).unwrap();
        journal.add(&record("one")).unwrap();
        let (whole, before) = (std::fs::read(&path).unwrap(), journal.file.try_clone().unwrap());
        // A file that is open for reading takes no line.
        journal.file = File::open(&path).unwrap();
        assert!(format!("{:#}", journal.add(&record("two")).unwrap_err()).contains("cannot write"));
        journal.file = before;
        assert!(journal.add(&record("three")).unwrap_err().to_string().contains("takes no more lines"));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        drop(journal);
        Journal::open(&path, &header("a")).unwrap().0.add(&record("two")).unwrap();
        assert_eq!(Journal::open(&path, &header("a")).unwrap().1, [record("one"), record("two")]);
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        drop(Journal::open(&path, &header("a")).unwrap());
        let error = |path: &Path, bundle| format!("{:#}", Journal::open(path, &header(bundle)).unwrap_err());
        assert!(error(&path, "b").contains("is of another bundle"));
        let mut damaged = std::fs::read(&path).unwrap();
        damaged.extend(b"{\"image\": 1}\n");
        std::fs::write(&path, &damaged).unwrap();
        assert!(error(&path, "a").contains("line 2"));
        std::fs::write(&path, "something else\n").unwrap();
        assert!(error(&path, "a").contains("no journal"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else\n", "a refused file is not changed");
        assert!(error(Path::new("/dev/null"), "a").contains("/dev/null"));
    }
}
