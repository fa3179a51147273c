//! From a radiograph to the network's input. The choices belong to the weights and are therefore data in the manifest.

use crate::geometry::Letterbox;
use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How intensities are spread before the resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Histogram {
    /// Left as they are; only the final stretch to 0..1 acts.
    Stretch,
    /// Equalised over the original image, constant borders left out: whatever the tone curve of the source, equal
    /// order of intensities gives an equal picture.
    Equalize,
}

/// How a radiograph becomes the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Version of what these fields mean; this SDK knows version 1.
    pub version: u32,
    /// Side of the square input in pixels.
    pub size: u32,
    /// How intensities are spread.
    pub histogram: Histogram,
}

impl Preprocess {
    /// The network's input: `size * size` values 0..1, row by row. `intensities` holds `width * height` values 0..1.
    ///
    /// Spread, zero-padded to a square (see [`Letterbox`]), resized by antialiased bilinear interpolation, stretched so
    /// that the smallest value is 0 and the largest 1. A constant image gives zeros.
    pub fn apply(&self, intensities: &[f32], width: u32, height: u32) -> Vec<f32> {
        let mut square = self.resize(intensities, width, height);
        let low = square.iter().copied().fold(f32::MAX, f32::min);
        let high = square.iter().copied().fold(f32::MIN, f32::max);
        let scale = if high > low { 1.0 / (high - low) } else { 0.0 };
        for value in &mut square {
            *value = (*value - low) * scale;
        }
        square
    }

    fn resize(&self, intensities: &[f32], width: u32, height: u32) -> Vec<f32> {
        let letterbox = Letterbox::new(width, height);
        let (side, size) = (letterbox.side(), self.size);
        let (left, top) = letterbox.offset();
        let spread = match self.histogram {
            Histogram::Stretch => None,
            Histogram::Equalize => Some(equalization(intensities)),
        };
        let pixel = |&value: &f32| F32::new(spread.as_ref().map_or(value, |map| map[bin(value)]));
        let padded: Vec<F32> = if width == height {
            intensities.par_iter().map(pixel).collect()
        } else {
            let mut padded = vec![F32::new(0.0); side as usize * side as usize];
            let rows = padded.par_chunks_exact_mut(side as usize).skip(top as usize);
            rows.zip(intensities.par_chunks_exact(width as usize)).for_each(|(out, row)| {
                out[left as usize..].iter_mut().zip(row).for_each(|(out, value)| *out = pixel(value));
            });
            padded
        };
        let mut resized = vec![F32::new(0.0); size as usize * size as usize];
        let Ok(source) = TypedImage::from_pixels(side, side, padded) else { return vec![0.0; resized.len()] };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        // Each thread makes a band of rows.
        let rows = (size as usize).div_ceil(rayon::current_num_threads());
        let done = resized.par_chunks_mut(rows * size as usize).enumerate().try_for_each(|(band, pixels)| {
            let at = |row: usize| row as f64 / f64::from(size) * f64::from(side);
            let (top, count) = (at(band * rows), pixels.len() / size as usize);
            let height = (at(band * rows + count) - top).min(f64::from(side) - top);
            let mut target = TypedImage::from_pixels_slice(size, count as u32, pixels).ok()?;
            let part = options.crop(0.0, top, f64::from(side), height);
            Resizer::new().resize_typed(&source, &mut target, &part).ok()
        });
        resized.iter().map(|pixel| if done.is_some() { pixel.0 } else { 0.0 }).collect()
    }
}

const BINS: usize = 1 << 16;

fn bin(value: f32) -> usize {
    (value.clamp(0.0, 1.0) * (BINS - 1) as f32).round() as usize
}

/// The equalised value of each bin: the share of pixels below it, half of its own included.
///
/// A border (collimation, padding, burnt-out air) is one exact value in many pixels. Counting it would squeeze the
/// patient into the rest of the range, so a darkest or brightest value of more than one pixel in fifty is not counted.
fn equalization(intensities: &[f32]) -> Vec<f32> {
    let mut counts = vec![0u64; BINS];
    for &value in intensities {
        counts[bin(value)] += 1;
    }
    let much = intensities.len() as u64 / 50;
    let first = counts.iter().position(|&c| c > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&c| c > 0).unwrap_or(0);
    for edge in [first, last] {
        if counts[edge] > much {
            counts[edge] = 0;
        }
    }
    let total: u64 = counts.iter().sum::<u64>().max(1);
    let mut below = 0;
    counts
        .into_iter()
        .map(|count| {
            let level = (below as f64 + count as f64 / 2.0) / total as f64;
            below += count;
            level as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUALIZE: Preprocess = Preprocess { version: 1, size: 32, histogram: Histogram::Equalize };

    #[test]
    fn tone_curves_do_not_matter_when_equalised() {
        let image: Vec<f32> = (0..64 * 48).map(|i| ((i * 7919) % 4096) as f32 / 4096.0).collect();
        let curved: Vec<f32> = image.iter().map(|v| v.powf(0.4) * 0.9 + 0.05).collect();
        let (a, b) = (EQUALIZE.apply(&image, 64, 48), EQUALIZE.apply(&curved, 64, 48));
        let worst = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}");
    }

    #[test]
    fn padding_is_dark_and_split_evenly() {
        let stretch = Preprocess { histogram: Histogram::Stretch, ..EQUALIZE };
        let out = stretch.apply(&vec![0.7; 64 * 32], 64, 32);
        let row = |y: usize| out[y * 32 + 16];
        assert_eq!((row(0), row(31)), (0.0, 0.0));
        assert_eq!((row(12), row(19)), (1.0, 1.0));
        assert!(stretch.apply(&[0.3; 40 * 40], 40, 40).iter().all(|&v| v == 0.0));
    }
}
