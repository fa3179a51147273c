//! Atomic writing of files.

use super::OutputError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file atomically: the bytes go to a temporary file in the same folder, which is synced and renamed to `path`. An existing
/// file is replaced, or left as it was if writing fails. A device or pipe is written directly.
///
/// # Errors
/// [`OutputError`], which names the path. No partial file is left.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), OutputError> {
    let path = path.as_ref();
    let failed = |source| OutputError::Write { path: path.into(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(OutputError::Folder { path: path.into() }),
        Ok(found) if found.is_file() => {
            // The target of a symbolic link is replaced, not the link.
            let target = path.canonicalize().map_err(failed)?;
            replace(&target, bytes).map_err(failed)
        }
        Ok(_) => File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes)).map_err(failed),
        Err(_) => replace(path, bytes).map_err(failed),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask applies, as for any new file; temporary files are private by default.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    // Dropping the temporary file removes it, so that no later error leaves it behind.
    let mut file = builder.prefix(".anatomix-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map(|_| ()).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, b"one").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_folder_and_a_missing_folder_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_whole(folder.path(), b"x").unwrap_err();
        assert!(matches!(error, OutputError::Folder { .. }), "{error}");
        let missing = folder.path().join("no/such/a.png");
        let error = write_whole(&missing, b"x").unwrap_err().to_string();
        assert!(error.contains("no/such/a.png") && error.contains("check that the folder exists"), "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_and_an_unwritable_folder_are_errors() {
        use std::os::unix::fs::FileTypeExt;
        let error = write_whole("/dev/full", b"x").unwrap_err().to_string();
        assert!(error.contains("/dev/full") && error.contains("disk has room"), "{error}");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device(), "the device was replaced");
        // Not even root can create files in /proc.
        let error = write_whole("/proc/a.png", b"x").unwrap_err().to_string();
        assert!(error.contains("/proc/a.png"), "{error}");
    }
}
