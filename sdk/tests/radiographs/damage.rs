//! Pictures with a part missing: refused, or flagged where they could be read.

use super::file::*;
use anatomix::parts::perception::flags::of_radiograph;
use anatomix::{FlagCode, Radiograph};
use dicom_dictionary_std::{tags, uids};
use image::{GrayImage, ImageFormat};

const SIDES: [u16; 2] = [240, 200];

/// A JPEG with something in it everywhere, and where its compressed data begin.
fn picture() -> (Vec<u8>, usize) {
    let grey = GrayImage::from_fn(SIDES[0].into(), SIDES[1].into(), |x, y| image::Luma([((x * 31) ^ (y * 57)) as u8]));
    let bytes = encoded(&grey.into(), ImageFormat::Jpeg);
    let start = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 10;
    (bytes, start)
}

/// Without a part of its data, or with another in its place; each ends as a JPEG does.
fn spoiled() -> Vec<(String, Vec<u8>)> {
    let (bytes, start) = picture();
    let data = bytes.len() - 2 - start;
    let mut files = Vec::new();
    for part in 1..8 {
        let at = start + data * part / 8;
        files.push((format!("cut at {at}"), [&bytes[..at], &[0xFF, 0xD9]].concat()));
        files.push((format!("without {at} to {}", at + 40), [&bytes[..at], &bytes[at + 40..]].concat()));
        let mut zeros = bytes.clone();
        zeros[at..at + 40].fill(0);
        files.push((format!("with zeros from {at} to {}", at + 40), zeros));
    }
    files
}

#[test]
fn a_jpeg_with_a_part_missing_is_refused_or_flagged() {
    let (whole, _) = picture();
    let file = || File::new().bits(8, 8, 7, false).word(tags::COLUMNS, SIDES[0]).word(tags::ROWS, SIDES[1]);
    let dicom = |bytes: Vec<u8>| file().packed(uids::JPEG_BASELINE8_BIT, vec![bytes]).bytes();
    let check = |name: &str, bytes: &[u8]| match Radiograph::from_bytes(bytes, NAME) {
        Ok(opened) => {
            let flags = of_radiograph(&opened);
            let flag = flags.iter().find(|flag| flag.code == FlagCode::DamagedPixels).unwrap_or_else(|| panic!("{name}: no flag"));
            assert!(flag.message.contains("may be damaged"), "{}", flag.message);
            false
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(&format!("{NAME} is damaged")) && message.contains("copy it again"), "{name}: {message}");
            true
        }
    };
    let files = spoiled();
    let refused = files.iter().filter(|(name, bytes)| check(name, bytes) && check(name, &dicom(bytes.clone()))).count();
    assert!(refused * 2 > files.len(), "{refused} of {} are refused", files.len());
    // A whole one, and one with more behind its last block than belongs there.
    for bytes in [whole.clone(), dicom(whole.clone())] {
        assert_eq!(of_radiograph(&Radiograph::from_bytes(&bytes, NAME).unwrap()), []);
    }
    let (data, end) = whole.split_at(whole.len() - 2);
    let more = [data, &[0x55; 9], end].concat();
    for bytes in [more.clone(), dicom(more)] {
        let flags = of_radiograph(&Radiograph::from_bytes(&bytes, NAME).unwrap());
        assert_eq!(flags.iter().map(|flag| flag.code).collect::<Vec<_>>(), [FlagCode::DamagedPixels]);
    }
}

/// As libjpeg and DCMTK do.
#[test]
fn a_sequential_scan_that_names_some_coefficients_is_read_whole() {
    let (whole, start) = picture();
    let file = || File::new().bits(8, 8, 7, false).word(tags::COLUMNS, SIDES[0]).word(tags::ROWS, SIDES[1]);
    let read = |bytes: &[u8]| file().packed(uids::JPEG_BASELINE8_BIT, vec![bytes.to_vec()]).open();
    let expected = read(&whole);
    for band in [[0, 0, 0], [0, 63, 0x11], [5, 2, 0], [255, 255, 255]] {
        let mut odd = whole.clone();
        odd[start - 3..start].copy_from_slice(&band);
        let opened = read(&odd);
        assert_eq!(opened.intensities().unwrap(), expected.intensities().unwrap());
        let flags = of_radiograph(&opened);
        assert!(flags[0].code == FlagCode::DamagedPixels && flags[0].message.contains("names some of the coefficients"), "{flags:?}");
        assert_ne!(opened.sha256(), expected.sha256());
    }
}

#[test]
fn a_jpeg_2000_with_a_part_missing_is_refused() {
    let dicom = |bytes: &[u8]| File::new().packed(uids::JPEG2000_LOSSLESS, vec![bytes.to_vec()]).bytes();
    assert!(Radiograph::from_bytes(&dicom(JPEG_2000), NAME).is_ok());
    let start = JPEG_2000.windows(2).position(|pair| pair == [0xFF, 0x93]).unwrap() + 2;
    let data = JPEG_2000.len() - 2 - start;
    for part in 1..8 {
        let at = start + data * part / 8;
        for bytes in [&JPEG_2000[..at], &[&JPEG_2000[..at], &[0xFF, 0xD9]].concat(), &[&JPEG_2000[..at], &JPEG_2000[at + 9..]].concat()] {
            assert!(refused(&dicom(bytes)).contains("damaged"));
        }
    }
}

#[test]
fn what_surrounds_a_whole_picture_does_not_matter() {
    let (whole, _) = picture();
    let thumbnail = [&[0xFF, 0xE1, 0, 12][..], b"junk", &[0xFF, 0xD8, 0xFF, 0xD9, 0, 0]].concat();
    let files = [
        [&whole[..2], &thumbnail, &whole[2..]].concat(),
        [&whole[..], &[0; 100]].concat(),
        // Another picture behind the first, as some cameras write it.
        [&whole[..], &whole[..]].concat(),
        [&whole[..whole.len() - 2], &[0xFF, 0xFF, 0xFF], &whole[whole.len() - 2..]].concat(),
    ];
    let expected = Radiograph::from_bytes(&whole, NAME).unwrap();
    for file in files {
        let opened = Radiograph::from_bytes(&file, NAME).unwrap();
        assert_eq!((opened.intensities().unwrap(), of_radiograph(&opened)), (expected.intensities().unwrap(), vec![]));
    }
}

#[test]
fn bytes_after_the_end_are_flagged() {
    let damaged = |bytes: &[u8]| {
        let flags = of_radiograph(&Radiograph::from_bytes(bytes, NAME).unwrap());
        flags.into_iter().find(|flag| flag.code == FlagCode::DamagedPixels).map(|flag| flag.message)
    };
    let png = encoded(&GrayImage::from_fn(64, 40, |x, y| image::Luma([(x + y) as u8])).into(), ImageFormat::Png);
    let jpeg = picture().0;
    let in_dicom = |bytes: &[u8]| {
        let file = File::new().bits(8, 8, 7, false).word(tags::COLUMNS, SIDES[0]).word(tags::ROWS, SIDES[1]);
        file.packed(uids::JPEG_BASELINE8_BIT, vec![bytes.to_vec()]).bytes()
    };
    let run_lengths = |more: &[u8]| File::new().packed(uids::RLE_LOSSLESS, vec![[&run_lengths(&ramp())[..], more].concat()]).bytes();
    let jpeg_2000 = |more: &[u8]| File::new().packed(uids::JPEG2000_LOSSLESS, vec![[JPEG_2000, more].concat()]).bytes();
    let with = |bytes: &[u8], more: &[u8]| [bytes, more].concat();
    for (more, message) in [(&b""[..], None), (b"\0\0\0", None), (b"more", Some("4 bytes follow its end"))] {
        for file in [with(&png, more), with(&jpeg, more), in_dicom(&with(&jpeg, more)), run_lengths(more), jpeg_2000(more)] {
            let found = damaged(&file);
            assert_eq!(found.is_some(), message.is_some(), "{found:?}");
            assert!(found.is_none_or(|found| found.contains(message.unwrap())));
        }
    }
    // In a DICOM frame there is one picture.
    assert!(damaged(&in_dicom(&jpeg.repeat(2))).unwrap().contains(&format!("{} bytes follow its end", jpeg.len())));
}
