//! JSON files: a list of entries, read one by one, or one object.

use super::files;
use super::skipped::{At, Reason, Skipped};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::io::{BufReader, Read, Result};
use std::path::Path;

/// Reads a file that holds a list. Entries of another form are noted, and the others are passed on. If the file is cut, the entries before
/// the cut are passed on.
pub fn read<T: DeserializeOwned>(path: &Path, skipped: &mut Skipped, mut each: impl FnMut(T, At, &mut Skipped)) {
    let file = match files::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 16, Numbers::new(file)),
        Err(error) => return skipped.note(Reason::FileUnreadable, At::file(path), error),
    };
    let mut count = 0;
    let mut entry = |value: Value| {
        let at = At { file: path, row: Some(count) };
        count += 1;
        match serde_json::from_value(value) {
            Ok(entry) => each(entry, at, skipped),
            Err(error) => skipped.note(Reason::RowMalformed, at, error),
        }
    };
    let mut reader = serde_json::Deserializer::from_reader(file);
    let done = Each(&mut entry).deserialize(&mut reader).and_then(|()| reader.end());
    if let Err(error) = done {
        skipped.note(Reason::FileUnreadable, At::file(path), format!("it is not a list to its end; {count} entries were read: {error}"));
    }
}

/// Parses one object from the bytes of a file that Python wrote: a number can be `NaN`, which becomes null.
///
/// # Errors
/// If it is not the object.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| match bytes.windows(3).any(|part| part == b"NaN" || part == b"Inf") {
        true => serde_json::from_reader(BufReader::new(Numbers::new(bytes))),
        false => Err(error),
    })
}

struct Each<'a>(&'a mut dyn FnMut(Value));

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            (self.0)(entry);
        }
        Ok(())
    }
}

/// Replaces `NaN`, `Infinity` and `-Infinity`, which Python writes and JSON does not have, by `null`.
struct Numbers<R> {
    inner: R,
    /// What is ready to be read, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// Letters of a word, or a minus, that are not complete yet.
    word: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

impl<R: Read> Numbers<R> {
    fn new(inner: R) -> Self {
        Self { inner, out: Vec::new(), at: 0, word: Vec::new(), in_string: false, escaped: false }
    }

    fn push(&mut self, byte: u8) {
        if self.in_string {
            self.out.push(byte);
            let ends = byte == b'"' && !self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            self.in_string = !ends;
        } else if (byte.is_ascii_alphabetic() || (byte == b'-' && self.word.is_empty())) && self.word.len() < 16 {
            self.word.push(byte);
        } else {
            self.end_word();
            self.out.push(byte);
            self.in_string = byte == b'"';
        }
    }

    fn end_word(&mut self) {
        match self.word.as_slice() {
            b"NaN" | b"Infinity" | b"-Infinity" => self.out.extend(b"null"),
            word => self.out.extend(word),
        }
        self.word.clear();
    }
}

impl<R: Read> Read for Numbers<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        while self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
            let mut part = [0; 1 << 14];
            let read = self.inner.read(&mut part)?;
            part[..read].iter().for_each(|&byte| self.push(byte));
            if read == 0 {
                self.end_word();
                if self.out.is_empty() {
                    return Ok(0);
                }
            }
        }
        let ready = &self.out[self.at..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> (Vec<Vec<Option<f64>>>, Skipped) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let (mut found, mut skipped) = (Vec::new(), Skipped::default());
        read(file.path(), &mut skipped, |entry, _, _| found.push(entry));
        (found, skipped)
    }

    #[test]
    fn entries_beside_damaged_ones_are_read() {
        let (found, skipped) = entries(r#"[[1], "x", [NaN, -Infinity, -2.5e-3], {"a": "NaN"}, [4]]"#);
        assert_eq!(found, [vec![Some(1.0)], vec![None, None, Some(-2.5e-3)], vec![Some(4.0)]]);
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row, e.reason)).collect();
        assert_eq!(rows, [(Some(1), Reason::RowMalformed), (Some(3), Reason::RowMalformed)]);
    }

    #[test]
    fn entries_before_a_cut_are_read() {
        for cut in ["[[1], [2], [3", "[[1], [2]", "[[1], [2] [3]]", "[[1], [2]] x"] {
            let (found, skipped) = entries(cut);
            assert_eq!(found.len(), 2, "{cut}");
            assert!(skipped.entries()[0].detail.contains("2 entries were read"), "{skipped:?}");
        }
        for other in ["{}", "", "7", "[", "nul", &"[".repeat(100_000)] {
            let (found, skipped) = entries(other);
            assert!(found.is_empty() && skipped.count(Reason::FileUnreadable) == 1, "{other:.9}: {skipped:?}");
        }
    }

    #[test]
    fn strings_stay_as_they_are() {
        let text = r#"{"NaN": "a \" NaN", "b": NaN, "c": true}"#;
        let object: Value = object(text.as_bytes()).unwrap();
        assert_eq!(object, serde_json::json!({"NaN": "a \" NaN", "b": null, "c": true}));
    }
}
