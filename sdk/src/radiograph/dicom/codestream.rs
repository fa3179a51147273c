//! Headers of JPEG, JPEG-LS and JPEG 2000 codestreams: sizes and precision of the picture.

use crate::radiograph::stored::Depth;

/// What a codestream announces.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    pub width: u32,
    pub height: u32,
    pub components: u32,
    /// Bits of a value.
    pub precision: u32,
    /// The marker of a JPEG's or JPEG-LS's frame header; 0 for JPEG 2000.
    pub process: u8,
    /// A feature of the codestream that the decoder does not support, or that would be too expensive.
    pub obstacle: Option<&'static str>,
}

impl Frame {
    /// How many bytes a decompressed value has.
    pub fn depth_of_value(&self) -> Depth {
        match (self.precision, self.process) {
            (8, _) => Depth::One,
            (..8, 1..) => Depth::One,
            _ => Depth::Two,
        }
    }
}

/// The frame header of a sequential process that may have 12 bits (SOF1).
pub(super) const EXTENDED: u8 = 0xC1;

/// Reads the frame header (SOF) of a JPEG.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Frame> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        let &[0xFF, marker, ref after @ ..] = rest else { return None };
        rest = match marker {
            // Fill bytes, and markers without a segment.
            0xFF => rest.get(1..)?,
            0x01 | 0xD0..=0xD7 => after,
            0xD8..=0xDA => return None,
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let &[_, _, precision, y0, y1, x0, x1, components] = after.first_chunk()?;
                let obstacle = match (marker, precision) {
                    (0xC0..=0xC2, 8) | (EXTENDED, 12) | (0xC3, 2..=16) => None,
                    (0xC2, 12) => Some("12 bits in progressive scans"),
                    (0xC0..=0xC2, _) => Some("a precision that is not 8 or 12 bits"),
                    (0xC3, _) => Some("more than 16 bits"),
                    _ => Some("a rare process"),
                };
                return Some(Frame {
                    width: u16::from_be_bytes([x0, x1]).into(),
                    height: u16::from_be_bytes([y0, y1]).into(),
                    components: components.into(),
                    precision: precision.into(),
                    process: marker,
                    obstacle,
                });
            }
            _ => after.get(usize::from(u16::from_be_bytes(*after.first_chunk()?))..)?,
        };
    }
}

/// Reads the headers of a JPEG-LS (ITU-T T.87, C.2): of its frame (SOF55), and of the scan, which the decoder does not check.
pub(super) fn jpeg_ls(bytes: &[u8]) -> Option<Frame> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    let mut frame: Option<Frame> = None;
    loop {
        let &[0xFF, marker, ref after @ ..] = rest else { return None };
        let segment = after.get(2..usize::from(u16::from_be_bytes(*after.first_chunk()?)))?;
        match (marker, segment) {
            (0xF7, &[precision, y0, y1, x0, x1, components, ..]) => {
                frame = Some(Frame {
                    width: u16::from_be_bytes([x0, x1]).into(),
                    height: u16::from_be_bytes([y0, y1]).into(),
                    components: components.into(),
                    precision: precision.into(),
                    process: marker,
                    obstacle: (!(2..=16).contains(&precision)).then_some("a precision that is not 2 to 16 bits"),
                });
            }
            (0xDA, &[count, ref rest @ ..]) => {
                let mut frame = frame?;
                let &[.., near, interleave, transform] = rest else { return None };
                let is_single = count == 1 && interleave == 0 && rest.len() == 5;
                let most = (1u32 << frame.precision.min(16)) / 2;
                frame.obstacle = frame.obstacle.or(match (is_single, transform) {
                    (true, 0) if u32::from(near) < most => None,
                    (true, 0) => Some("a permitted error that is larger than its values"),
                    (true, _) => Some("a point transform"),
                    _ => Some("interleaved scans"),
                });
                return Some(frame);
            }
            _ => {}
        }
        rest = &after[2 + segment.len()..];
    }
}

/// What follows the end of a JPEG-LS, whose data have no marker in them (T.87, C.1.1).
pub(super) fn after_jpeg_ls(bytes: &[u8]) -> &[u8] {
    let scan = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap_or(bytes.len());
    let end = bytes[scan..].windows(2).position(|pair| pair == [0xFF, 0xD9]).map_or(bytes.len(), |at| scan + at + 2);
    &bytes[end..]
}

/// Largest offset of a JPEG 2000 codestream. It may be preceded by the boxes of a JP2 file.
const MAX_OFFSET: usize = 4096;
/// Most tiles. The decoder allocates some kilobytes for each tile before it reads any.
const MAX_TILES: u64 = 1 << 14;

/// Reads the image and tile size (SIZ) of a JPEG 2000.
pub(super) fn jpeg_2000(bytes: &[u8]) -> Option<Frame> {
    let head = bytes.get(..MAX_OFFSET).unwrap_or(bytes);
    let start = head.windows(4).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51])?;
    let siz = bytes.get(start + 4..)?.first_chunk::<41>()?;
    let number = |at: usize| siz[at..at + 4].iter().fold(0u32, |n, &byte| n << 8 | u32::from(byte));
    let (x, y, x0, y0) = (number(4), number(8), number(12), number(16));
    let (tile_x, tile_y) = (number(20), number(24));
    let (width, height) = (x.checked_sub(x0)?, y.checked_sub(y0)?);
    let tiles = u64::from(x.div_ceil(tile_x.max(1))) * u64::from(y.div_ceil(tile_y.max(1)));
    let [depth, step_x, step_y] = [siz[38], siz[39], siz[40]];
    Some(Frame {
        width,
        height,
        components: u16::from_be_bytes([siz[36], siz[37]]).into(),
        precision: u32::from(depth & 0x7F) + 1,
        process: 0,
        obstacle: match (depth & 0x7F, step_x, step_y) {
            (16.., _, _) => Some("more than 16 bits"),
            (_, 1, 1) if tiles <= MAX_TILES => None,
            (_, 1, 1) => Some("too many tiles"),
            _ => Some("subsampling"),
        },
    })
}

/// What follows the end of a JPEG 2000 (ITU-T T.800, annex A), or of the boxes of a JP2 file (annex I) around it. Nothing, if its parts do
/// not lead to its end.
pub(super) fn after_jpeg_2000(bytes: &[u8]) -> &[u8] {
    if let Some(after) = after_codestream(bytes) {
        return after;
    }
    let (mut rest, mut has_picture) = (bytes, false);
    while let Some((kind, content, after)) = next_box(rest) {
        if kind == b"jp2c" {
            has_picture = true;
            let surplus = after_codestream(content).unwrap_or_default();
            if surplus.iter().any(|&byte| byte != 0) {
                return surplus;
            }
        }
        rest = after;
    }
    if has_picture { rest } else { &[] }
}

/// The type and the content of the first box, and what follows it. `None` if there is no whole box.
fn next_box(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let kind: &[u8; 4] = rest.first_chunk()?;
    let (start, end) = match u32::from_be_bytes(*length) {
        0 => (8, bytes.len()),
        1 => (16, usize::try_from(u64::from_be_bytes(*bytes.get(8..)?.first_chunk()?)).ok()?),
        length => (8, usize::try_from(length).ok()?),
    };
    kind.iter().all(|&c| matches!(c, b' '..=b'~')).then_some((kind, bytes.get(start..end)?, bytes.get(end..)?))
}

/// What follows the end marker (EOC) of a codestream that begins here, found along its marker segments and tile-parts.
fn after_codestream(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0x4F])?;
    // A tile-part of unknown length reaches to the end of the codestream.
    let mut is_last = false;
    loop {
        let &[0xFF, marker, ref after @ ..] = rest else { return None };
        let is_data = marker == 0x93 && is_last;
        if marker == 0xD9 || is_data {
            let data = if is_data { after.windows(2).position(|pair| pair == [0xFF, 0xD9])? + 2 } else { 0 };
            return after.get(data..);
        }
        let segment = 2 + usize::from(u16::from_be_bytes(*after.first_chunk()?)).max(2);
        let length = match marker {
            // The length of a tile-part is counted from its first marker (SOT).
            0x90 => usize::try_from(u32::from_be_bytes(*after.get(4..)?.first_chunk()?)).ok()?,
            _ => segment,
        };
        is_last |= marker == 0x90 && length == 0;
        rest = rest.get(length.max(segment)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_header_is_found_after_other_segments() {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, 0xC3, 0, 11, 12, 1, 0, 2, 0, 1, 1, 0x11, 0];
        let frame = Frame { width: 512, height: 256, components: 1, precision: 12, process: 0xC3, obstacle: None };
        assert_eq!(jpeg(&bytes), Some(frame));
        bytes[10] = 0xC1;
        assert_eq!(jpeg(&bytes).unwrap().obstacle, None);
        bytes[10] = 0xC2;
        assert_eq!(jpeg(&bytes).unwrap().obstacle, Some("12 bits in progressive scans"));
        bytes[13] = 10;
        assert_eq!(jpeg(&bytes).unwrap().obstacle, Some("a precision that is not 8 or 12 bits"));
        for length in 0..19 {
            assert_eq!(jpeg(&bytes[..length]), None);
        }
    }

    #[test]
    fn the_headers_of_a_jpeg_ls_are_read_up_to_its_data() {
        let frame = [0xFF, 0xF7, 0, 11, 12, 1, 0, 2, 0, 1, 1, 0x11, 0];
        let bytes = [&[0xFF, 0xD8][..], &frame, &[0xFF, 0xDA, 0, 8, 1, 1, 0, 3, 0, 0], &[1, 2, 0xFF, 0xD9, 7]].concat();
        assert_eq!(jpeg_ls(&bytes), Some(Frame { width: 512, height: 256, components: 1, precision: 12, process: 0xF7, obstacle: None }));
        assert_eq!(after_jpeg_ls(&bytes), [7]);
        for (at, value, obstacle) in [(23, 1, "interleaved scans"), (24, 2, "a point transform"), (19, 3, "interleaved scans")] {
            let mut changed = bytes.clone();
            changed[at] = value;
            assert_eq!(jpeg_ls(&changed).unwrap().obstacle, Some(obstacle), "{at}");
        }
        for length in 0..25 {
            assert_eq!(jpeg_ls(&bytes[..length]), None, "{length}");
            assert_eq!(after_jpeg_ls(&bytes[..length]), [0; 0]);
        }
    }

    #[test]
    fn the_end_of_a_jpeg_2000_is_found_behind_its_parts() {
        // A comment and the data of a tile hold what looks like an end.
        let head = [&[0xFF, 0x4F, 0xFF, 0x64, 0, 6][..], &[0, 1, 0xFF, 0xD9]].concat();
        let tile = |length: u32| [&[0xFF, 0x90, 0, 10, 0, 0][..], &length.to_be_bytes(), &[0, 1, 0xFF, 0x93, 1, 0xFF, 0x10, 2]].concat();
        let end = [0xFF, 0xD9];
        let whole = [&head[..], &tile(18), &tile(18), &end].concat();
        // The last part need not say how long it is.
        let unknown = [&head[..], &tile(18), &tile(0), &end].concat();
        let boxed = |length: u32, codestream: &[u8]| {
            [&[0, 0, 0, 12][..], b"jP  ", &[13, 10, 0x87, 10], &length.to_be_bytes(), b"jp2c", codestream].concat()
        };
        let box_length = 8 + whole.len() as u32;
        for codestream in [&whole, &unknown, &boxed(0, &whole), &boxed(box_length, &whole)] {
            assert_eq!(after_jpeg_2000(codestream), [0; 0]);
            assert_eq!(after_jpeg_2000(&[&codestream[..], &[7, 7]].concat()), [7, 7]);
        }
        let more = [&[0, 0, 0, 9][..], b"xml ", b"x"].concat();
        assert_eq!(after_jpeg_2000(&[&boxed(box_length, &whole)[..], &more, &[7]].concat()), [7]);
        let inside = boxed(box_length + 1, &[&whole[..], &[7]].concat());
        assert_eq!(after_jpeg_2000(&inside), [7]);
        for bytes in [whole, unknown, inside] {
            for length in 0..bytes.len() - 1 {
                assert_eq!(after_jpeg_2000(&bytes[..length]), [0; 0], "{length}");
            }
        }
    }

    #[test]
    fn a_jpeg_2000_header_is_found_and_its_tiles_are_counted() {
        let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for number in [1955u32, 1841, 0, 0, 1955, 1841, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([0, 1, 14, 1, 1]);
        let frame = Frame { width: 1955, height: 1841, components: 1, precision: 15, process: 0, obstacle: None };
        assert_eq!(jpeg_2000(&bytes), Some(frame));
        assert_eq!(jpeg_2000(&bytes[..bytes.len() - 1]), None);
        bytes[24..32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(jpeg_2000(&bytes).unwrap().obstacle, Some("too many tiles"));
    }
}
