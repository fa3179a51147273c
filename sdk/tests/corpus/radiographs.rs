//! The damaged and odd radiographs that trials found, with what must come of each: an error that says so, or the flags of what was read.

#[path = "../radiographs/file.rs"]
#[allow(dead_code)]
mod file;

use anatomix::parts::perception::flags::of_radiograph;
use anatomix::{FlagCode, Radiograph};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use file::{File, JPEG_2000, PIXELS, encoded, jpeg, ramp, run_lengths};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use std::io::Write;

/// What must come of a file.
#[derive(Clone)]
enum Outcome {
    /// An error that contains this text.
    Refused(&'static str),
    /// A radiograph with these flags.
    Flags(&'static [FlagCode]),
    /// Either an error of damage or a radiograph that is flagged as damaged.
    Damaged,
}
use Outcome::*;

type Case = (String, Vec<u8>, Outcome);

const JPEG_SIDES: [u16; 2] = [240, 200];

/// A JPEG without empty areas, and where its entropy-coded data begin.
fn textured() -> (Vec<u8>, usize) {
    let picture = GrayImage::from_fn(JPEG_SIDES[0].into(), JPEG_SIDES[1].into(), |x, y| image::Luma([((x * 31) ^ (y * 57)) as u8]));
    let bytes = encoded(&picture.into(), ImageFormat::Jpeg);
    let start = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 10;
    (bytes, start)
}

/// A DICOM file with this JPEG.
fn dicom_of(jpeg: &[u8]) -> Vec<u8> {
    let file = File::new().bits(8, 8, 7, false).word(tags::COLUMNS, JPEG_SIDES[0]).word(tags::ROWS, JPEG_SIDES[1]);
    file.packed(uids::JPEG_BASELINE8_BIT, vec![jpeg.to_vec()]).bytes()
}

/// JPEGs with a part missing, each as a file and in a DICOM file.
fn damaged() -> Vec<Case> {
    let (whole, start) = textured();
    let (middle, end) = ((start + whole.len()) / 2, whole.len() - 2);
    let zeros = [&whole[..middle], &[0; 60], &whole[middle + 60..]].concat();
    let files = [
        ("whole", whole.clone(), Flags(&[])),
        ("cut", whole[..middle].to_vec(), Refused("damaged")),
        ("cut and closed again", [&whole[..middle], &whole[end..]].concat(), Refused("missing")),
        ("with a hole", [&whole[..middle], &whole[middle + 60..]].concat(), Damaged),
        ("with zeros in it", zeros, Damaged),
        ("with data left over", [&whole[..end], &[0x55; 9], &whole[end..]].concat(), Flags(&[FlagCode::DamagedPixels])),
        ("of two pictures", [&whole[..start], &whole].concat(), Refused("damaged")),
    ];
    let both = files.into_iter().flat_map(|(name, bytes, outcome)| {
        [(format!("a DICOM with a JPEG {name}"), dicom_of(&bytes), outcome.clone()), (format!("a JPEG {name}"), bytes, outcome)]
    });
    both.collect()
}

/// Images that are not frontal chest radiographs, or not certainly.
fn other_images() -> Vec<Case> {
    let mut cases = Vec::new();
    let classes = [
        ("CT", uids::CT_IMAGE_STORAGE),
        ("MR", uids::MR_IMAGE_STORAGE),
        ("US", uids::ULTRASOUND_IMAGE_STORAGE),
        ("MG", uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION),
        ("PT", uids::POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE),
        ("SEG", uids::SEGMENTATION_STORAGE),
    ];
    for (modality, class) in classes {
        let file = || File::new().without(tags::MODALITY);
        let stated = file().text(tags::SOP_CLASS_UID, VR::UI, class).bytes();
        let in_meta = File { class, ..file().without(tags::SOP_CLASS_UID) }.bytes();
        cases.push((format!("{modality} without a modality"), stated, Flags(&[FlagCode::NotChest])));
        cases.push((format!("{modality} by its file meta information alone"), in_meta, Flags(&[FlagCode::NotChest])));
    }
    let oriented = |value: &str| File::new().text(tags::PATIENT_ORIENTATION, VR::CS, value).bytes();
    for value in ["A\\F", "L\\H", "F\\L"] {
        cases.push((format!("orientation {value}"), oriented(value), Flags(&[FlagCode::NotFrontal])));
    }
    cases.push(("orientation L\\F".into(), oriented("L\\F"), Flags(&[])));
    for (part, flags) in [("SCRIBE", &[FlagCode::NotChest][..]), ("RIB", &[])] {
        let file = File::new().text(tags::BODY_PART_EXAMINED, VR::CS, part);
        cases.push((format!("body part {part}"), file.bytes(), Flags(flags)));
    }
    let colour = RgbImage::from_fn(100, 80, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, 90]));
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        cases.push((format!("a photograph as {format:?}"), encoded(&colour.clone().into(), format), Flags(&[FlagCode::Colour])));
    }
    cases
}

/// Data of several frames, whatever the header says of their number.
fn frames() -> Vec<Case> {
    let twice = || File::new().pixels(&ramp().repeat(2));
    let mut cases = vec![("two frames without a number".into(), twice().bytes(), Refused("2 frames"))];
    for number in ["0", "-3", "1"] {
        let file = twice().text(tags::NUMBER_OF_FRAMES, VR::IS, number);
        cases.push((format!("two frames, said to be {number}"), file.bytes(), Refused("2 frames")));
    }
    let packed = |syntax, frame: Vec<u8>| File::new().packed(syntax, vec![frame; 2]).bytes();
    cases.push(("two frames of run lengths".into(), packed(uids::RLE_LOSSLESS, run_lengths(&ramp())), Refused("2 frames")));
    cases.push(("two frames of JPEG 2000".into(), packed(uids::JPEG2000_LOSSLESS, JPEG_2000.to_vec()), Refused("2 frames")));
    cases
}

/// Private sequences of unknown representation and undefined length, alone and inside another sequence.
fn unknown_sequences() -> Vec<Case> {
    let (head, whole) = (File::new().without(tags::PIXEL_DATA).bytes(), File::new().bytes());
    let (item, item_end, end) = ([0xFE, 0xFF, 0, 0xE0], [0xFE, 0xFF, 0x0D, 0xE0], [0xFE, 0xFF, 0xDD, 0xE0]);
    let sequence = |representation: &[u8; 4], content: &[u8]| {
        [&[0x29, 0, 0x10, 0x10][..], representation, &[0xFF; 4], &item, &[0xFF; 4], content, &item_end, &[0; 4], &end, &[0; 4]].concat()
    };
    let unknown = sequence(b"UN\0\0", &[0x29, 0, 0x11, 0x10, 4, 0, 0, 0, 7, 7, 7, 7]);
    let inside = sequence(b"SQ\0\0", &unknown);
    let file = |sequence: &[u8]| [&head[..], sequence, &whole[head.len()..]].concat();
    vec![
        ("an unknown sequence".into(), file(&unknown), Flags(&[])),
        ("an unknown sequence in a sequence".into(), file(&inside), Flags(&[])),
        ("an unknown sequence that does not end".into(), file(&unknown)[..head.len() + 30].to_vec(), Refused("does not end")),
    ]
}

/// Small files that announce or unpack to far more. `sdk/tests/scarce_memory.rs` measures what reading such files takes.
fn large_from_small() -> Vec<Case> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut sum = flate2::Crc::new();
        sum.update(&[&kind[..], data].concat());
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &sum.sum().to_be_bytes()].concat()
    };
    let mut profile = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    profile.write_all(&vec![0; 16 << 20]).unwrap();
    let profile = [&b"x\0\0"[..], &profile.finish().unwrap()].concat();
    let png = encoded(&jpeg().0.into(), ImageFormat::Png);
    let header = |width: u32, height: u32| [&width.to_be_bytes()[..], &height.to_be_bytes(), &[16, 6, 0, 0, 0]].concat();
    let huge = [&png[..8], &chunk(b"IHDR", &header(65535, 65535)), &png[33..]].concat();
    vec![
        ("a PNG with a colour profile of 16 MiB".into(), [&png[..33], &chunk(b"iCCP", &profile), &png[33..]].concat(), Flags(&[])),
        ("a PNG of 65535 x 65535".into(), huge, Refused("65535x65535")),
        ("a DICOM of 65535 x 65535".into(), File::new().word(tags::ROWS, 65535).word(tags::COLUMNS, 65535).bytes(), Refused("65535x65535")),
        ("a DICOM with less data than pixels".into(), File::new().pixels(&ramp()[..PIXELS / 2]).bytes(), Refused("implies")),
    ]
}

/// A PNG with EXIF data that say it lies on its side, and the same with data that say nothing.
fn turned() -> Vec<Case> {
    let exif = |orientation: u8| [&b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0], &[0; 4]].concat();
    let jpeg = jpeg().1;
    let with = |exif: &[u8]| {
        let length = (8 + exif.len() as u16).to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", exif, &jpeg[2..]].concat()
    };
    let cut = b"II\x2a\0\xff\xff\xff\xff".to_vec();
    vec![("a JPEG on its side".into(), with(&exif(6)), Flags(&[])), ("a JPEG with broken EXIF data".into(), with(&cut), Flags(&[]))]
}

#[test]
fn every_case_comes_out_as_it_must() {
    let groups = [damaged(), other_images(), frames(), unknown_sequences(), large_from_small(), turned()];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    let mut problems = Vec::new();
    for (name, bytes, expected) in &cases {
        let found = Radiograph::from_bytes(bytes, name);
        let flags = found.as_ref().map(|radiograph| of_radiograph(radiograph).iter().map(|flag| flag.code).collect::<Vec<_>>());
        let is_right = match (&flags, expected) {
            (Err(error), Refused(text)) => error.to_string().contains(name) && error.to_string().contains(text),
            (Ok(flags), Flags(expected)) => flags == expected,
            (Ok(flags), Damaged) => flags == &[FlagCode::DamagedPixels],
            (Err(error), Damaged) => error.to_string().contains("is damaged"),
            _ => false,
        };
        if !is_right {
            problems.push(format!("{name}: {flags:?}"));
        }
        if name == "a JPEG on its side" {
            assert!(found.is_ok_and(|radiograph| radiograph.width() < radiograph.height()));
        }
    }
    assert!(problems.is_empty(), "of {} cases:\n{}", cases.len(), problems.join("\n"));
}
