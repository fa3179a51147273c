//! Files that are read: regular ones, and no more of them than is allowed.

use std::fs::{self, File, Metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a regular file. A pipe would wait for somebody who writes to it, and a device may have no end.
///
/// # Errors
/// If it is anything else, or cannot be opened.
pub(crate) fn open(path: &Path) -> Result<File> {
    // Before it is opened, since opening a pipe waits already; and afterwards, since another file may have taken its place.
    regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// All bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// If it is larger or no regular file, cannot be read, or the memory cannot be had.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len().min(limit);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(|e| Error::new(ErrorKind::OutOfMemory, e))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn regular(metadata: &Metadata) -> Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap(), [7; 100]);
        assert_eq!(read(&path, 99).unwrap_err().to_string(), "it has more than 99 bytes");
        for endless in [folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read(endless, 100).unwrap_err().to_string(), "it is not a regular file");
        }
        assert_eq!(read(&folder.path().join("none"), 100).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
