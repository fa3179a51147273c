//! Which values activations take: the perception module in fp32 is run on images, for an export in 8 bits.

use super::graphs;
use crate::graph::Params;
use crate::graph::onnx::Ranges;
use crate::run::ModelConfig;
use crate::training::progress;
use anatomix::Radiograph;
use anatomix::bundle::APM;
use anatomix::runtime::{Options, Provider, Runtime};
use anatomix_phantom::Scene;
use anyhow::{Context, Result, ensure};
use ort::value::TensorRef;
use std::path::{Path, PathBuf};

/// How many images are looked at, at most.
const IMAGES: usize = 64;

/// Ranges of a module's activations on the radiographs of a folder, or on phantoms of training seeds.
///
/// # Errors
/// If ONNX Runtime is not found, the folder holds no radiograph, or one cannot be read.
pub(super) fn ranges(models: &ModelConfig, params: &Params, images: Option<&Path>) -> Result<Ranges> {
    let scratch = tempfile::tempdir().context("cannot make a folder for the graph that is calibrated")?;
    let path = scratch.path().join(APM);
    graphs::apm_observing(&path, &models.apm, params)?;
    let runtime = Runtime::load(Options { provider: Provider::Cpu, ..Default::default() })?;
    let mut session = runtime.session(&path)?;
    let files = images.map(radiographs).transpose()?;
    let count = files.as_ref().map_or(IMAGES, Vec::len).min(IMAGES);
    let bar = progress::bar(count as u64, "calibrating");
    let mut ranges = Ranges::default();
    let side = models.apm.image_size as usize;
    for index in 0..count {
        let radiograph = match &files {
            // Spread over the folder.
            Some(files) => Radiograph::open(&files[index * files.len() / count])?,
            None => phantom(index as u64)?,
        };
        let image = radiograph.preprocess(&models.preprocess());
        let outputs = session.run(ort::inputs!["image" => TensorRef::from_array_view(([1, 1, side, side], image.as_slice()))?])?;
        let numbers = outputs.iter().filter_map(|(name, value)| match value.try_extract_tensor::<f32>() {
            Ok((shape, values)) if shape.is_empty() => Some((name, values[0])),
            _ => None,
        });
        ranges.observe(numbers)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ranges)
}

fn phantom(seed: u64) -> Result<Radiograph> {
    let picture = Scene::sample(seed).render();
    let pixels: Vec<u16> = picture.data.iter().map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
    Ok(Radiograph::from_pixels_u16(picture.width, picture.height, &pixels)?)
}

/// All files of a folder, in order.
fn radiographs(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(failed)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(failed)?;
    files.retain(|path| path.is_file());
    files.sort();
    ensure!(!files.is_empty(), "{} holds no files; name a folder of radiographs to calibrate with", folder.display());
    Ok(files)
}
