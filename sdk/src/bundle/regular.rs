//! Checks that the files of a bundle are regular files and no links, and do not change while the bundle is opened.

use super::error::BundleError;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// Checks that a path is a regular file and not a symbolic link. Returns what the system says of it.
pub(super) fn check_regular(path: &Path) -> Result<Metadata, BundleError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| BundleError::Read { path: path.into(), source })?;
    let what = match metadata.file_type() {
        kind if kind.is_file() => return Ok(metadata),
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => "a folder",
        _ => "a pipe or a device",
    };
    Err(BundleError::NotRegular { path: path.into(), what })
}

/// A file or folder with its size and times, which differ after it was written, renamed or replaced.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    path: PathBuf,
    stamp: Stamp,
}

/// The size, and the times of the last change of content and, on Unix, of the file itself, which no program can set.
type Stamp = (u64, [i64; 4]);

impl Seen {
    /// A file or folder as it is now. Links are followed, as those who open it do.
    pub fn now(path: &Path) -> Result<Self, BundleError> {
        let metadata = fs::metadata(path).map_err(|source| BundleError::Read { path: path.into(), source })?;
        Ok(Self { path: path.into(), stamp: stamp(&metadata) })
    }

    /// Checks that it is still the same.
    pub fn check(&self) -> Result<(), BundleError> {
        match fs::metadata(&self.path) {
            Ok(metadata) if stamp(&metadata) == self.stamp => Ok(()),
            _ => Err(BundleError::Changed { path: self.path.clone() }),
        }
    }
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    (metadata.len(), [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()])
}

#[cfg(not(unix))]
fn stamp(metadata: &Metadata) -> Stamp {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    (metadata.len(), [since.as_secs().cast_signed(), since.subsec_nanos().into(), 0, 0])
}
