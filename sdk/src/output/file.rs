//! Atomic writing of files.

use super::OutputError;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file atomically: the bytes go to a temporary file in the same folder, which is synced and renamed to `path`. An existing
/// file is replaced, or left as it was if writing fails. Of a symbolic link, the target is replaced. What exists and is not a regular
/// file is refused.
///
/// # Errors
/// [`OutputError`], which names the path. No partial file is left.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), OutputError> {
    let path = path.as_ref();
    let (file, target) = begin(path)?;
    let written = file.as_file().write_all(bytes).and_then(|()| file.as_file().sync_all());
    // Dropping the temporary file removes it, so that no error leaves it behind.
    let written = written.and_then(|()| file.persist(target).map_err(|e| e.error));
    written.map(drop).map_err(|source| OutputError::Write { path: path.into(), source })
}

/// Checks that [`write_whole`] can write here, by creating the temporary file and removing it. Programs check their outputs with it before
/// they begin to work.
///
/// # Errors
/// [`OutputError`], which names the path.
pub fn check_writable(path: impl AsRef<Path>) -> Result<(), OutputError> {
    begin(path.as_ref()).map(drop)
}

/// Most symbolic links that are followed one after another.
const MAX_LINKS: usize = 40;

/// The file that [`write_whole`] creates or replaces: that at the end of symbolic links, even if it does not exist yet.
///
/// # Errors
/// If its folder cannot be reached, or the links do not end.
pub(crate) fn destination(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => {
                let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
                return path.canonicalize().or_else(|_| Ok(folder_of(&path).canonicalize()?.join(name)));
            }
        }
    }
    Err(ErrorKind::QuotaExceeded.into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates the temporary file for a path. Returns it with the path that it has to be renamed to.
fn begin(path: &Path) -> Result<(NamedTempFile, PathBuf), OutputError> {
    let failed = |source| OutputError::Write { path: path.into(), source };
    let found = fs::metadata(path);
    #[cfg(unix)]
    let permissions = found.as_ref().ok().map(fs::Metadata::permissions);
    let target = match found {
        Ok(found) if found.is_dir() => return Err(OutputError::Folder { path: path.into() }),
        Ok(found) if !found.is_file() => return Err(OutputError::NotRegular { path: path.into() }),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Err(_) if names_folder(path) => return Err(OutputError::Folder { path: path.into() }),
        // The target of a symbolic link is replaced, not the link.
        _ => destination(path).map_err(failed)?,
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A file that is replaced keeps its permissions: it may be private. To a new one the umask applies, as to any.
        builder.permissions(fs::Permissions::from_mode(permissions.map_or(0o666, |found| found.mode() & 0o777)));
    }
    // Only the kind of the error is kept: its text has the temporary file's path, which says nothing to the caller.
    let file = builder.prefix(".anatomix-").tempfile_in(folder_of(&target)).map_err(|error| failed(error.kind().into()))?;
    Ok((file, target))
}

/// Whether a path can only be that of a folder: it ends with a separator, or has no name at its end.
fn names_folder(path: &Path) -> bool {
    path.file_name().is_none() || path.to_string_lossy().ends_with(std::path::is_separator)
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
    fn a_private_file_stays_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.study");
        fs::write(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
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
        // Even if its target does not exist yet, and over several links.
        fs::remove_file(&target).unwrap();
        let (second, endless) = (folder.path().join("second"), folder.path().join("endless"));
        std::os::unix::fs::symlink("link", &second).unwrap();
        std::os::unix::fs::symlink("endless", &endless).unwrap();
        write_whole(&second, b"three").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"three");
        assert!([&link, &second].iter().all(|link| fs::symlink_metadata(link).unwrap().is_symlink()));
        assert!(write_whole(&endless, b"x").is_err());
    }

    #[test]
    fn a_folder_and_a_missing_folder_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let new_folder = folder.path().join("new/");
        for path in [folder.path(), &new_folder] {
            let errors = [write_whole(path, b"x").unwrap_err(), check_writable(path).unwrap_err()];
            assert!(errors.iter().all(|error| matches!(error, OutputError::Folder { .. })), "{errors:?}");
        }
        let missing = folder.path().join("no/such/a.png");
        for error in [write_whole(&missing, b"x").unwrap_err(), check_writable(&missing).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("no/such/a.png") && error.contains("check that the folder exists"), "{error}");
        }
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn checking_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fs::write(&old, b"before").unwrap();
        check_writable(&old).unwrap();
        check_writable(&new).unwrap();
        assert_eq!((names(folder.path()), fs::read(&old).unwrap()), (vec!["old".to_string()], b"before".to_vec()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pipes_devices_and_unwritable_folders_are_errors() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [&pipe, Path::new("/dev/full")] {
            // Nobody reads the pipe, so opening it would wait without end.
            let errors = [write_whole(path, b"x").unwrap_err(), check_writable(path).unwrap_err()];
            assert!(errors.iter().all(|error| matches!(error, OutputError::NotRegular { .. })), "{errors:?}");
        }
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device(), "the device was replaced");
        // Not even root can create files in /proc.
        for error in [write_whole("/proc/a.png", b"x").unwrap_err(), check_writable("/proc/a.png").unwrap_err()] {
            assert!(error.to_string().contains("/proc/a.png"), "{error}");
        }
    }
}
