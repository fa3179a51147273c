//! Files of a data set, written whole or not at all.

use crate::layer::Layer;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a data set could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file or folder could not be written.
    #[error("cannot write {path}: {source}; check that the folder is writable and the disk has room")]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A picture could not be encoded or written.
    #[error("cannot write the picture {path}: {message}; check that the folder is writable and the disk has room")]
    Picture {
        /// Which one.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Writes a file beside its place and moves it there when it is whole; `write` gets where to write, and the place to name
/// in errors.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path, &Path) -> Result<(), DatasetError>) -> Result<(), DatasetError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let done =
        write(&part, path).and_then(|()| fs::rename(&part, path).map_err(|source| DatasetError::Write { path: path.into(), source }));
    if done.is_err() {
        // Nothing half-written stays; that it cannot be removed adds nothing to the error.
        let _ = fs::remove_file(&part);
    }
    done
}

/// Saves a picture as an 8-bit grey PNG.
///
/// # Errors
/// [`DatasetError::Picture`], naming the file.
pub fn save_png(path: &Path, picture: &Layer) -> Result<(), DatasetError> {
    let bytes = picture.data.iter().map(|&v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let failed = |message: String| DatasetError::Picture { path: path.into(), message };
    let image = image::GrayImage::from_raw(picture.width, picture.height, bytes)
        .ok_or_else(|| failed("its size does not match its data".into()))?;
    replace(path, |part, _| image.save_with_format(part, image::ImageFormat::Png).map_err(|e| failed(e.to_string())))
}
