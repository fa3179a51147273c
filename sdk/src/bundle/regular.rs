//! Files of a bundle are regular ones, without links.

use super::error::BundleError;
use std::path::Path;

/// Checks that a path is a regular file and not a symbolic link. Returns the file's size in bytes.
pub(super) fn check_regular(path: &Path) -> Result<u64, BundleError> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| BundleError::Read { path: path.into(), source })?;
    let what = match metadata.file_type() {
        kind if kind.is_file() => return Ok(metadata.len()),
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => "a folder",
        _ => "a pipe or a device",
    };
    Err(BundleError::NotRegular { path: path.into(), what })
}
