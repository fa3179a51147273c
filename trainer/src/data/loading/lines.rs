//! Files with one JSON object a line, read once from start to end for an index, and then line by line in any order.

use anatomix::parts::hash::Hasher;
use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest line in bytes; one of a prepared folder has some thousand.
const MAX_LINE: u64 = 16 << 20;

/// Where a line is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    length: u32,
}

/// A file of lines.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a regular file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = anatomix::parts::files::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path: path.into(), file })
    }

    /// Passes on every line with its place, and adds it to a hash.
    ///
    /// # Errors
    /// If the file cannot be read, a line is too long, or `each` fails; the error names file and line.
    pub fn scan(&self, hasher: &mut Hasher, mut each: impl FnMut(&[u8], Place) -> Result<()>) -> Result<()> {
        let failed = |number: u64| format!("{} line {number}", self.path.display());
        let mut reader = BufReader::with_capacity(1 << 18, &self.file);
        let (mut line, mut offset) = (Vec::new(), 0);
        for number in 1.. {
            line.clear();
            let length = (&mut reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).with_context(|| failed(number))? as u64;
            if length == 0 {
                break;
            }
            ensure!(length <= MAX_LINE, "{} has more than {MAX_LINE} bytes", failed(number));
            hasher.update(&line);
            // An array would be taken for the values of an object in the order of its fields.
            ensure!(line.trim_ascii_start().starts_with(b"{"), "{} is not a JSON object", failed(number));
            each(&line, Place { offset, length: length as u32 }).with_context(|| failed(number))?;
            offset += length;
        }
        Ok(())
    }

    /// Reads one line.
    ///
    /// # Errors
    /// If the file was changed, or the line is not such an object.
    pub fn read<T: DeserializeOwned>(&self, at: Place) -> Result<T> {
        let mut bytes = vec![0; at.length as usize];
        self.file
            .read_exact_at(&mut bytes, at.offset)
            .map_err(anyhow::Error::new)
            .and_then(|()| serde_json::from_slice(&bytes).map_err(|error| anyhow!("{error}; was it changed after the start?")))
            .with_context(|| format!("cannot read {}", self.line(at)))
    }

    /// The path and the number of a line, for messages. The file is read up to that line.
    pub fn line(&self, at: Place) -> String {
        let (mut number, mut left, mut block) = (1, at.offset, vec![0; 1 << 16]);
        while left > 0 {
            let count = left.min(block.len() as u64) as usize;
            if self.file.read_exact_at(&mut block[..count], at.offset - left).is_err() {
                return format!("a line of {}", self.path.display());
            }
            number += block[..count].iter().filter(|&&byte| byte == b'\n').count();
            left -= count as u64;
        }
        format!("{} line {number}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_by_their_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(200_000));
        std::fs::write(file.path(), format!("{{\"a\": 1}}\n{long}\n{{\"a\": []}}\n")).unwrap();
        let lines = Lines::open(file.path()).unwrap();
        let mut places = Vec::new();
        let mut scan = |lines: &Lines| {
            lines.scan(&mut Hasher::default(), |_, at| {
                places.push(at);
                Ok(())
            })
        };
        scan(&lines).unwrap();
        std::fs::write(file.path(), "{}\n\n[1]\n").unwrap();
        let error = scan(&Lines::open(file.path()).unwrap()).unwrap_err().to_string();
        assert_eq!(error, format!("{} line 2 is not a JSON object", file.path().display()));
        std::fs::write(file.path(), format!("{{\"a\": 1}}\n{long}\n{{\"a\": []}}\n")).unwrap();
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct One {
            a: u32,
        }
        let error = format!("{:#}", lines.read::<One>(places[2]).unwrap_err());
        assert!(error.contains(&format!("{} line 3", file.path().display())) && error.contains("was it changed"), "{error}");
    }
}
