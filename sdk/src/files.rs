//! Reading of regular files of bounded size.

#[cfg(unix)]
use rustix::fs::OFlags;
use std::fs::{self, File, Metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a regular file. Other kinds are refused: opening a pipe waits for its writer, and a device may have no end.
///
/// # Errors
/// If the path is not a regular file, or cannot be opened.
pub fn open(path: &Path) -> Result<File> {
    // The first check keeps opening from having an effect on a pipe or device. The second sees the file that was opened, which may be
    // another one by then.
    check_regular(&fs::metadata(path)?)?;
    let mut options = File::options();
    // Neither opening nor reading waits. Some files of the system, such as /proc/kmsg, are regular but make their readers wait.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Returns the bytes of a regular file that has at most `limit` bytes.
///
/// # Errors
/// If the file is larger or not a regular file, cannot be read, or does not fit into memory.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = || Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes"));
    let size = file.metadata()?.len();
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(|e| Error::new(ErrorKind::OutOfMemory, e))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => not_regular(),
        _ => error,
    })?;
    // It may have grown, and some files of the system do not say their size.
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

fn check_regular(metadata: &Metadata) -> Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(not_regular()) }
}

fn not_regular() -> Error {
    Error::new(ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_and_devices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap(), [7; 100]);
        assert_eq!(read(&path, 99).unwrap_err().to_string(), "it has more than 99 bytes");
        for endless in [folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read(endless, 100).unwrap_err().to_string(), "it is not a regular file");
        }
        assert_eq!(read(&folder.path().join("none"), 100).unwrap_err().kind(), ErrorKind::NotFound);
        // The kernel's log is a regular file, but its reader waits for the next message. Only root can open it.
        let log = Path::new("/proc/kmsg");
        if open(log).is_ok() {
            assert_eq!(read(log, u64::MAX).unwrap_err().to_string(), "it is not a regular file");
        }
    }
}
