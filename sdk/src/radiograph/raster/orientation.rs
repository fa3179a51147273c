//! The EXIF orientation of pictures.

use crate::radiograph::RadiographError;
use crate::radiograph::memory;
use image::metadata::Orientation;

/// Rotates and flips `width * height` pixels of `size` bytes. Returns the pixels with the new width and height.
pub(super) fn apply(
    pixels: Vec<u8>,
    size: usize,
    [width, height]: [u32; 2],
    orientation: Orientation,
    name: &str,
) -> Result<(Vec<u8>, [u32; 2]), RadiographError> {
    use Orientation::*;
    let (last_x, last_y) = (width as usize - 1, height as usize - 1);
    // The old position of each new pixel.
    let source: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        NoTransforms => return Ok((pixels, [width, height])),
        FlipHorizontal => |x, y, last_x, _| (last_x - x, y),
        Rotate180 => |x, y, last_x, last_y| (last_x - x, last_y - y),
        FlipVertical => |x, y, _, last_y| (x, last_y - y),
        Rotate90 => |x, y, _, last_y| (y, last_y - x),
        Rotate270 => |x, y, last_x, _| (last_x - y, x),
        Rotate90FlipH => |x, y, _, _| (y, x),
        Rotate270FlipH => |x, y, last_x, last_y| (last_x - y, last_y - x),
    };
    let swaps_sides = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    let sides = if swaps_sides { [height, width] } else { [width, height] };
    let mut rotated = memory::filled(0, pixels.len(), name)?;
    for (y, row) in rotated.chunks_exact_mut(sides[0] as usize * size).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(size).enumerate() {
            let (x, y) = source(x, y, last_x, last_y);
            let at = (y * width as usize + x) * size;
            pixel.copy_from_slice(&pixels[at..at + size]);
        }
    }
    Ok((rotated, sides))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, GrayImage, ImageBuffer};

    #[test]
    fn all_orientations_equal_those_of_the_image_library() {
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let bytes: Vec<u8> = (0..12).collect();
            let mut expected = DynamicImage::from(GrayImage::from_raw(4, 3, bytes.clone()).unwrap());
            expected.apply_orientation(orientation);
            let (rotated, sides) = apply(bytes, 1, [4, 3], orientation, "x").unwrap();
            assert_eq!((rotated.as_slice(), sides), (expected.as_bytes(), [expected.width(), expected.height()]), "{exif}");
            let words: Vec<u16> = (0..12).map(|i| i * 1000).collect();
            let mut expected = DynamicImage::from(ImageBuffer::<image::Luma<u16>, _>::from_raw(4, 3, words.clone()).unwrap());
            expected.apply_orientation(orientation);
            let (rotated, _) = apply(words.iter().flat_map(|word| word.to_ne_bytes()).collect(), 2, [4, 3], orientation, "x").unwrap();
            assert_eq!(rotated, expected.as_bytes(), "{exif}");
        }
    }
}
