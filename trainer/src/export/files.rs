//! Files of a bundle that is being written.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::Path;

/// Writes a file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes sure that a file is on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

/// Names of a folder's files, and their size in bytes.
pub(super) fn contents(folder: &Path) -> Result<(Vec<String>, u64)> {
    let failed = || format!("cannot read {}", folder.display());
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        bytes += entry.metadata().with_context(failed)?.len();
        files.push(entry.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    Ok((files, bytes))
}
