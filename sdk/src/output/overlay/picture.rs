//! The radiograph of an overlay.

use crate::Radiograph;
use crate::radiograph::{RadiographError, memory};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, GrayImage};

/// Fraction of pixels that is clipped to black, and to white, so that borders, markers and metal do not set the contrast.
const CLIPPED: f64 = 0.005;

/// Stretches the radiograph's contrast between two percentiles and resizes it to `width` x `height`.
///
/// # Errors
/// [`RadiographError::Memory`].
pub(super) fn draw(radiograph: &Radiograph, width: u32, height: u32) -> Result<GrayImage, RadiographError> {
    let name = radiograph.name();
    // The counts of all values, and the picture, which has at most a megapixel or two.
    memory::available(width as usize * height as usize, name)?;
    let (low, high) = radiograph.percentiles(CLIPPED);
    let scale = 255.0 / (high - low).max(1e-6);
    let (columns, rows) = (radiograph.width() as usize, radiograph.height() as usize);
    let mut pixels = memory::filled(0, columns * rows, name)?;
    let mut values = memory::filled(0.0, columns, name)?;
    for (y, row) in pixels.chunks_exact_mut(columns).enumerate() {
        radiograph.row(y, &mut values);
        row.iter_mut().zip(&values).for_each(|(pixel, value)| *pixel = ((value - low) * scale).clamp(0.0, 255.0).round() as u8);
    }
    let source = GrayImage::from_raw(radiograph.width(), radiograph.height(), pixels).unwrap_or_default();
    // The resizer allocates a picture that has the new width and the old height.
    memory::available(width as usize * (rows + height as usize), name)?;
    let mut target = DynamicImage::ImageLuma8(GrayImage::new(width, height));
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    // Resizing fails only if the pixel formats differ or a picture is empty.
    let _ = Resizer::new().resize(&DynamicImage::ImageLuma8(source), &mut target, &options);
    Ok(target.into_luma8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_stretched_and_outliers_are_clipped() {
        let mut pixels = vec![100u8; 64 * 64];
        pixels[64 * 32..].fill(150);
        pixels[0] = 255;
        let radiograph = Radiograph::from_pixels_u8(64, 64, &pixels).unwrap();
        let picture = draw(&radiograph, 128, 96).unwrap();
        assert_eq!(picture.dimensions(), (128, 96));
        assert_eq!((picture.get_pixel(60, 20).0[0], picture.get_pixel(60, 80).0[0]), (0, 255));
    }
}
