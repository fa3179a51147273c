//! PNG and JPEG.

use super::stored::{Samples, Width};
use super::{Decoded, Header, RadiographError, check_sides};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Memory that a decoder may use, for an image of the largest accepted number of pixels.
const MAX_ALLOCATION: u64 = 2 << 30;

pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Decoded<'static>, RadiographError> {
    let format = image::guess_format(bytes).map_err(|_| RadiographError::UnknownFormat { name: name.into() })?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
        return Err(RadiographError::UnknownFormat { name: name.into() });
    }
    let damaged = |e: ImageError| RadiographError::Damaged { name: name.into(), message: e.to_string() };
    if format == ImageFormat::Jpeg && !ends(bytes) {
        let message = "it ends before its picture does".into();
        return Err(RadiographError::Damaged { name: name.into(), message });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_sides(width, height, name)?;
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let samples = grey(image);
    let levels = samples.width.shares();
    Ok(Decoded { width, height, samples, levels, header: Header::default() })
}

/// Whether a JPEG has its end marker behind its last scan. The decoder does not mind: it fills what is missing with grey.
fn ends(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xFF, marker]);
    last(0xD9) > last(0xDA)
}

/// Luma, colours to 16 bits. What is transparent lies over black.
fn grey(image: DynamicImage) -> Samples<'static> {
    let words = |words: &mut dyn Iterator<Item = u16>| words.flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (width, bytes) = match image {
        DynamicImage::ImageLuma8(grey) => (Width::One, grey.into_raw()),
        DynamicImage::ImageLuma16(grey) => (Width::Two, words(&mut grey.into_raw().into_iter())),
        other => {
            let luma = |p: &image::Rgba<f32>| {
                let [r, g, b, a] = p.0;
                ((0.2126 * r + 0.7152 * g + 0.0722 * b) * a * 65535.0).round() as u16
            };
            (Width::Two, words(&mut other.to_rgba32f().pixels().map(luma)))
        }
    };
    Samples { width, bytes: bytes.into() }
}

#[cfg(test)]
mod tests {
    use crate::Radiograph;
    use image::{DynamicImage, GrayImage, ImageFormat, RgbaImage};
    use std::io::Cursor;

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn grey_colour_and_alpha_agree() {
        let grey = GrayImage::from_fn(40, 50, |x, y| image::Luma([(x * 3 + y) as u8]));
        let png = Radiograph::from_bytes(&encode(&grey.clone().into(), ImageFormat::Png), "a").unwrap();
        let jpeg = Radiograph::from_bytes(&encode(&grey.clone().into(), ImageFormat::Jpeg), "b").unwrap();
        let rgba = RgbaImage::from_fn(40, 50, |x, y| {
            let v = grey.get_pixel(x, y).0[0];
            image::Rgba([v, v, v, if x < 20 { 255 } else { 0 }])
        });
        let alpha = Radiograph::from_bytes(&encode(&rgba.into(), ImageFormat::Png), "c").unwrap();
        for y in 0..50 {
            for x in 0..40 {
                let value = png.intensities()[[y, x]];
                assert_eq!(value, grey.get_pixel(x as u32, y as u32).0[0] as f32 / 255.0);
                assert!((jpeg.intensities()[[y, x]] - value).abs() < 0.03);
                let expected = if x < 20 { value } else { 0.0 };
                assert!((alpha.intensities()[[y, x]] - expected).abs() < 1e-3);
            }
        }
    }
}
