//! Preprocessed images, which are kept in memory as bytes.

use crate::progress;
use anatomix::{Preprocess, Radiograph};
use anyhow::Result;
use rayon::prelude::*;
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// Preprocessed images, one byte per pixel.
pub struct Images {
    size: i64,
    bytes: Tensor,
}

impl Images {
    /// Reads and preprocesses all files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn load(paths: &[PathBuf], preprocess: &Preprocess) -> Result<Self> {
        let bar = progress::bar(paths.len() as u64, "preparing images");
        let pictures: Vec<Vec<u8>> = paths
            .par_iter()
            .map(|path| {
                let picture = Radiograph::open(path)?.preprocess(preprocess)?;
                bar.inc(1);
                Ok(picture.into_iter().map(|v| (v * 255.0).round() as u8).collect())
            })
            .collect::<Result<_>>()?;
        bar.finish_and_clear();
        let size = i64::from(preprocess.size);
        let bytes = Tensor::from_slice(&pictures.concat()).reshape([-1, 1, size, size]);
        Ok(Self { size, bytes })
    }

    /// A batch of images `[B, 1, S, S]` with values 0..1.
    pub fn batch(&self, indices: &[i64]) -> Tensor {
        self.bytes.index_select(0, &Tensor::from_slice(indices)).to_kind(Kind::Float) / 255.0
    }

    /// Side of the images in pixels.
    pub fn size(&self) -> i64 {
        self.size
    }
}
