use super::*;
use png::{ColorType, Encoder, Filter};
use rstest::rstest;

fn encode(width: u32, height: u32, color: ColorType, depth: BitDepth, filter: Filter) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_filter(filter);
    let length = color.samples() * width as usize * if depth == BitDepth::Sixteen { 2 } else { 1 };
    let row = |y: usize| (0..length).map(move |x| (x * x / 7 + y * 13 + (x * y) % 11) as u8);
    let data: Vec<u8> = (0..height as usize).flat_map(row).collect();
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    bytes
}

/// Grey values and the number of coloured pixels.
type Picture = (Vec<u8>, u64);

/// The picture from both ways of reading; `None` where the first leaves a file to the second.
fn both(bytes: &[u8]) -> (Option<Picture>, Option<Picture>) {
    let mut reader = Decoder::new_with_options(Cursor::new(bytes), options()).read_info().unwrap();
    let (color, depth) = reader.output_color_type();
    let layout = Layout { channels: color.samples(), depth: if depth == BitDepth::Sixteen { Depth::Two } else { Depth::One } };
    let (width, height) = reader.info().size();
    let stride = width as usize * layout.grey().bytes();
    let length = width as usize * layout.channels * layout.depth.bytes();
    assert!(is_plain(reader.info()));
    let mut pixels = vec![0; stride * height as usize];
    let ahead = ahead::read(bytes, options(), layout, length, &mut pixels, stride).map(|rows| (pixels.clone(), rows.coloured));
    pixels.fill(0);
    let library = read(&mut reader, layout, &mut pixels, stride, "x").ok().map(|coloured| (pixels, coloured));
    (ahead, library)
}

#[rstest]
fn both_ways_of_reading_give_the_same(
    #[values(Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth, Filter::Adaptive)] filter: Filter,
    #[values(ColorType::Grayscale, ColorType::GrayscaleAlpha, ColorType::Rgb, ColorType::Rgba)] color: ColorType,
    #[values(BitDepth::Eight, BitDepth::Sixteen)] depth: BitDepth,
) {
    for (width, height) in [(1, 1), (3, 70), (701, 403), (40_000, 5)] {
        let (ahead, library) = both(&encode(width, height, color, depth, filter));
        assert!(ahead.is_some() && ahead == library, "{width}x{height}");
    }
}

#[test]
fn damaged_files_are_left_to_the_library() {
    let bytes = encode(190, 120, ColorType::Grayscale, BitDepth::Eight, Filter::Adaptive);
    let header = bytes.windows(4).position(|part| part == b"IDAT").unwrap() + 4;
    let mut left = 0;
    for at in (header..bytes.len()).step_by(29) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        for damaged in [&flipped[..], &bytes[..at]] {
            let (ahead, library) = both(damaged);
            left += usize::from(ahead.is_none());
            assert!(ahead.is_none() || ahead == library, "at {at}");
        }
    }
    assert!(left > 100, "{left}");
}

#[test]
fn orientation_after_the_pixels_is_read() {
    // A TIFF header, and one entry: orientation 6, a quarter turn.
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut bytes = encode(1100, 1000, ColorType::Grayscale, BitDepth::Eight, Filter::Paeth);
    let end = bytes.split_off(bytes.len() - 12);
    bytes.extend((exif.len() as u32).to_be_bytes());
    let chunk = [b"eXIf", &exif[..]].concat();
    bytes.extend(&chunk);
    bytes.extend(crc32(&chunk).to_be_bytes());
    bytes.extend(end);
    let raster = decode(&bytes, "x").unwrap();
    assert_eq!((raster.width, raster.height), (1000, 1100));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))))
}
