//! Transfer syntaxes, compression and other formats: all of them give the same pixels.

use super::file::*;
use anatomix::error::RadiographError;
use anatomix::parts::perception::flags::of_radiograph;
use anatomix::{FlagCode, Radiograph};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use image::ImageFormat;
use sha2::{Digest, Sha256};

/// A lookup table with 65,536 entries, a number that does not fit into its descriptor.
fn identity() -> Vec<u16> {
    (0..=u16::MAX).collect()
}

#[test]
fn every_uncompressed_syntax() {
    for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
        let file = || File { syntax, ..File::new().put(table(tags::VOILUT_SEQUENCE, &[4096, 0, 16], &identity()[..4096])) };
        check(&file().open(), |i| (i * 3) as f64 / 65535.0);
        // The file is also read without its preamble, and without its file meta information.
        let bytes = file().bytes();
        assert_eq!(Radiograph::from_bytes(&bytes[128..], NAME).unwrap().intensities().unwrap(), file().open().intensities().unwrap());
        let meta = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        assert_eq!(
            Radiograph::from_bytes(&bytes[144 + meta..], NAME).unwrap().intensities().unwrap(),
            file().open().intensities().unwrap()
        );
    }
}

#[test]
fn compressed_in_one_piece_or_several() {
    let packed = run_lengths(&ramp());
    check(&File::new().packed(uids::RLE_LOSSLESS, vec![packed.clone()]).open(), |i| (i * 3) as f64 / LAST);
    let pieces = packed.chunks(512).map(<[u8]>::to_vec).collect();
    check(&File::new().packed(uids::RLE_LOSSLESS, pieces).open(), |i| (i * 3) as f64 / LAST);
    for syntax in [uids::JPEG2000_LOSSLESS, uids::JPEG2000] {
        check(&File::new().packed(syntax, vec![JPEG_2000.to_vec()]).open(), |i| (i * 3) as f64 / LAST);
    }
    let (picture, bytes) = jpeg();
    let opened = File::new().bits(8, 8, 7, false).window("128", "256", "").packed(uids::JPEG_BASELINE8_BIT, vec![bytes]).open();
    for (found, expected) in opened.intensities().unwrap().iter().zip(picture.as_raw()) {
        assert!((found - f32::from(*expected) / 255.0).abs() < 0.03);
    }
}

/// A JPEG-LS of these values with so many bits.
fn jpeg_ls(values: &[u16], bits: u8) -> Vec<u8> {
    let mut options = jpegls::EncodeOptions::default();
    options.precision = Some(bits);
    let mut packed = Vec::new();
    jpegls::encode_with_options(values, COLUMNS.into(), ROWS.into(), &options, &mut packed).unwrap();
    packed
}

#[test]
fn jpeg_ls_of_any_depth_and_sign() {
    let packed = jpeg_ls(&ramp(), 12);
    let file = |bytes: Vec<u8>| File::new().packed(uids::JPEGLS_LOSSLESS, vec![bytes]);
    check(&file(packed.clone()).open(), |i| (i * 3) as f64 / LAST);
    let pieces = packed.chunks(100).map(<[u8]>::to_vec).collect();
    check(&File::new().packed(uids::JPEGLS_NEAR_LOSSLESS, pieces).open(), |i| (i * 3) as f64 / LAST);
    let eight: Vec<u16> = (0..PIXELS).map(|i| (i % 256) as u16).collect();
    check(&file(jpeg_ls(&eight, 8)).bits(8, 8, 7, false).open(), |i| (i % 256) as f64 / 255.0);
    let signed: Vec<u16> = (0..PIXELS).map(|i| (i as u16).wrapping_sub(600)).collect();
    check(&file(jpeg_ls(&signed, 16)).bits(16, 16, 15, true).open(), |i| i as f64 / (PIXELS - 1) as f64);
    // What is missing, changed, or of another picture is refused; what follows the end is flagged.
    for length in [30, packed.len() / 2, packed.len() - 3] {
        assert!(file(packed[..length].to_vec()).refused().contains("damaged"));
    }
    assert!(file(packed.clone()).word(tags::ROWS, 33).refused().contains("40x32, but its header says 40x33"));
    assert_eq!(of_radiograph(&file(packed.clone()).open()), []);
    let flags = of_radiograph(&file([&packed[..], b"more"].concat()).open());
    assert!(flags[0].code == FlagCode::DamagedPixels && flags[0].message.contains("4 bytes follow its end"), "{flags:?}");
    for at in 0..packed.len() {
        let mut changed = packed.clone();
        changed[at] ^= 0x55;
        let _ = Radiograph::from_bytes(&file(changed).bytes(), NAME);
    }
}

#[test]
fn sequences_of_unknown_representation_are_stepped_over() {
    let (file, pixels) = (File::new().without(tags::PIXEL_DATA).bytes(), File::new().bytes());
    let (item, item_end, end) = ([0xFE, 0xFF, 0, 0xE0], [0xFE, 0xFF, 0x0D, 0xE0], [0xFE, 0xFF, 0xDD, 0xE0]);
    // The sequence's items are in implicit VR: a tag, a length, a value.
    let inner = [&[0x29, 0, 0x11, 0x10][..], &4u32.to_le_bytes(), &[7; 4]].concat();
    let sequence = |tag: [u8; 4], representation: &[u8; 4], content: &[u8]| {
        [&tag[..], representation, &[0xFF; 4], &item, &[0xFF; 4], content, &item_end, &[0; 4], &end, &[0; 4]].concat()
    };
    let unknown = sequence([0x29, 0, 0x10, 0x10], b"UN\0\0", &inner);
    // By itself, within a sequence that nobody asks for, and within one that is read.
    let within = sequence([0x29, 0, 0x15, 0x10], b"SQ\0\0", &[&unknown[..], &unknown].concat());
    let deep = sequence([0x29, 0, 0x15, 0x10], b"SQ\0\0", &within);
    let region = [&[8, 0, 4, 1, b'L', b'O', 5, 0][..], b"CHEST", &unknown].concat();
    let read = sequence([8, 0, 0x18, 0x22], b"SQ\0\0", &region);
    let whole = |sequence: &[u8]| [&file[..], sequence, &pixels[file.len()..]].concat();
    for sequence in [&unknown, &within, &deep, &read] {
        let opened = Radiograph::from_bytes(&whole(sequence), NAME).unwrap();
        check(&opened, |i| (i * 3) as f64 / LAST);
        assert_eq!(opened.header().body_part.as_deref(), (sequence == &read).then_some("CHEST"));
        for length in [20, sequence.len() / 2, sequence.len() - 1] {
            assert!(refused(&whole(sequence)[..file.len() + length]).contains("does not end"));
        }
    }
}

#[test]
fn the_same_pixels_in_any_container_are_the_same() {
    let (picture, _) = jpeg();
    let png = Radiograph::from_bytes(&encoded(&picture.clone().into(), ImageFormat::Png), NAME).unwrap();
    let pixels = DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(picture.as_raw().clone().into()));
    let dicom = File::new().bits(8, 8, 7, false).window("128", "256", "").put(pixels).open();
    check(&dicom, |i| f64::from(png.intensities().unwrap()[[i / 40, i % 40]]));
    let raw = Radiograph::from_pixels_u8(40, 32, picture.as_raw()).unwrap();
    assert_eq!(raw.intensities().unwrap(), png.intensities().unwrap());
    let wrong = Radiograph::from_pixels_u8(40, 33, picture.as_raw());
    assert!(matches!(wrong, Err(RadiographError::PixelCount { .. })));
}

#[test]
fn the_hash_is_that_of_the_file_however_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chest");
    let mut large = File::new().word(tags::ROWS, 1000).word(tags::COLUMNS, 1500);
    large = large.put(words(tags::PIXEL_DATA, VR::OW, &vec![7; 1_500_000]));
    let picture = encoded(&jpeg().0.into(), ImageFormat::Png);
    for bytes in [large.bytes(), File::new().packed(uids::RLE_LOSSLESS, vec![run_lengths(&ramp())]).bytes(), picture] {
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&path, &bytes).unwrap();
        let opened = Radiograph::open(&path).unwrap();
        assert_eq!(opened.clone().sha256(), hash);
        assert_eq!(opened.mirrored().unwrap().mirrored().unwrap().sha256(), hash);
        assert_eq!(opened.sha256(), hash);
        let read = Radiograph::from_bytes(&bytes, NAME).unwrap();
        assert_eq!((read.sha256(), read.intensities().unwrap()), (&*hash, opened.intensities().unwrap()));
        let mirrored = opened.mirrored().unwrap();
        for (row, other) in opened.intensities().unwrap().outer_iter().zip(mirrored.intensities().unwrap().outer_iter()) {
            assert!(row.iter().eq(other.iter().rev()));
        }
    }
}
