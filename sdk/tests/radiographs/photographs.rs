//! What files say about how a picture is displayed, and colour in it.

use super::file::*;
use anatomix::parts::perception::flags::of_radiograph;
use anatomix::{FlagCode, Radiograph};
use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage};
use sha2::{Digest, Sha256};

/// EXIF data that hold an orientation and nothing else, in either byte order.
fn exif(orientation: u8, big_endian: bool) -> Vec<u8> {
    match big_endian {
        false => [&b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0], &[0; 4]].concat(),
        true => [&b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"[..], &[0, orientation, 0, 0], &[0; 4]].concat(),
    }
}

fn with_exif(file: &[u8], exif: &[u8]) -> Vec<u8> {
    if file.starts_with(&[0xFF, 0xD8]) {
        let length = (8 + exif.len() as u16).to_be_bytes();
        return [&file[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", exif, &file[2..]].concat();
    }
    let mut sum = flate2::Crc::new();
    sum.update(&[b"eXIf", exif].concat());
    let chunk = [&(exif.len() as u32).to_be_bytes()[..], b"eXIf", exif, &sum.sum().to_be_bytes()].concat();
    // In front of the pixels, or behind them.
    let at = if exif.starts_with(b"II") { 33 } else { file.len() - 12 };
    [&file[..at], &chunk, &file[at..]].concat()
}

#[test]
fn the_orientation_of_exif_is_applied() {
    let picture = DynamicImage::from(GrayImage::from_fn(60, 40, |x, y| image::Luma([(x * 3 + y) as u8])));
    for (format, exact) in [(ImageFormat::Png, true), (ImageFormat::Jpeg, false)] {
        for image in [picture.clone(), picture.to_luma16().into()] {
            // JPEG has no 16 bits.
            let image = if exact { image } else { image.to_rgb8().into() };
            let file = encoded(&image, format);
            for orientation in 1..=8 {
                let mut expected = picture.clone();
                expected.apply_orientation(image::metadata::Orientation::from_exif(orientation).unwrap());
                let expected = expected.into_luma8();
                for big_endian in [false, true] {
                    let opened = Radiograph::from_bytes(&with_exif(&file, &exif(orientation, big_endian)), NAME).unwrap();
                    assert_eq!((opened.width(), opened.height()), expected.dimensions(), "{format:?} {orientation}");
                    let intensities = opened.intensities().unwrap();
                    let worst = intensities.iter().zip(expected.as_raw()).map(|(a, b)| (a - f32::from(*b) / 255.0).abs());
                    assert!(worst.fold(0.0, f32::max) < if exact { 1e-3 } else { 0.05 }, "{format:?} {orientation}");
                }
            }
        }
        // What is not an orientation, and what is not EXIF.
        let file = encoded(&picture, format);
        for exif in [exif(0, false), exif(9, false), b"II\x2a\0\xff\xff\xff\xff".to_vec(), b"II".to_vec()] {
            assert_eq!(Radiograph::from_bytes(&with_exif(&file, &exif), NAME).unwrap().width(), 60);
        }
    }
}

#[test]
fn colour_is_flagged_and_grey_stored_as_colours_is_not() {
    let flags = |image: &RgbImage, format| {
        let opened = Radiograph::from_bytes(&encoded(&image.clone().into(), format), NAME).unwrap();
        of_radiograph(&opened).into_iter().map(|flag| flag.code).collect::<Vec<_>>()
    };
    let grey = |x: u32, y: u32| ((x * 2 + y) % 256) as u8;
    let photograph = RgbImage::from_fn(100, 100, |x, y| Rgb([grey(x, y), grey(y, x) / 2, 90]));
    let tinted = RgbImage::from_fn(100, 100, |x, y| Rgb([grey(x, y) / 2, grey(x, y) / 2, grey(x, y)]));
    let stored = RgbImage::from_fn(100, 100, |x, y| Rgb([grey(x, y); 3]));
    // A coloured mark of 8 x 8.
    let marked = RgbImage::from_fn(100, 100, |x, y| if x.max(y) < 8 { Rgb([255, 200, 0]) } else { Rgb([grey(x, y); 3]) });
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        assert_eq!((flags(&photograph, format), flags(&tinted, format)), (vec![FlagCode::Colour], vec![FlagCode::Colour]));
        assert_eq!((flags(&stored, format), flags(&marked, format)), (vec![], vec![]), "{format:?}");
    }
}

#[test]
fn the_hash_of_pixels_tells_sides_and_bits_apart() {
    let hash = |width, height| Radiograph::from_pixels_u8(width, height, &[7; 40 * 64]).unwrap().sha256().to_owned();
    let wide = Radiograph::from_pixels_u16(32, 40, &[0x0707; 32 * 40]).unwrap();
    assert_ne!(hash(40, 64), hash(64, 40));
    assert_ne!(hash(32, 80), wide.sha256());
    // What the documentation says of it.
    let expected = Sha256::digest([&b"pixels 40 x 64 x 8\n"[..], &[7; 40 * 64]].concat());
    assert_eq!(hash(40, 64), expected.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

#[test]
fn pixels_of_the_other_polarity_are_inverted() {
    let bytes: Vec<u8> = (0..40 * 40).map(|i| (i % 256) as u8).collect();
    let pixels = Radiograph::from_pixels_u8(40, 40, &bytes).unwrap();
    let inverted = pixels.clone().inverted();
    assert_ne!(inverted.sha256(), pixels.sha256());
    for (a, b) in pixels.intensities().unwrap().iter().zip(inverted.intensities().unwrap()) {
        assert!((a + b - 1.0).abs() < 1e-6);
    }
}
