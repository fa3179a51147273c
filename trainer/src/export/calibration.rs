//! Calibration for an export in 8 bits: the perception module runs on images, and the ranges of its activations are observed. It computes
//! in fp64, so that every machine finds the same ranges.

use super::phantom::phantom;
use crate::graph::Params;
use crate::graph::onnx::{Observer, Ranges};
use crate::models::apm::apm;
use crate::progress;
use crate::run::ModelConfig;
use anatomix::Radiograph;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Largest number of images.
const MAX_IMAGES: usize = 64;

/// Ranges of a module's activations on the radiographs of a folder, or on phantoms of training seeds.
///
/// # Errors
/// If the folder holds no radiograph, one cannot be read, or an activation is not finite.
pub(super) fn ranges(models: &ModelConfig, params: &Params, images: Option<&Path>) -> Result<Ranges> {
    let files = images.map(radiographs).transpose()?;
    let count = files.as_ref().map_or(MAX_IMAGES, Vec::len).min(MAX_IMAGES);
    let bar = progress::bar(count as u64, "calibrating");
    let mut ranges = Ranges::default();
    let side = models.apm.image_size;
    for index in 0..count {
        let radiograph = match &files {
            // Files are chosen evenly over the folder.
            Some(files) => Radiograph::open(&files[index * files.len() / count])?,
            None => phantom(index as u64, models)?,
        };
        let image = Tensor::from_slice(&radiograph.preprocess(&models.preprocess())?).reshape([1, 1, side, side]);
        let observer = Observer::new(params);
        let _ = apm(&observer, &models.apm, &observer.input("image", &image));
        observer.finish(&mut ranges)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ranges)
}

/// All files of a folder, sorted.
fn radiographs(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(failed)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(failed)?;
    files.retain(|path| path.is_file());
    files.sort();
    ensure!(!files.is_empty(), "{} holds no files; name a folder of radiographs to calibrate with", folder.display());
    Ok(files)
}
