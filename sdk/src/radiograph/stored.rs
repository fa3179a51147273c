//! Pixels as a file stores them, and a table with the intensity of each stored value. There are few different values, so operations on
//! intensities change the table, and pixels are looked up when they are needed.

use super::{RadiographError, memory};
use crate::parallel;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Smallest number of pixels that a thread counts by itself.
const MIN_PART: usize = 1 << 18;
/// Largest number of parts. Each has a table with an entry for every possible value.
const MAX_PARTS: usize = 8;

/// How many bytes a stored value has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Depth {
    /// One byte.
    One,
    /// Two bytes, little-endian.
    Two,
}

impl Depth {
    pub fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// Number of different values.
    pub fn values(self) -> usize {
        1 << (8 * self.bytes())
    }

    /// Each value as a share of the largest.
    pub fn shares(self) -> Vec<f32> {
        let last = self.values() - 1;
        (0..=last).map(|value| value as f32 / last as f32).collect()
    }
}

/// Stored values, one per pixel, row by row: a part of the file, or decompressed from it.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    pub depth: Depth,
    pub bytes: Cow<'a, [u8]>,
}

impl Samples<'_> {
    /// Their position in `file`, if they are a part of it.
    pub fn within(&self, file: &[u8]) -> Option<Range<usize>> {
        let start = self.bytes.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
        let at = start..start.checked_add(self.bytes.len())?;
        (at.end <= file.len()).then_some(at)
    }

    /// Whether each value occurs.
    pub fn occurring(&self) -> Vec<bool> {
        tally(&self.bytes, self.depth, |occurs: &mut bool| *occurs = true, |a, b| *a |= b)
    }
}

/// Pixels of a radiograph.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    depth: Depth,
    bytes: Arc<Vec<u8>>,
    /// Position of the pixels in the bytes. The rest of a file is kept, because that is cheaper than a copy of the pixels.
    at: Range<usize>,
    /// Intensity 0..1 of each possible value.
    levels: Vec<f32>,
}

impl Stored {
    /// Makes an image of bytes that are its pixels, and the intensity of each possible value.
    pub fn new(depth: Depth, bytes: Vec<u8>, levels: Vec<f32>) -> Self {
        let at = 0..bytes.len();
        Self::part(depth, bytes, at, levels)
    }

    /// Makes an image of bytes that hold its pixels at `at`.
    pub fn part(depth: Depth, bytes: Vec<u8>, at: Range<usize>, levels: Vec<f32>) -> Self {
        debug_assert_eq!(levels.len(), depth.values());
        Self { depth, bytes: bytes.into(), at, levels }
    }

    /// Intensity 0..1 of each possible value.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// The number of pixels.
    pub fn len(&self) -> usize {
        self.at.len() / self.depth.bytes()
    }

    /// All bytes: the whole file if the pixels are a part of one.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pixels(&self) -> &[u8] {
        &self.bytes[self.at.clone()]
    }

    /// Number of pixels with each value.
    pub fn counts(&self) -> Vec<u32> {
        tally(self.pixels(), self.depth, |count: &mut u32| *count += 1, |a, b| *a += b)
    }

    /// Fills `out` with the table entries of the pixels from `first` on. The table has an entry for each possible value.
    pub fn look_up<T>(&self, first: usize, table: &[f32], out: &mut [T], entry: impl Fn(f32) -> T) {
        let pixels = &self.pixels()[first * self.depth.bytes()..];
        // The compiler omits bounds checks of tables of constant length.
        match self.depth {
            Depth::One => {
                let Some(table) = table.first_chunk::<{ 1 << 8 }>() else { return };
                out.iter_mut().zip(pixels).for_each(|(out, &value)| *out = entry(table[usize::from(value)]));
            }
            Depth::Two => {
                let Some(table) = table.first_chunk::<{ 1 << 16 }>() else { return };
                let values = pixels.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = entry(table[usize::from(value)]));
            }
        }
    }

    /// With bright and dark swapped.
    pub fn inverted(mut self) -> Self {
        self.levels.iter_mut().for_each(|level| *level = 1.0 - *level);
        self
    }

    /// With each row of `columns` pixels reversed. `name` is the image's name for errors.
    pub fn mirrored(&self, columns: usize, name: &str) -> Result<Self, RadiographError> {
        let mut bytes = memory::copied(self.pixels(), name)?;
        for row in bytes.chunks_exact_mut(columns * self.depth.bytes()) {
            row.reverse();
            // This reversed the bytes of each value, too.
            row.chunks_exact_mut(self.depth.bytes()).for_each(<[u8]>::reverse);
        }
        Ok(Self::new(self.depth, bytes, self.levels.clone()))
    }
}

/// A table with an entry for each possible value. `see` is called for each pixel with the entry of its value; `add` adds an entry of
/// another part's table.
fn tally<T: Clone + Default + Send>(bytes: &[u8], depth: Depth, see: impl Fn(&mut T) + Sync, add: impl Fn(&mut T, T) + Sync) -> Vec<T> {
    let empty = || vec![T::default(); depth.values()];
    let pixels = (bytes.len() / depth.bytes()).div_ceil(MAX_PARTS).max(MIN_PART);
    let table = |part: &[u8]| {
        let mut table = empty();
        each(part, depth, |value| see(&mut table[value]));
        table
    };
    let join = |mut a: Vec<T>, b: Vec<T>| {
        a.iter_mut().zip(b).for_each(|(a, b)| add(a, b));
        a
    };
    parallel::map(bytes.chunks(pixels * depth.bytes()), table).into_iter().reduce(join).unwrap_or_else(empty)
}

fn each(bytes: &[u8], depth: Depth, mut see: impl FnMut(usize)) {
    match depth {
        Depth::One => bytes.iter().for_each(|&value| see(value.into())),
        Depth::Two => bytes.as_chunks().0.iter().for_each(|&pair| see(u16::from_le_bytes(pair).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_looked_up_and_mirrored_in_either_width() {
        for (depth, bytes) in [(Depth::One, vec![9, 1, 2, 3, 7, 7, 8]), (Depth::Two, vec![9, 1, 0, 2, 0, 3, 0, 7, 1, 7, 1, 8, 1])] {
            let at = 1..bytes.len();
            let stored = Stored::part(depth, bytes, at, (0..depth.values()).map(|value| value as f32).collect());
            let values = |stored: &Stored, first: usize| {
                let mut out = vec![0.0; stored.len() - first];
                stored.look_up(first, stored.levels(), &mut out, |level| level);
                out
            };
            let high = if depth == Depth::Two { 256.0 } else { 0.0 };
            assert_eq!(values(&stored, 0), [1.0, 2.0, 3.0, 7.0 + high, 7.0 + high, 8.0 + high]);
            assert_eq!(values(&stored, 4), [7.0 + high, 8.0 + high]);
            assert_eq!(values(&stored.mirrored(3, "x").unwrap(), 0), [3.0, 2.0, 1.0, 8.0 + high, 7.0 + high, 7.0 + high]);
            let counts = stored.counts();
            assert_eq!((counts[3], counts[7 + high as usize], counts.iter().sum::<u32>()), (1, 2, 6));
        }
    }

    #[test]
    fn values_that_occur_are_found_in_every_part() {
        let bytes: Vec<u8> = (0..5 * MIN_PART).map(|i| if i % MIN_PART == 77 { (i / MIN_PART) as u8 + 1 } else { 0 }).collect();
        let occurs = Samples { depth: Depth::One, bytes: bytes.into() }.occurring();
        let found: Vec<usize> = (0..256).filter(|&value| occurs[value]).collect();
        assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_part_of_a_file_is_found_in_it() {
        let file = [0; 8];
        let within = |bytes: &[u8]| Samples { depth: Depth::One, bytes: bytes.into() }.within(&file);
        assert_eq!((within(&file[2..5]), within(&file)), (Some(2..5), Some(0..8)));
        assert_eq!(within(&[0; 8]), None);
    }
}
