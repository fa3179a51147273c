//! Radiographs as files: DICOM of every accepted form, and whatever else a folder may hold. Nothing panics, and every
//! error names the file and what is wrong.

use anatomix::Radiograph;
use anatomix::radiograph::{Orientation, RadiographError};
use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::{DynamicImage, GrayImage, ImageFormat};
use sha2::{Digest, Sha256};
use std::io::Cursor;

const NAME: &str = "folder/chest.dcm";
/// Retired, but such files are kept.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const COLUMNS: u16 = 40;
const ROWS: u16 = 32;
const PIXELS: usize = COLUMNS as usize * ROWS as usize;

/// The pixels of `ramp`, lossless, 16 bit, as Pillow writes them.
const JPEG_2000: &[u8] = include_bytes!("fixtures/ramp.j2k");

type Element = DataElement<InMemDicomObject>;

/// A file under construction: a valid 12-bit radiograph, until a test changes it.
struct File {
    object: InMemDicomObject,
    syntax: &'static str,
}

fn ramp() -> Vec<u16> {
    (0..PIXELS).map(|i| (i * 3) as u16).collect()
}

fn words(tag: Tag, vr: VR, values: &[u16]) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::U16(values.into()))
}

fn text(tag: Tag, vr: VR, value: &str) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

fn table(tag: Tag, descriptor: &[u16], data: &[u16]) -> Element {
    let item = InMemDicomObject::from_element_iter([words(tags::LUT_DESCRIPTOR, VR::US, descriptor), words(tags::LUT_DATA, VR::OW, data)]);
    DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item]))
}

impl File {
    fn new() -> Self {
        let object = InMemDicomObject::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"),
            text(tags::MODALITY, VR::CS, "CR"),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            words(tags::SAMPLES_PER_PIXEL, VR::US, &[1]),
            words(tags::ROWS, VR::US, &[ROWS]),
            words(tags::COLUMNS, VR::US, &[COLUMNS]),
            words(tags::BITS_ALLOCATED, VR::US, &[16]),
            words(tags::BITS_STORED, VR::US, &[12]),
            words(tags::HIGH_BIT, VR::US, &[11]),
            words(tags::PIXEL_REPRESENTATION, VR::US, &[0]),
            words(tags::PIXEL_DATA, VR::OW, &ramp()),
        ]);
        Self { object, syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN }
    }

    fn put(mut self, element: Element) -> Self {
        self.object.put(element);
        self
    }

    fn word(self, tag: Tag, value: u16) -> Self {
        self.put(words(tag, VR::US, &[value]))
    }

    fn text(self, tag: Tag, vr: VR, value: &str) -> Self {
        self.put(text(tag, vr, value))
    }

    fn without(mut self, tag: Tag) -> Self {
        self.object.remove_element(tag);
        self
    }

    fn pixels(self, values: &[u16]) -> Self {
        self.put(words(tags::PIXEL_DATA, VR::OW, values))
    }

    fn bits(self, allocated: u16, stored: u16, high: u16, signed: bool) -> Self {
        self.word(tags::BITS_ALLOCATED, allocated)
            .word(tags::BITS_STORED, stored)
            .word(tags::HIGH_BIT, high)
            .word(tags::PIXEL_REPRESENTATION, signed.into())
    }

    fn window(self, center: &str, width: &str, function: &str) -> Self {
        let file = self.text(tags::WINDOW_CENTER, VR::DS, center).text(tags::WINDOW_WIDTH, VR::DS, width);
        if function.is_empty() { file } else { file.text(tags::VOILUT_FUNCTION, VR::CS, function) }
    }

    fn packed(mut self, syntax: &'static str, fragments: Vec<Vec<u8>>) -> Self {
        self.syntax = syntax;
        self.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new_fragments(fragments)))
    }

    fn bytes(self) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(self.syntax)
            .media_storage_sop_class_uid(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("2.25.1");
        let mut bytes = Vec::new();
        self.object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }

    fn open(self) -> Radiograph {
        Radiograph::from_bytes(&self.bytes(), NAME).unwrap()
    }

    /// The message of the error, which must name the file.
    fn refused(self) -> String {
        refused(&self.bytes())
    }
}

fn refused(bytes: &[u8]) -> String {
    let message = Radiograph::from_bytes(bytes, NAME).unwrap_err().to_string();
    assert!(message.contains(NAME), "{message}");
    assert!(message.contains(';'), "says what to do: {message}");
    message
}

fn check(radiograph: &Radiograph, expected: impl Fn(usize) -> f64) {
    assert_eq!((radiograph.width(), radiograph.height()), (COLUMNS.into(), ROWS.into()));
    for (i, &found) in radiograph.intensities().iter().enumerate() {
        let expected = expected(i);
        assert!((f64::from(found) - expected).abs() < 1e-6, "pixel {i}: {found}, not {expected}");
    }
}

const LAST: f64 = ((PIXELS - 1) * 3) as f64;

#[test]
fn the_whole_range_is_stretched_without_a_window() {
    check(&File::new().open(), |i| (i * 3) as f64 / LAST);
    check(&File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1").open(), |i| 1.0 - (i * 3) as f64 / LAST);
}

#[test]
fn polarity_is_turned_once() {
    let inverse = |file: File| file.text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "INVERSE").open();
    check(&inverse(File::new()), |i| 1.0 - (i * 3) as f64 / LAST);
    let both = File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    check(&inverse(both), |i| 1.0 - (i * 3) as f64 / LAST);
}

#[test]
fn every_depth_and_sign() {
    let eight: Vec<u8> = (0..PIXELS).map(|i| (i % 256) as u8).collect();
    let bytes = || DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(eight.clone().into()));
    check(&File::new().bits(8, 8, 7, false).put(bytes()).open(), |i| (i % 256) as f64 / 255.0);
    check(&File::new().bits(8, 8, 7, true).put(bytes()).open(), |i| f64::from(i32::from((i % 256) as u8 as i8) + 128) / 255.0);
    let wide: Vec<u16> = (0..PIXELS).map(|i| if i == 0 { 0 } else { 65535 - i as u16 }).collect();
    check(&File::new().bits(16, 16, 15, false).pixels(&wide).open(), |i| if i == 0 { 0.0 } else { (65535 - i) as f64 / 65534.0 });
    // 12 bits in two's complement, high in the word, with an overlay in the bits below.
    let shifted: Vec<u16> = (0..PIXELS).map(|i| ((i as u16).wrapping_sub(600) << 4) | 0b1010).collect();
    check(&File::new().bits(16, 12, 15, true).pixels(&shifted).open(), |i| i as f64 / (PIXELS - 1) as f64);
}

#[test]
fn every_window_function() {
    let value = |i: usize| (i * 3) as f64;
    check(&File::new().window("2000", "1000", "").open(), |i| ((value(i) - 1999.5) / 999.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000\\5", "1000\\7", "LINEAR").open(), |i| ((value(i) - 1999.5) / 999.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000", "1000", "LINEAR_EXACT").open(), |i| ((value(i) - 2000.0) / 1000.0 + 0.5).clamp(0.0, 1.0));
    check(&File::new().window("2000", "1000", "SIGMOID").open(), |i| 1.0 / (1.0 + (-4.0 * (value(i) - 2000.0) / 1000.0).exp()));
    let rescaled = File::new().text(tags::RESCALE_SLOPE, VR::DS, "-2").text(tags::RESCALE_INTERCEPT, VR::DS, "1e3");
    check(&rescaled.window("0", "1000", "LINEAR_EXACT").open(), |i| ((1000.0 - 2.0 * value(i)) / 1000.0 + 0.5).clamp(0.0, 1.0));
}

#[test]
fn tables_of_modality_and_interest() {
    // Downwards by 2 a step, beginning at 100.
    let down: Vec<u16> = (0..1000u16).map(|i| 2000 - 2 * i).collect();
    let modality = || table(tags::MODALITY_LUT_SEQUENCE, &[1000, 100, 12], &down);
    let after = |i: usize| (2000 - 2 * (i as i32 * 3 - 100).clamp(0, 999)) as f64;
    check(&File::new().put(modality()).open(), |i| (after(i) - after(PIXELS - 1)) / (2000.0 - after(PIXELS - 1)));
    // One byte an entry, two to a word, and a window that the table goes before.
    let packed: Vec<u16> = (0..128u16).map(|i| (2 * i) | ((2 * i + 1) << 8)).collect();
    let interest = || table(tags::VOILUT_SEQUENCE, &[256, 1000, 8], &packed);
    let share = |value: f64| (value - 1000.0).clamp(0.0, 255.0) / 255.0;
    check(&File::new().put(interest()).window("0", "0", "").open(), |i| share((i * 3) as f64));
    check(&File::new().put(modality()).put(interest()).open(), |i| share(after(i)));
}

#[test]
fn padding_is_black() {
    let mut values: Vec<u16> = (0..PIXELS).map(|i| 1000 + i as u16).collect();
    values[..100].fill(0);
    values[100..200].fill(4095);
    let padded = |from, to| File::new().pixels(&values).word(tags::PIXEL_PADDING_VALUE, from).word(tags::PIXEL_PADDING_RANGE_LIMIT, to);
    let level = |i: usize| (i as f64 - 200.0) / (4095.0 - 1200.0);
    check(&padded(0, 999).open(), |i| {
        if i < 100 {
            0.0
        } else if i < 200 {
            1.0
        } else {
            level(i)
        }
    });
    let inverted = padded(0, 999).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1").open();
    check(&inverted, |i| if i < 200 { 0.0 } else { 1.0 - level(i) });
    // The limit may be the lower end.
    check(&padded(4095, 4000).open(), |i| if i < 200 { 0.0 } else { (1000 + i) as f64 / (999 + PIXELS) as f64 });
}

/// A table of 65536 entries, whose number does not fit into its descriptor.
fn identity() -> Vec<u16> {
    (0..=u16::MAX).collect()
}

#[test]
fn every_uncompressed_syntax() {
    for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
        let file = || File { syntax, ..File::new().put(table(tags::VOILUT_SEQUENCE, &[4096, 0, 16], &identity()[..4096])) };
        check(&file().open(), |i| (i * 3) as f64 / 65535.0);
        // Without preamble, and without file meta information.
        let bytes = file().bytes();
        assert_eq!(Radiograph::from_bytes(&bytes[128..], NAME).unwrap().intensities(), file().open().intensities());
        let meta = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        assert_eq!(Radiograph::from_bytes(&bytes[144 + meta..], NAME).unwrap().intensities(), file().open().intensities());
    }
}

/// RLE Lossless of 16-bit values, literally.
fn run_lengths(values: &[u16]) -> Vec<u8> {
    let plane = |shift: u32| {
        let bytes: Vec<u8> = values.iter().map(|v| (v >> shift) as u8).collect();
        bytes.chunks(128).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect::<Vec<u8>>()
    };
    let (high, low) = (plane(8), plane(0));
    let mut header = [0u32; 16];
    header[..3].copy_from_slice(&[2, 64, 64 + high.len() as u32]);
    [header.iter().flat_map(|v| v.to_le_bytes()).collect(), high, low].concat()
}

fn jpeg() -> (GrayImage, Vec<u8>) {
    let picture = GrayImage::from_fn(COLUMNS.into(), ROWS.into(), |x, y| image::Luma([(x * 4 + y * 2) as u8]));
    (picture.clone(), encoded(&picture.into(), ImageFormat::Jpeg))
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
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
    for (found, expected) in opened.intensities().iter().zip(picture.as_raw()) {
        assert!((found - f32::from(*expected) / 255.0).abs() < 0.03);
    }
}

#[test]
fn sequences_of_unknown_representation_are_stepped_over() {
    let (file, pixels) = (File::new().without(tags::PIXEL_DATA).bytes(), File::new().bytes());
    let (item, end) = ([0xFE, 0xFF, 0, 0xE0], [0xFE, 0xFF, 0xDD, 0xE0]);
    // Implicit inside: a tag, a length, a value.
    let inner = [&[0x29, 0, 0x11, 0x10][..], &4u32.to_le_bytes(), &[7; 4]].concat();
    let sequence = [&[0x29, 0, 0x10, 0x10], &b"UN\0\0"[..], &[0xFF; 4], &item, &12u32.to_le_bytes(), &inner, &end, &[0; 4]].concat();
    let whole = [&file[..], &sequence, &pixels[file.len()..]].concat();
    check(&Radiograph::from_bytes(&whole, NAME).unwrap(), |i| (i * 3) as f64 / LAST);
    assert!(refused(&whole[..file.len() + 30]).contains("does not end"));
}

#[test]
fn the_header_is_read_and_cleaned() {
    let file = File::new()
        .text(tags::PATIENT_ORIENTATION, VR::CS, "L\\F")
        .text(tags::VIEW_POSITION, VR::CS, "pa")
        .text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST\u{1b}[2J\n")
        .text(tags::IMAGER_PIXEL_SPACING, VR::DS, "0.143\\0.15")
        .text(tags::PIXEL_SPACING, VR::DS, "0\\0")
        .text(tags::STUDY_INSTANCE_UID, VR::UI, "not a uid")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, &"1".repeat(9000));
    let opened = file.open();
    let header = opened.header();
    assert_eq!(header.orientation, Some(Orientation::Standard));
    assert_eq!(header.view_position.as_deref(), Some("PA"));
    assert_eq!(header.body_part.as_deref(), Some("CHEST[2J"));
    assert_eq!(header.modality.as_deref(), Some("CR"));
    assert_eq!(header.photometric.as_deref(), Some("MONOCHROME2"));
    assert_eq!(header.sop_class_uid.as_deref(), Some(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE));
    assert_eq!(header.sop_instance_uid.as_deref(), Some("2.25.1"));
    assert_eq!(header.study_instance_uid, None);
    assert_eq!(header.series_instance_uid.as_ref().map(String::len), Some(64));
    assert_eq!(header.pixel_spacing, Some([0.143, 0.15]));
    assert!(!header.for_processing);
    let bare = File::new().open();
    assert_eq!((bare.header().orientation, bare.header().pixel_spacing), (None, None));
    let turned = |value: &str| File::new().text(tags::PATIENT_ORIENTATION, VR::CS, value).open().header().orientation;
    assert_eq!(turned("R\\F"), Some(Orientation::Mirrored));
    assert_eq!(turned("A\\F"), Some(Orientation::Other));
    assert_eq!(turned("\\"), None);
    assert!(File::new().text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PROCESSING").open().header().for_processing);
}

#[test]
fn what_is_wrong_is_said() {
    let jpeg_bytes = jpeg().1;
    let cases = [
        (File::new().without(tags::PIXEL_DATA), "no pixels"),
        (File::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "7"), "7 frames"),
        (File::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "many"), "\"many\""),
        (File::new().word(tags::SAMPLES_PER_PIXEL, 3).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"), "RGB"),
        (File::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR"), "PALETTE COLOR"),
        (File::new().without(tags::PHOTOMETRIC_INTERPRETATION), "no Photometric Interpretation"),
        (File::new().word(tags::BITS_ALLOCATED, 32), "in 32"),
        (File::new().word(tags::BITS_STORED, 7), "7 bits"),
        (File::new().word(tags::BITS_STORED, 0).without(tags::HIGH_BIT), "0 bits"),
        (File::new().word(tags::BITS_STORED, 17), "17 bits"),
        (File::new().word(tags::HIGH_BIT, 3), "high bit 3"),
        (File::new().word(tags::HIGH_BIT, 65535), "high bit 65535"),
        (File::new().without(tags::BITS_ALLOCATED), "Bits Allocated is missing"),
        (File::new().without(tags::ROWS), "Rows is missing"),
        (File::new().without(tags::COLUMNS), "Columns is missing"),
        (File::new().word(tags::ROWS, 1).word(tags::COLUMNS, 1), "1x1"),
        (File::new().word(tags::ROWS, 65535).word(tags::COLUMNS, 65535), "65535x65535"),
        (File::new().word(tags::ROWS, 20000).word(tags::COLUMNS, 20000), "20000x20000"),
        (File::new().word(tags::ROWS, 9000).word(tags::COLUMNS, 9000), "162000000"),
        (File::new().window("100", "0", ""), "Window Width is 0"),
        (File::new().window("100", "-5", "SIGMOID"), "Window Width is -5"),
        (File::new().window("100", "NaN", ""), "\"NaN\""),
        (File::new().window("wide", "5", ""), "\"wide\""),
        (File::new().window("100", "5", "CUBIC"), "CUBIC"),
        (File::new().text(tags::RESCALE_SLOPE, VR::DS, "0"), "Rescale Slope is 0"),
        (File::new().text(tags::RESCALE_INTERCEPT, VR::DS, "1e999"), "Rescale Intercept"),
        (File::new().put(table(tags::MODALITY_LUT_SEQUENCE, &[16, 0], &[0; 16])), "descriptor of its Modality LUT has 2"),
        (File::new().put(table(tags::MODALITY_LUT_SEQUENCE, &[16, 0, 32], &[0; 16])), "32 bits"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[16, 0, 12], &[0; 15])), "holds 15 entries of the 16"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[0, 0, 16], &[0; 15])), "holds 15 entries of the 65536"),
        (File::new().put(table(tags::VOILUT_SEQUENCE, &[], &[])), "has 0 numbers"),
        (File::new().packed(uids::JPEGLS_LOSSLESS, vec![vec![0; 64]]), "JPEG-LS Lossless Image Compression (1.2.840.10008.1.2.4.80)"),
        (File::new().packed(uids::MPEG2MPML, vec![vec![0; 64]]), "1.2.840.10008.1.2.4.100"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![vec![0; 64]]), "run-length"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![]), "run-length"),
        (File::new().packed(uids::RLE_LOSSLESS, vec![vec![0; 2]; 70_000]), "pieces"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![vec![1; 64]]), "no readable header"),
        (File::new().packed(uids::JPEG2000, vec![vec![1; 64]]), "no readable header"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![jpeg_bytes.clone()]).word(tags::ROWS, 33), "40x32 where its header says 40x33"),
        (File::new().packed(uids::JPEG_BASELINE8_BIT, vec![jpeg_bytes[..jpeg_bytes.len() / 4].to_vec()]), "damaged"),
        (File::new().packed(uids::EXPLICIT_VR_LITTLE_ENDIAN, vec![vec![0; 4 * PIXELS]]), "not packed as"),
    ];
    for (file, expected) in cases {
        let message = file.refused();
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    }
    let mut unknown = File::new().bytes();
    let syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes();
    let at = unknown.windows(syntax.len()).position(|window| window == syntax).unwrap();
    unknown[at..at + syntax.len()].copy_from_slice(b"1.2.3.4.5.6.7.8.9.1");
    assert!(refused(&unknown).contains("an unknown transfer syntax (1.2.3.4.5.6.7.8.9.1)"));
}

#[test]
fn hostile_structure_is_refused_cheaply() {
    let whole = File::new().without(tags::PIXEL_DATA).bytes();
    let with = |tail: &[u8]| [&whole[..], tail].concat();
    // A text, a sequence and pixels of four gigabytes; a delimiter out of place; a million levels.
    let huge = |tag: [u8; 4], vr: &[u8; 2]| [&tag[..], vr, &[0, 0], &0xFFFF_FFF0u32.to_le_bytes()].concat();
    refused(&with(&huge([0x28, 0, 0, 0x30], b"UT")));
    refused(&with(&huge([0x28, 0, 0, 0x30], b"SQ")));
    assert!(refused(&with(&huge([0xE0, 0x7F, 0x10, 0], b"OW"))).contains("too early"));
    let item = [0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
    let end = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
    let sequence = [&[0x28, 0, 0, 0x30], &b"SQ"[..], &[0, 0], &[0xFF; 4]].concat();
    refused(&with(&[&sequence[..], &end, &item].concat()));
    refused(&with(&end));
    let level = [&sequence[..], &item].concat();
    assert!(refused(&with(&level.repeat(1_000_000))).contains("nested"));
}

#[test]
fn no_truncation_and_no_noise_panics() {
    let files = [
        File::new().put(table(tags::VOILUT_SEQUENCE, &[256, 0, 8], &[7; 256])).window("9", "9", "SIGMOID").bytes(),
        File { syntax: uids::IMPLICIT_VR_LITTLE_ENDIAN, ..File::new() }.bytes(),
        File { syntax: BIG_ENDIAN, ..File::new() }.bytes(),
        File::new().packed(uids::RLE_LOSSLESS, vec![run_lengths(&ramp())]).bytes(),
        File::new().bits(8, 8, 7, false).packed(uids::JPEG_BASELINE8_BIT, vec![jpeg().1]).bytes(),
        File::new().packed(uids::JPEG2000_LOSSLESS, vec![JPEG_2000.to_vec()]).bytes(),
        jpeg().1,
        encoded(&jpeg().0.into(), ImageFormat::Png),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for whole in &files {
        let mut opened = 0;
        for length in (1..whole.len()).step_by(7) {
            match Radiograph::from_bytes(&whole[..length], NAME) {
                Ok(_) => opened += 1,
                Err(error) => assert!(error.to_string().contains(NAME)),
            }
        }
        // Only what follows the pixels may be missing.
        assert!(opened <= 3, "{opened} truncated files were opened");
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = if random() % 2 == 0 { random() % bytes.len() } else { random() % bytes.len().min(600) };
                bytes[at] = random() as u8;
            }
            if let Err(error) = Radiograph::from_bytes(&bytes, NAME) {
                assert!(error.to_string().contains(NAME));
            }
        }
    }
    for length in 0..600 {
        let noise: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        refused(&noise);
        let mut after_magic = noise.clone();
        if length >= 132 {
            after_magic[128..132].copy_from_slice(b"DICM");
            refused(&after_magic);
        }
    }
}

#[test]
fn other_files_are_refused_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let small = GrayImage::new(1, 1);
    std::fs::write(path("small.png"), encoded(&small.clone().into(), ImageFormat::Png)).unwrap();
    std::fs::write(path("small.jpg"), encoded(&small.into(), ImageFormat::Jpeg)).unwrap();
    std::fs::write(path("empty.dcm"), []).unwrap();
    std::fs::write(path("notes.txt"), "No acute findings.").unwrap();
    let message = |name: &str| {
        let message = Radiograph::open(path(name)).unwrap_err().to_string();
        assert!(message.contains(&path(name).display().to_string()), "{message}");
        message
    };
    assert!(message("small.png").contains("1x1"));
    assert!(message("small.jpg").contains("1x1"));
    assert!(message("empty.dcm").contains("empty"));
    assert!(message("notes.txt").contains("not a DICOM, PNG or JPEG"));
    assert!(message("missing.dcm").contains("check the path"));
    assert!(message("").contains("folder"));
}

#[test]
fn the_same_pixels_in_any_container_are_the_same() {
    let (picture, _) = jpeg();
    let png = Radiograph::from_bytes(&encoded(&picture.clone().into(), ImageFormat::Png), NAME).unwrap();
    let pixels = DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(picture.as_raw().clone().into()));
    let dicom = File::new().bits(8, 8, 7, false).window("128", "256", "").put(pixels).open();
    check(&dicom, |i| f64::from(png.intensities()[[i / 40, i % 40]]));
    let raw = Radiograph::from_pixels_u8(40, 32, picture.as_raw()).unwrap();
    assert_eq!(raw.intensities(), png.intensities());
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
        assert_eq!(opened.mirrored().sha256(), hash);
        assert_eq!(opened.sha256(), hash);
        let read = Radiograph::from_bytes(&bytes, NAME).unwrap();
        assert_eq!((read.sha256(), read.intensities()), (&*hash, opened.intensities()));
        let mirrored = opened.mirrored();
        for (row, other) in opened.intensities().outer_iter().zip(mirrored.intensities().outer_iter()) {
            assert!(row.iter().eq(other.iter().rev()));
        }
    }
}
