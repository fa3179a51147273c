//! Preprocessed images: letterboxed, one byte a pixel.

use super::settings::{Damaged, Loading};
use super::store::Store;
use anatomix::parts::hash::Digest;
use anatomix::{Preprocess, Radiograph};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tch::{Kind, Tensor};

/// Reads and preprocesses images, and keeps them on disk if that is asked for.
#[derive(Debug)]
pub struct Pictures {
    preprocess: Preprocess,
    store: Option<Store>,
    damaged: Damaged,
    skipped: AtomicU64,
}

impl Pictures {
    /// Images for this preprocessing.
    pub fn new(preprocess: Preprocess, loading: &Loading) -> Self {
        let side = preprocess.size as usize;
        let key = Digest::of(format!("{preprocess:?}").as_bytes());
        let store = loading.cache.as_deref().map(|folder| Store::new(folder, "letterboxed", &key, side * side));
        Self { preprocess, store, damaged: loading.damaged, skipped: AtomicU64::new(0) }
    }

    /// The preprocessed image of a file, side times side bytes, which must have the size that it was prepared with. `None` if it cannot be
    /// read and is to be skipped.
    ///
    /// # Errors
    /// If it cannot be read and is not to be skipped, or cannot be kept.
    pub fn read(&self, path: &Path, size: (u32, u32)) -> Result<Option<Vec<u8>>> {
        let read = || {
            let name = self.store.as_ref().map(|_| Store::name_for(path)).transpose()?;
            let Some((store, name)) = self.store.as_ref().zip(name) else { return Ok((self.decode(path, size)?, None)) };
            match store.get(&name) {
                Some(picture) => Ok((picture, None)),
                None => Ok((self.decode(path, size)?, Some((store, name)))),
            }
        };
        match read() {
            Ok((picture, None)) => Ok(Some(picture)),
            Ok((picture, Some((store, name)))) => {
                store.put(&name, &picture)?;
                Ok(Some(picture))
            }
            Err(_) if self.skips() => {
                self.skip();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn decode(&self, path: &Path, size: (u32, u32)) -> Result<Vec<u8>> {
        let picture = Radiograph::open(path).map_err(anyhow::Error::new).and_then(|radiograph| {
            let found = (radiograph.width(), radiograph.height());
            ensure!(found == size, "it has {} x {} pixels, and had {} x {} when it was prepared", found.0, found.1, size.0, size.1);
            Ok(radiograph.preprocess(&self.preprocess)?)
        });
        let picture =
            picture.with_context(|| format!("cannot train on {}; replace it, or set `damaged = \"skip\"` in [loading]", path.display()))?;
        Ok(picture.into_iter().map(|v| (v * 255.0).round() as u8).collect())
    }

    /// Whether images that cannot be read are skipped.
    pub fn skips(&self) -> bool {
        self.damaged == Damaged::Skip
    }

    /// Counts an image that was skipped.
    pub fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an image was skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// A batch of images `[B, 1, S, S]` with values 0..1.
    ///
    /// # Errors
    /// If there are none, or their sizes differ.
    pub fn batch<'a>(&self, pictures: impl Iterator<Item = &'a [u8]>) -> Result<Tensor> {
        let bytes: Vec<u8> = pictures.flatten().copied().collect();
        let side = self.preprocess.size as usize;
        ensure!(!bytes.is_empty() && bytes.len().is_multiple_of(side * side), "no image of the batch can be read");
        Ok(Tensor::from_slice(&bytes).reshape([-1, 1, side as i64, side as i64]).to_kind(Kind::Float) / 255.0)
    }
}
