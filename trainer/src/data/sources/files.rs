//! Files of a data set: plain or gzip, of bounded size, by names that stay inside its folder.

use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

/// Largest table or list in bytes, unpacked; the largest published one has some hundred million.
const MAX_BYTES: u64 = 1 << 30;

/// Opens a regular file, unpacked if its first bytes are gzip's. Reading more than 1 GiB from it is an error.
///
/// # Errors
/// If the file cannot be opened.
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = BufReader::new(anatomix::parts::files::open(path)?);
    let packed = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let left = MAX_BYTES;
    Ok(if packed { Box::new(Limited { inner: MultiGzDecoder::new(file), left }) } else { Box::new(Limited { inner: file, left }) })
}

/// A reader that fails after a number of bytes.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(out)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let message = format!("it has more than {MAX_BYTES} bytes, more than any published table");
            Error::new(ErrorKind::FileTooLarge, message)
        })?;
        Ok(read)
    }
}

/// The path of a file that is published as it is or with `.gz` added.
pub fn plain_or_packed(folder: &Path, name: &str) -> PathBuf {
    let packed = folder.join(format!("{name}.gz"));
    let plain = folder.join(name);
    if !plain.exists() && packed.exists() { packed } else { plain }
}

/// Whether a name from a table is the name of a file or folder in the same place: letters, digits, `.`, `_` and `-`, no `.` at its
/// beginning.
pub fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Whether a path from a table, with `/` between names, stays inside its folder.
pub fn is_path(path: &str) -> bool {
    path.split('/').count() <= 16 && path.split('/').all(is_name)
}

/// The name of a file without folders and without its last extension.
pub fn stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// A value of a table as a message shows it: quoted, its first 60 characters.
pub fn shown(value: &str) -> String {
    let mut chars = value.chars();
    let start: String = chars.by_ref().take(60).collect();
    format!("{start:?}{}", if chars.next().is_some() { ".." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_folder() {
        for good in ["a", "02aa804e-bde0afdd.jpg", "1_00-014-026.png", "files/p10/p10000032/a.jpg"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "..", "../a", "/a", "a//b", "a/../b", "a\\b", "a\0", ".hidden", "a b", &"a/".repeat(40), &"a".repeat(300)] {
            assert!(!is_path(bad), "{bad}");
        }
        assert_eq!(stem("files/p10/ab-c.d.jpg"), "ab-c.d");
        assert_eq!(stem("ab"), "ab");
        assert_eq!(shown("a\u{1b}[31m"), r#""a\u{1b}[31m""#);
    }

    #[test]
    fn packed_files_are_unpacked_whatever_their_name() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"a,b\n1,2\n").unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
        let mut text = String::new();
        open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a,b\n1,2\n");
        assert!(open(folder.path()).is_err());
    }
}
