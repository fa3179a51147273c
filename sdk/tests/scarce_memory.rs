//! If memory is scarce, a radiograph that needs more is an error, and the program goes on. The allocator of this test program refuses
//! allocations beyond a limit; one that a library made without checking would abort the program.

use anatomix::error::RadiographError;
use anatomix::output::Overlay;
use anatomix::{Histogram, Preprocess, Radiograph};
use cap::Cap;
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::{DynamicImage, ImageFormat};
use jpeg_encoder::{ColorType, Encoder};
use std::alloc::System;
use std::io::{Cursor, Write};
use std::sync::{Mutex, MutexGuard};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const SIDES: [u16; 2] = [1200, 1000];
const PIXELS: usize = SIDES[0] as usize * SIDES[1] as usize;
/// What does not follow from a file: tables, threads.
const FIXED: usize = 8 << 20;

/// The allocator is one for all tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The least memory with which `open` succeeds; every lesser amount must be refused.
fn least<T>(open: impl Fn() -> Result<T, RadiographError>) -> usize {
    open().unwrap();
    let limits = std::iter::successors(Some(2 << 20), |limit| Some(limit + (limit / 6).max(1 << 18)));
    for limit in limits {
        MEMORY.set_limit(MEMORY.allocated() + limit).unwrap();
        let opened = open().map(|_| ());
        MEMORY.set_limit(usize::MAX).unwrap();
        match opened {
            Ok(()) => return limit,
            Err(RadiographError::Memory { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(limit < 1 << 30, "it is never enough");
    }
    unreachable!()
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    (0..count).map(|i| (i % 200) as u8 + next()).collect()
}

fn jpeg(channels: usize, progressive: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 80);
    encoder.set_progressive(progressive);
    let color = if channels == 1 { ColorType::Luma } else { ColorType::Rgb };
    encoder.encode(&noise(PIXELS * channels), SIDES[0], SIDES[1], color).unwrap();
    bytes
}

fn png(image: DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn png16(channels: usize) -> Vec<u8> {
    let image = DynamicImage::ImageRgb8(image::RgbImage::from_raw(SIDES[0].into(), SIDES[1].into(), noise(3 * PIXELS)).unwrap());
    png(if channels == 1 { image.into_luma16().into() } else { image.into_rgba16().into() })
}

fn dicom(bits: u16, syntax: &str, pixels: DataElement<InMemDicomObject>) -> Vec<u8> {
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let object = InMemDicomObject::from_element_iter([
        DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PrimitiveValue::from("MONOCHROME2")),
        word(tags::SAMPLES_PER_PIXEL, 1),
        word(tags::ROWS, SIDES[1]),
        word(tags::COLUMNS, SIDES[0]),
        word(tags::BITS_ALLOCATED, bits),
        word(tags::BITS_STORED, bits),
        word(tags::HIGH_BIT, bits - 1),
        word(tags::PIXEL_REPRESENTATION, 0),
        pixels,
    ]);
    let meta = FileMetaTableBuilder::new().transfer_syntax(syntax).media_storage_sop_class_uid("1.2").media_storage_sop_instance_uid("1.2");
    let mut bytes = Vec::new();
    object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    bytes
}

fn native(syntax: &str) -> Vec<u8> {
    let words: Vec<u16> = noise(PIXELS).into_iter().map(u16::from).collect();
    dicom(16, syntax, DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())))
}

fn packed(bits: u16, syntax: &str, fragment: Vec<u8>) -> Vec<u8> {
    dicom(bits, syntax, DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new_fragments(vec![fragment])))
}

/// A picture of one value in lossless JPEG: each difference is a bit that says that there is none.
fn lossless() -> Vec<u8> {
    let [x, y] = SIDES.map(u16::to_be_bytes);
    let table = [&[0xFF, 0xC4, 0, 20, 0, 1][..], &[0; 15], &[0]].concat();
    let frame = [&[0xFF, 0xC3, 0, 11, 16][..], &y, &x, &[1, 1, 0x11, 0]].concat();
    let scan = [0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0];
    [&[0xFF, 0xD8][..], &table, &frame, &scan, &vec![0; PIXELS.div_ceil(8)], &[0xFF, 0xD9]].concat()
}

/// A picture of one colour: a run of 128 values for every two bytes, in two planes.
fn run_lengths() -> Vec<u8> {
    let plane = [129u8, 7].repeat(PIXELS.div_ceil(128));
    let mut header = [0u32; 16];
    header[..3].copy_from_slice(&[2, 64, 64 + plane.len() as u32]);
    [header.iter().flat_map(|value| value.to_le_bytes()).collect(), plane.clone(), plane].concat()
}

#[test]
fn what_cannot_be_had_is_an_error_and_what_is_taken_is_bounded() {
    let _alone = alone();
    let grey = image::GrayImage::from_raw(SIDES[0].into(), SIDES[1].into(), noise(PIXELS)).unwrap();
    // For each its bytes a pixel, and how often the file's own are copied.
    let files = [
        ("PNG of 8 bits", png(grey.into()), 1.0, 0),
        ("PNG of 16 bits", png16(1), 2.0, 0),
        ("PNG of 64 bits", png16(4), 2.0, 0),
        ("JPEG", jpeg(1, false), 1.0, 2),
        ("coloured JPEG", jpeg(3, false), 3.0, 2),
        ("progressive JPEG", jpeg(1, true), 3.5, 2),
        ("coloured progressive JPEG", jpeg(3, true), 10.0, 2),
        ("DICOM", native(uids::EXPLICIT_VR_LITTLE_ENDIAN), 2.25, 0),
        ("DICOM, big-endian", native("1.2.840.10008.1.2.2"), 2.25, 0),
        ("DICOM with a JPEG", packed(8, uids::JPEG_BASELINE8_BIT, jpeg(1, false)), 11.5, 4),
        ("DICOM with a lossless JPEG", packed(16, uids::JPEG_LOSSLESS_SV1, lossless()), 11.5, 4),
        ("DICOM with a JPEG 2000", packed(16, uids::JPEG2000_LOSSLESS, include_bytes!("flat.j2k").to_vec()), 11.5, 4),
        ("DICOM with run lengths", packed(16, uids::RLE_LOSSLESS, run_lengths()), 2.25, 0),
    ];
    for (name, bytes, per_pixel, copies) in files {
        let least = least(|| Radiograph::from_bytes(&bytes, name));
        let bound = (per_pixel * PIXELS as f64) as usize + copies * bytes.len() + FIXED;
        println!(
            "{name}: {} bytes, {least} to read it, {:.1} a pixel",
            bytes.len(),
            least.saturating_sub(bytes.len()) as f64 / PIXELS as f64
        );
        assert!(least <= bound, "{name} takes {least} bytes, more than {bound}");
        assert!(per_pixel <= Radiograph::BYTES_PER_PIXEL as f64);
    }
}

#[test]
fn a_picture_is_prepared_in_bounded_memory() {
    let _alone = alone();
    for (width, height) in [(1200, 1000), (300, 20_000), (20_000, 300), (4000, 3000)] {
        let radiograph = Radiograph::from_pixels_u8(width, height, &noise((width * height) as usize)).unwrap();
        let preprocess = Preprocess { version: 1, size: 224, histogram: Histogram::Equalize };
        let least = least(|| radiograph.preprocess(&preprocess));
        println!("{width}x{height}: {least} bytes to prepare it");
        // Beside the pixels themselves: what occurs in each quarter of a million of them, and some rows for each thread.
        assert!(least <= (width * height) as usize + std::thread::available_parallelism().unwrap().get() * (23 << 20) + FIXED, "{least}");
    }
}

#[test]
fn an_overlay_is_drawn_in_bounded_memory() {
    let _alone = alone();
    for (width, height) in [(8000, 1500), (1500, 8000)] {
        let radiograph = Radiograph::from_pixels_u8(width, height, &noise((width * height) as usize)).unwrap();
        let least = least(|| Overlay::new(&radiograph, Vec::new()));
        println!("{width}x{height}: {least} bytes to draw it");
        // A copy of the pixels, and one that has the new width of at most 1,100 pixels.
        let bound = (width * height) as usize + 1100 * height as usize + 2 * FIXED;
        assert!(least <= bound + bound / 6, "{least}");
    }
}

#[test]
fn copies_of_the_pixels_are_refused_and_clones_make_none() {
    let _alone = alone();
    let (width, height) = (4000, 3000);
    let pixels = (width * height) as usize;
    let radiograph = Radiograph::from_pixels_u8(width, height, &noise(pixels)).unwrap();
    // A clone has not computed its intensities yet.
    let intensities = least(|| radiograph.clone().intensities().map(|_| ()));
    let mirrored = least(|| radiograph.mirrored());
    println!("{width}x{height}: {intensities} bytes for its intensities, {mirrored} for its mirror image");
    assert!((4 * pixels..4 * pixels * 7 / 6 + FIXED).contains(&intensities) && (pixels..pixels * 7 / 6 + FIXED).contains(&mirrored));
    radiograph.intensities().unwrap();
    MEMORY.set_limit(MEMORY.allocated() + (1 << 19)).unwrap();
    let clone = radiograph.clone();
    let (low, high) = (clone.intensities().unwrap()[[0, 0]], clone.intensities().unwrap()[[0, 150]]);
    MEMORY.set_limit(usize::MAX).unwrap();
    assert!(low < high);
}

#[test]
fn small_files_do_not_unpack_to_large_ones() {
    let _alone = alone();
    // A colour profile of 64 megabytes, and texts.
    let profile = deflated(64 << 20);
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let sum = crc32(&[&kind[..], data].concat());
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &sum.to_be_bytes()].concat()
    };
    let small = png(DynamicImage::new_luma8(64, 64));
    for (kind, head) in [(b"iCCP", &b"x\0\0"[..]), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\x01\0\0\0")] {
        let data = [head, &profile].concat();
        let file = [&small[..33], &chunk(kind, &data), &small[33..]].concat();
        let least = least(|| Radiograph::from_bytes(&file, "small.png"));
        assert!(least <= 8 << 20, "{least}");
    }
    // A DICOM whose deflated data set goes on for 128 megabytes behind its pixels.
    let whole = native(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let start = 144 + u32::from_le_bytes(whole[140..144].try_into().unwrap()) as usize;
    let mut meta = native(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
    meta.truncate(144 + u32::from_le_bytes(meta[140..144].try_into().unwrap()) as usize);
    let mut encoder = flate2::write::DeflateEncoder::new(meta, flate2::Compression::fast());
    encoder.write_all(&whole[start..]).unwrap();
    (0..128).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
    let file = encoder.finish().unwrap();
    let least = least(|| Radiograph::from_bytes(&file, "deflated.dcm"));
    println!("deflated: {} bytes, {least} to read it", file.len());
    assert!(least <= 4 * PIXELS + (16 << 20) + FIXED, "{least}");
}

/// So many zeros in the form that PNG uses.
fn deflated(count: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    (0..count >> 20).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
    encoder.finish().unwrap()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
