//! Tables: CSV with a header.

use super::files;
use super::skipped::{At, Reason, Skipped};
use csv::StringRecord;
use std::collections::HashMap;
use std::path::Path;

/// A row of a table.
pub struct Row<'a> {
    columns: &'a HashMap<String, usize>,
    record: &'a StringRecord,
}

impl<'a> Row<'a> {
    /// The value in a column without spaces around it; empty if the table has no such column.
    pub fn get(&self, name: &str) -> &'a str {
        self.columns.get(name).and_then(|&at| self.record.get(at)).unwrap_or_default().trim()
    }

    /// The number in a column.
    ///
    /// # Errors
    /// A message, if it is not a number. `nan` and `inf` are numbers here.
    pub fn number(&self, name: &str) -> Result<f64, String> {
        let value = self.get(name);
        value.parse().map_err(|_| format!("{name} is {}, not a number", files::shown(value)))
    }
}

/// Reads a table row by row. Rows that cannot be read are noted, and the others are passed on.
pub fn read(path: &Path, needed: &[&str], skipped: &mut Skipped, mut each: impl FnMut(&Row, At, &mut Skipped)) {
    let at = At::file(path);
    let mut reader = match files::open(path) {
        Ok(file) => csv::Reader::from_reader(file),
        Err(error) => return skipped.note(Reason::FileUnreadable, at, error),
    };
    let columns: HashMap<String, usize> = match reader.headers() {
        Ok(header) => header.iter().enumerate().map(|(at, name)| (name.trim_matches(['\u{feff}', ' ']).to_owned(), at)).collect(),
        Err(error) => return skipped.note(Reason::FileUnreadable, at, error),
    };
    let missing: Vec<&str> = needed.iter().copied().filter(|name| !columns.contains_key(*name)).collect();
    if !missing.is_empty() {
        return skipped.note(Reason::ColumnMissing, at, format!("it has no column {}", missing.join(", ")));
    }
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return,
            Ok(true) => {
                let row = record.position().map(csv::Position::line);
                each(&Row { columns: &columns, record: &record }, At { row, ..at }, skipped);
            }
            Err(error) if error.is_io_error() => return skipped.note(Reason::FileUnreadable, at, error),
            Err(error) => {
                let row = error.position().map(csv::Position::line);
                skipped.note(Reason::RowMalformed, At { row, ..at }, problem(&error));
            }
        }
    }
}

/// What is wrong with a row. The library's message repeats its position.
fn problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("it has {len} fields, the header {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8]) -> (Vec<String>, Skipped) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let (mut found, mut skipped) = (Vec::new(), Skipped::default());
        read(file.path(), &["a", "b"], &mut skipped, |row, at, _| found.push(format!("{}:{}", at.row.unwrap(), row.get("b"))));
        (found, skipped)
    }

    #[test]
    fn rows_after_a_damaged_one_are_read() {
        let (found, skipped) = rows(b"\xef\xbb\xbfa,b,c\n1, 2 ,3\n4\n5,\xff,6\n\"7\n\",8,9\n");
        assert_eq!(found, ["2:2", "5:8"]);
        let details: Vec<_> = skipped.entries().iter().map(|e| (e.row, e.detail.as_str())).collect();
        assert_eq!(details, [(Some(3), "it has 1 fields, the header 3"), (Some(4), "it is not UTF-8")]);
    }

    #[test]
    fn other_tables_are_named() {
        let (found, skipped) = rows(b"a,c\n1,2\n");
        assert!(found.is_empty() && skipped.entries()[0].detail == "it has no column b");
        let (found, skipped) = rows(&[0x1f, 0x8b, 8, 0, 0, 0]);
        assert!(found.is_empty() && skipped.count(Reason::FileUnreadable) == 1, "{skipped:?}");
    }
}
