//! Atomic writing of a data set's files.

use crate::layer::Layer;
use std::fs;
use std::path::{Path, PathBuf};

/// Errors of writing a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file or folder could not be written.
    #[error("cannot write {path}: {source}; check that the folder is writable and the disk has room")]
    Write {
        /// Path of the file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A picture could not be encoded or written.
    #[error("cannot write the picture {path}: {message}; check that the folder is writable and the disk has room")]
    Picture {
        /// Path of the picture.
        path: PathBuf,
        /// The cause.
        message: String,
    },
}

/// Writes a file atomically. `write` gets the path of a temporary file to write to, and `path` for its error messages; the temporary
/// file is then renamed to `path`.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path, &Path) -> Result<(), DatasetError>) -> Result<(), DatasetError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let done =
        write(&part, path).and_then(|()| fs::rename(&part, path).map_err(|source| DatasetError::Write { path: path.into(), source }));
    if done.is_err() {
        // No partial file is left. If it cannot be removed, the first error is the one that matters.
        let _ = fs::remove_file(&part);
    }
    done
}

/// Saves a picture as a PNG of 8-bit grey values.
///
/// # Errors
/// [`DatasetError`], which names the file.
pub fn save_png(path: &Path, picture: &Layer) -> Result<(), DatasetError> {
    let bytes = picture.data.iter().map(|&v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let failed = |message: String| DatasetError::Picture { path: path.into(), message };
    let image = image::GrayImage::from_raw(picture.width, picture.height, bytes)
        .ok_or_else(|| failed("its size does not match its data".into()))?;
    replace(path, |part, _| image.save_with_format(part, image::ImageFormat::Png).map_err(|e| failed(e.to_string())))
}
