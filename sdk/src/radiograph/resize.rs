//! Resizing in bands of rows that fit into a core's cache, so that no intermediate result has the size of the image.

use super::stored::Stored;
use super::{RadiographError, memory};
use crate::geometry::Letterbox;
use crate::parallel;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use std::ops::Range;

/// Most rows of a band. Bands overlap by a row of the result, which is resized twice.
const MAX_BAND: usize = 64;
/// Most pixels of the image that a thread holds, unless a band of one row needs more. With radiographs of usual sizes, bands have
/// [`MAX_BAND`] rows.
const MAX_HELD: f64 = (1 << 22) as f64;

/// A resize to a square.
pub(super) struct Resize<'a> {
    pub pixels: &'a Stored,
    /// The new intensity of each stored value.
    pub spread: &'a [f32],
    pub width: u32,
    pub height: u32,
    /// Side of the square.
    pub size: u32,
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    /// Rows of the padded image.
    rows: Vec<F32>,
    /// Rows of the band, as wide as the padded image.
    shortened: Vec<F32>,
    band: Vec<F32>,
}

impl Resize<'_> {
    /// Number of rows of a band. It is smaller for large images, because each row of the band needs more rows of the image.
    fn rows(&self) -> usize {
        let side = f64::from(Letterbox::new(self.width, self.height).side());
        let scale = (side / f64::from(self.size)).max(1.0);
        // The filter needs one more row on both sides.
        ((MAX_HELD / (side * scale) - 2.0) as usize).clamp(1, MAX_BAND)
    }

    /// The square, row by row, and its smallest and largest value. `name` is the image's name for errors.
    pub fn square(&self, name: &str) -> Result<(Vec<f32>, f32, f32), RadiographError> {
        let size = self.size as usize;
        let mut square = memory::filled(0.0, size * size, name)?;
        let rows = self.rows();
        let side = Letterbox::new(self.width, self.height).side() as usize;
        let threads = parallel::threads().min(size.div_ceil(rows));
        let held = (rows + 2) * side.div_ceil(size.max(1)).max(1) * side * size_of::<F32>();
        memory::available(threads * held, name)?;
        let none = (f32::MAX, f32::MIN);
        let bands = square.chunks_mut(rows * size).enumerate();
        let ranges = parallel::map_init(bands, Scratch::default, |scratch, (band, out)| {
            self.band(scratch, band * rows, out);
            out.iter().fold(none, |(low, high), &value| (low.min(value), high.max(value)))
        });
        let (low, high) = ranges.into_iter().fold(none, |a, b| (a.0.min(b.0), a.1.max(b.1)));
        Ok((square, low, high))
    }

    /// Rows of the square from the `first` on.
    fn band(&self, scratch: &mut Scratch, first: usize, out: &mut [f32]) -> Option<()> {
        let side = Letterbox::new(self.width, self.height).side();
        let count = out.len() / self.size as usize;
        let scale = f64::from(side) / f64::from(self.size);
        let (top, bottom) = (first as f64 * scale, ((first + count) as f64 * scale).min(f64::from(side)));
        // Distance from the middle of a row to the last row that the filter needs.
        let reach = scale.max(1.0);
        let start = (top + scale / 2.0 - reach).floor().max(0.0);
        let end = (bottom - scale / 2.0 + reach).ceil().min(f64::from(side));
        self.padded(start as usize..end as usize, side as usize, &mut scratch.rows);
        let Scratch { resizer, rows, shortened, band } = scratch;
        shortened.resize(side as usize * count, F32::new(0.0));
        band.resize(out.len(), F32::new(0.0));
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        // Vertically first, because that is cheaper.
        let source = TypedImageRef::new(side, (end - start) as u32, rows).ok()?;
        let mut target = TypedImage::from_pixels_slice(side, count as u32, shortened).ok()?;
        resizer.resize_typed(&source, &mut target, &options.crop(0.0, top - start, f64::from(side), bottom - top)).ok()?;
        let mut finished = TypedImage::from_pixels_slice(self.size, count as u32, band).ok()?;
        resizer.resize_typed(&target, &mut finished, &options).ok()?;
        out.iter_mut().zip(band).for_each(|(out, pixel)| *out = pixel.0);
        Some(())
    }

    /// Rows of the image padded with zeros to a square.
    fn padded(&self, part: Range<usize>, side: usize, rows: &mut Vec<F32>) {
        let (left, top) = Letterbox::new(self.width, self.height).offset();
        let (left, width) = (left as usize, self.width as usize);
        let count = part.len() * side;
        rows.reserve_exact(count.saturating_sub(rows.len()));
        rows.resize(count, F32::new(0.0));
        for (y, row) in part.zip(rows.chunks_exact_mut(side)) {
            let inside = y.checked_sub(top as usize).filter(|&y| y < self.height as usize);
            let (before, rest) = row.split_at_mut(left);
            let (pixels, after) = rest.split_at_mut(width);
            match inside {
                Some(y) => self.pixels.look_up(y * width, self.spread, pixels, F32::new),
                None => pixels.fill(F32::new(0.0)),
            }
            before.fill(F32::new(0.0));
            after.fill(F32::new(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::stored::Depth;

    /// The image, padded and resized in one piece.
    fn whole(resize: &Resize) -> Vec<f32> {
        let side = resize.width.max(resize.height);
        let mut rows = Vec::new();
        resize.padded(0..side as usize, side as usize, &mut rows);
        let source = TypedImage::from_pixels(side, side, rows).unwrap();
        let mut target = TypedImage::new(resize.size, resize.size);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        Resizer::new().resize_typed(&source, &mut target, &options).unwrap();
        target.pixels().iter().map(|pixel| pixel.0).collect()
    }

    #[test]
    fn bands_equal_the_whole() {
        for (width, height, size) in [
            (301, 257, 64),
            (64, 301, 100),
            (500, 61, 33),
            (61, 500, 17),
            (997, 1003, 224),
            (40, 33, 150),
            (33, 40, 41),
            (64, 64, 64),
            (64, 48, 64),
            (500, 500, 1),
            // Sides at which bands have fewer rows.
            (2000, 64, 20),
            (64, 3000, 9),
        ] {
            let bytes = (0..u64::from(width * height)).map(|i| (i * 7919 % 251) as u8).collect();
            let pixels = Stored::new(Depth::One, bytes, Depth::One.shares());
            let resize = Resize { pixels: &pixels, spread: pixels.levels(), width, height, size };
            let (square, low, high) = resize.square("x").unwrap();
            let expected = whole(&resize);
            let worst = square.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{width}x{height} to {size}: {worst}");
            assert!(high > 0.0);
            assert_eq!(low, square.iter().copied().fold(f32::MAX, f32::min));
            assert_eq!(high, square.iter().copied().fold(f32::MIN, f32::max));
        }
    }
}
