//! Headers of JPEG and JPEG 2000 codestreams: sizes and precision of the picture.

/// What a codestream announces.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    pub width: u32,
    pub height: u32,
    pub components: u32,
    /// Bits of a value.
    pub precision: u32,
    /// A feature of the codestream that the decoder does not support, or that would be too expensive.
    pub obstacle: Option<&'static str>,
}

/// Reads the frame header (SOF) of a JPEG.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Frame> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        let [0xFF, marker, after @ ..] = rest else { return None };
        rest = match marker {
            // Fill bytes, and markers without a segment.
            0xFF => rest.get(1..)?,
            0x01 | 0xD0..=0xD7 => after,
            0xD8..=0xDA => return None,
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let &[_, _, precision, y0, y1, x0, x1, components] = after.first_chunk()?;
                let obstacle = match (marker, precision) {
                    (0xC0..=0xC2, 8) | (0xC3, 2..=16) => None,
                    (0xC0..=0xC2, _) => Some("more than 8 bits"),
                    (0xC3, _) => Some("more than 16 bits"),
                    _ => Some("a rare process"),
                };
                return Some(Frame {
                    width: u16::from_be_bytes([x0, x1]).into(),
                    height: u16::from_be_bytes([y0, y1]).into(),
                    components: components.into(),
                    precision: precision.into(),
                    obstacle,
                });
            }
            _ => after.get(usize::from(u16::from_be_bytes(*after.first_chunk()?))..)?,
        };
    }
}

/// Largest offset of a JPEG 2000 codestream. It may be preceded by the boxes of a JP2 file.
const SEARCHED: usize = 4096;
/// Most tiles. The decoder allocates some kilobytes for each tile before it reads any.
const MAX_TILES: u64 = 1 << 14;

/// Reads the image and tile size (SIZ) of a JPEG 2000.
pub(super) fn jpeg_2000(bytes: &[u8]) -> Option<Frame> {
    let head = bytes.get(..SEARCHED).unwrap_or(bytes);
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
        obstacle: match (depth & 0x7F, step_x, step_y) {
            (16.., _, _) => Some("more than 16 bits"),
            (_, 1, 1) if tiles <= MAX_TILES => None,
            (_, 1, 1) => Some("more tiles than any radiograph"),
            _ => Some("subsampling"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_header_is_found_after_other_segments() {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, 0xC3, 0, 11, 12, 1, 0, 2, 0, 1, 1, 0x11, 0];
        let frame = Frame { width: 512, height: 256, components: 1, precision: 12, obstacle: None };
        assert_eq!(jpeg(&bytes), Some(frame));
        bytes[10] = 0xC1;
        assert_eq!(jpeg(&bytes).unwrap().obstacle, Some("more than 8 bits"));
        for length in 0..19 {
            assert_eq!(jpeg(&bytes[..length]), None);
        }
    }

    #[test]
    fn a_jpeg_2000_header_is_found_and_its_tiles_are_counted() {
        let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for number in [1955u32, 1841, 0, 0, 1955, 1841, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([0, 1, 14, 1, 1]);
        let frame = Frame { width: 1955, height: 1841, components: 1, precision: 15, obstacle: None };
        assert_eq!(jpeg_2000(&bytes), Some(frame));
        assert_eq!(jpeg_2000(&bytes[..bytes.len() - 1]), None);
        bytes[24..32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(jpeg_2000(&bytes).unwrap().obstacle, Some("more tiles than any radiograph"));
    }
}
