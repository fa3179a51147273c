//! Conversion of colours to grey, and the number of coloured pixels.

use crate::radiograph::stored::Depth;

/// Difference between the channels of a pixel, as a share of the range, above which it counts as coloured. Lossy compression causes smaller
/// differences in grey pictures.
const VISIBLE: f32 = 0.1;

/// Layout of a row's pixels.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// 1: grey, 2: grey with alpha, 3: colours, 4: colours with alpha.
    pub channels: usize,
    /// How many bytes a value has. Two bytes are big-endian.
    pub depth: Depth,
}

impl Layout {
    /// The depth that holds grey values without loss.
    pub fn grey(self) -> Depth {
        if self.channels == 1 { self.depth } else { Depth::Two }
    }

    /// Writes a row's grey values, little-endian, over a black background. Returns the number of coloured pixels.
    pub fn row(self, row: &[u8], out: &mut [u8]) -> u64 {
        match (self.channels, self.depth) {
            (1, Depth::One) => {
                out.copy_from_slice(row);
                0
            }
            (1, Depth::Two) => {
                out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0).for_each(|(out, &[high, low])| *out = [low, high]);
                0
            }
            (2, Depth::One) => convert::<2, 1>(row, out),
            (2, Depth::Two) => convert::<4, 2>(row, out),
            (3, Depth::One) => convert::<3, 1>(row, out),
            (3, Depth::Two) => convert::<6, 2>(row, out),
            (_, Depth::One) => convert::<4, 1>(row, out),
            (_, Depth::Two) => convert::<8, 2>(row, out),
        }
    }
}

/// Converts pixels of `PIXEL` bytes with values of `VALUE` bytes.
fn convert<const PIXEL: usize, const VALUE: usize>(row: &[u8], out: &mut [u8]) -> u64 {
    let value = |pixel: &[u8; PIXEL], channel: usize| match VALUE {
        1 => f32::from(pixel[channel]) / 255.0,
        _ => f32::from(u16::from_be_bytes([pixel[2 * channel], pixel[2 * channel + 1]])) / 65535.0,
    };
    let mut coloured = 0;
    for (pixel, out) in row.as_chunks::<PIXEL>().0.iter().zip(out.as_chunks_mut::<2>().0) {
        let (colour, alpha) = match PIXEL / VALUE {
            2 => ([value(pixel, 0); 3], value(pixel, 1)),
            3 => ([0, 1, 2].map(|channel| value(pixel, channel)), 1.0),
            _ => ([0, 1, 2].map(|channel| value(pixel, channel)), value(pixel, 3)),
        };
        let (luma, is_coloured) = luminance(colour, alpha);
        *out = luma.to_le_bytes();
        coloured += u64::from(is_coloured);
    }
    coloured
}

/// Converts three bytes per pixel to two, in place. Returns the number of coloured pixels.
pub(super) fn in_place(picture: &mut Vec<u8>) -> u64 {
    let pixels = picture.len() / 3;
    let mut coloured = 0;
    for pixel in 0..pixels {
        let colour = [0, 1, 2].map(|channel| f32::from(picture[3 * pixel + channel]) / 255.0);
        let (luma, is_coloured) = luminance(colour, 1.0);
        picture[2 * pixel..2 * pixel + 2].copy_from_slice(&luma.to_le_bytes());
        coloured += u64::from(is_coloured);
    }
    picture.truncate(2 * pixels);
    picture.shrink_to_fit();
    coloured
}

/// The luminance of a pixel, and whether it counts as coloured.
fn luminance(colour: [f32; 3], alpha: f32) -> (u16, bool) {
    let [r, g, b] = colour;
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    (((0.2126 * r + 0.7152 * g + 0.0722 * b) * alpha * 65535.0).round() as u16, (most - least) * alpha > VISIBLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_read() {
        let read = |channels, depth, row: &[u8]| {
            let layout = Layout { channels, depth };
            let pixels = row.len() / channels / depth.bytes();
            let mut out = vec![0; pixels * layout.grey().bytes()];
            let coloured = layout.row(row, &mut out);
            (out, coloured)
        };
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(read(1, Depth::One, &[7, 9]), (vec![7, 9], 0));
        assert_eq!(read(1, Depth::Two, &[1, 2, 3, 4]), (words(&[0x0102, 0x0304]), 0));
        assert_eq!(read(2, Depth::One, &[255, 255, 255, 0, 51, 255]), (words(&[65535, 0, 13107]), 0));
        assert_eq!(read(2, Depth::Two, &[0x33, 0x33, 255, 255]), (words(&[13107]), 0));
        // Grey in colour channels, red, and transparent red.
        assert_eq!(read(3, Depth::One, &[51, 51, 51, 255, 0, 0]), (words(&[13107, 13933]), 1));
        assert_eq!(read(3, Depth::Two, &[255, 255, 0, 0, 0, 0]), (words(&[13933]), 1));
        assert_eq!(read(4, Depth::One, &[255, 0, 0, 255, 255, 0, 0, 9]), (words(&[13933, 492]), 1));
        assert_eq!(read(4, Depth::Two, &[0, 0, 255, 255, 0, 0, 255, 255]), (words(&[46871]), 1));
        let mut picture = vec![51, 51, 51, 255, 0, 0];
        assert_eq!((in_place(&mut picture), picture), (1, words(&[13107, 13933])));
    }
}
