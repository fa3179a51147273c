//! From a radiograph to the network's input. How this is done depends on the weights, so the manifest defines it.

use super::resize::Resize;
use super::stored::Stored;
use super::{RadiographError, memory};
use crate::parallel;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How intensities are changed before the image is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Histogram {
    /// They stay as they are until the final stretch to 0..1.
    Stretch,
    /// Their histogram is equalised over the original image without constant borders. Images that differ only in their tone curve become
    /// equal.
    Equalize,
}

/// How a radiograph becomes the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Preprocess {
    /// Version of the meaning of these fields. This SDK supports version 1.
    pub version: u32,
    /// Side of the square input in pixels.
    pub size: u32,
    /// How intensities are changed.
    pub histogram: Histogram,
}

impl Preprocess {
    /// The network's input: `size * size` values 0..1, row by row, of `width * height` pixels.
    ///
    /// Intensities are changed, padded with zeros to a square (see [`Letterbox`]), resized by antialiased bilinear interpolation, and
    /// stretched so that the smallest is 0 and the largest 1. A constant image gives zeros.
    pub(super) fn apply(&self, pixels: &Stored, width: u32, height: u32, name: &str) -> Result<Vec<f32>, RadiographError> {
        // The tables below have a fixed size.
        memory::available(0, name)?;
        let spread = match self.histogram {
            Histogram::Stretch => pixels.levels().into(),
            Histogram::Equalize => Cow::Owned(equalization(pixels)),
        };
        let (mut square, low, high) = Resize { pixels, spread: &spread, width, height, size: self.size }.square(name)?;
        let scale = if high > low { 1.0 / (high - low) } else { 0.0 };
        parallel::map(square.chunks_mut(PART), |part| part.iter_mut().for_each(|value| *value = (*value - low) * scale));
        Ok(square)
    }
}

/// Pixels that a thread stretches at a time.
const PART: usize = 1 << 16;

const BINS: usize = 1 << 16;

fn bin(value: f32) -> usize {
    (value.clamp(0.0, 1.0) * (BINS - 1) as f32).round() as usize
}

/// The equalised intensity of each stored value: the share of pixels in lower bins, plus half of the share of its own bin.
///
/// A border (collimation, padding, saturated air) has one exact value in many pixels. If it were counted, the patient would get the rest of
/// the range only, so the darkest and the brightest value are not counted if more than one pixel in fifty has it.
fn equalization(pixels: &Stored) -> Vec<f32> {
    let mut counts = vec![0u64; BINS];
    for (&count, &level) in pixels.counts().iter().zip(pixels.levels()) {
        counts[bin(level)] += u64::from(count);
    }
    let border = pixels.len() as u64 / 50;
    let first = counts.iter().position(|&c| c > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&c| c > 0).unwrap_or(0);
    for edge in [first, last] {
        if counts[edge] > border {
            counts[edge] = 0;
        }
    }
    let total: u64 = counts.iter().sum::<u64>().max(1);
    let mut below = 0;
    let equalized: Vec<f32> = counts
        .into_iter()
        .map(|count| {
            let level = (below as f64 + count as f64 / 2.0) / total as f64;
            below += count;
            level as f32
        })
        .collect();
    pixels.levels().iter().map(|&level| equalized[bin(level)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Radiograph;

    const EQUALIZE: Preprocess = Preprocess { version: 1, size: 32, histogram: Histogram::Equalize };

    fn prepared(preprocess: &Preprocess, values: &[f32], width: u32, height: u32) -> Vec<f32> {
        let words: Vec<u16> = values.iter().map(|value| (value * 65535.0).round() as u16).collect();
        Radiograph::from_pixels_u16(width, height, &words).unwrap().preprocess(preprocess).unwrap()
    }

    #[test]
    fn equalised_images_do_not_depend_on_the_tone_curve() {
        let image: Vec<f32> = (0..64 * 48).map(|i| ((i * 7919) % 4096) as f32 / 4096.0).collect();
        let curved: Vec<f32> = image.iter().map(|v| v.powf(0.4) * 0.9 + 0.05).collect();
        let (a, b) = (prepared(&EQUALIZE, &image, 64, 48), prepared(&EQUALIZE, &curved, 64, 48));
        let worst = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}");
    }

    #[test]
    fn padding_is_black_and_on_both_sides() {
        let stretch = Preprocess { histogram: Histogram::Stretch, ..EQUALIZE };
        let out = prepared(&stretch, &[0.7; 64 * 32], 64, 32);
        let row = |y: usize| out[y * 32 + 16];
        assert_eq!((row(0), row(31)), (0.0, 0.0));
        assert_eq!((row(12), row(19)), (1.0, 1.0));
        assert!(prepared(&stretch, &[0.3; 40 * 40], 40, 40).iter().all(|&v| v == 0.0));
    }
}
