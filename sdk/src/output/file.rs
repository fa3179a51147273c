//! Atomic writing of files.

use super::OutputError;
#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file atomically: the bytes go to a temporary file in the same folder, which is synced and renamed to `path`. An existing
/// file is replaced, or left as it was if writing fails. Of a symbolic link, the target is replaced. What exists and is not a regular
/// file is refused.
///
/// # Errors
/// [`OutputError`], which names the path. No partial file is left, nor by a process that is killed, if the file system has unnamed files.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), OutputError> {
    write(path.as_ref(), bytes, 0o666)
}

/// Writes a file as [`write_whole`] does, and a new one so that only its owner reads and writes it (mode 0600): it holds a patient's data.
/// A file that is replaced keeps its permissions.
///
/// # Errors
/// As [`write_whole`].
pub fn write_private(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), OutputError> {
    write(path.as_ref(), bytes, 0o600)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), OutputError> {
    let (mut file, target) = begin(path, mode)?;
    let written = file.write(bytes).and_then(|()| file.persist(&target));
    written.map_err(|source| OutputError::Write { path: path.into(), source })
}

/// Checks that [`write_whole`] can write here, by creating the temporary file and removing it. Programs check their outputs with it before
/// they begin to work.
///
/// # Errors
/// [`OutputError`], which names the path.
pub fn check_writable(path: impl AsRef<Path>) -> Result<(), OutputError> {
    begin(path.as_ref(), 0o600).map(drop)
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
    Err(io::Error::other("its symbolic links form a loop"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is being written. Dropping it removes it.
enum Temporary {
    /// A file without a name, which the system removes even if the process is killed.
    #[cfg(target_os = "linux")]
    Unnamed(File),
    Named(NamedTempFile),
}

impl Temporary {
    /// Creates one in a folder.
    fn new(folder: &Path, mode: u32) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(file) = unnamed(folder, mode) {
            return Ok(Self::Unnamed(file));
        }
        let mut builder = unique_name();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        builder.tempfile_in(folder).map(Self::Named)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file_mut(),
        };
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Gives the file this name, in the folder that it was created in, in place of what has it.
    fn persist(self, target: &Path) -> io::Result<()> {
        match self {
            // A link replaces no file, so the file is linked to a name of its own first.
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => unique_name().make_in(folder_of(target), |name| link(&file, name))?.persist(target).map_err(|e| e.error),
            Self::Named(file) => file.persist(target).map(drop).map_err(|e| e.error),
        }
    }
}

/// Gives a temporary file a name of its own.
fn unique_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".anatomix-");
    builder
}

/// The files that this process has open, by their numbers.
#[cfg(target_os = "linux")]
const OPEN_FILES: &str = "/proc/self/fd";

/// Creates a file without a name; `None` if the file system has none, or this process could not name it later.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path, mode: u32) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = Path::new(OPEN_FILES).exists().then(|| rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)));
    Some(file?.ok()?.into())
}

#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let open = Path::new(OPEN_FILES).join(file.as_raw_fd().to_string());
    Ok(rustix::fs::linkat(CWD, open, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Creates the temporary file for a path, with this mode if nothing is replaced. Returns it with the path that it has to be renamed to.
fn begin(path: &Path, new: u32) -> Result<(Temporary, PathBuf), OutputError> {
    let failed = |source| OutputError::Write { path: path.into(), source };
    let found = fs::metadata(path);
    // A file that is replaced keeps its permissions: it may be private. To a new one the umask applies, as to any.
    #[cfg(unix)]
    let mode = found.as_ref().map_or(new, |found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777);
    #[cfg(not(unix))]
    let mode = new;
    let target = match found {
        Ok(found) if found.is_dir() => return Err(OutputError::Folder { path: path.into() }),
        Ok(found) if !found.is_file() => return Err(OutputError::NotRegular { path: path.into() }),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Err(_) if names_folder(path) => return Err(OutputError::Folder { path: path.into() }),
        // The target of a symbolic link is replaced, not the link.
        _ => destination(path).map_err(failed)?,
    };
    // Only the system's error is kept: the text has the temporary file's path, which says nothing to the caller.
    let failed_in = |error: io::Error| failed(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error));
    let file = Temporary::new(folder_of(&target), mode).map_err(failed_in)?;
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
    #[cfg(target_os = "linux")]
    fn a_file_that_is_being_written_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let (mut file, target) = begin(&path, 0o600).unwrap();
        file.write(b"one").unwrap();
        // A process that is killed here leaves nothing.
        assert!(names(folder.path()).is_empty());
        file.persist(&target).unwrap();
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a.png".to_string()], b"one".to_vec()));
    }

    #[test]
    fn a_file_system_without_unnamed_files_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for text in [b"one", b"two"] {
            let mut file = Temporary::Named(super::unique_name().tempfile_in(folder.path()).unwrap());
            file.write(text).unwrap();
            file.persist(&path).unwrap();
            assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a.png".to_string()], text.to_vec()));
        }
        drop(Temporary::Named(super::unique_name().tempfile_in(folder.path()).unwrap()));
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
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        // One that holds a patient's data begins as one, whatever the umask.
        let [data, other] = ["b.study", "b.sig"].map(|name| folder.path().join(name));
        write_private(&data, b"one").unwrap();
        write_whole(&other, b"one").unwrap();
        assert_eq!((mode(&data), mode(&other) & 0o600), (0o600, 0o600));
        fs::set_permissions(&data, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&data, b"two").unwrap();
        assert_eq!(mode(&data), 0o644);
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
        let error = write_whole(&endless, b"x").unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("symbolic links"), "{error:?}");
        assert!(destination(&endless).unwrap_err().to_string().contains("symbolic links"));
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
