//! Look-up tables in the header.

use super::dataset::DataSet;
use crate::radiograph::RadiographError;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// A modality or VOI look-up table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lut {
    /// The input of the first entry.
    pub first: i32,
    /// At least one entry.
    pub entries: Vec<u16>,
    /// Bits of an entry.
    pub bits: u32,
}

impl Lut {
    /// The first table of `sequence`, if there is one. `what` is its name in messages.
    pub fn read(data: &DataSet, sequence: Tag, signed: bool, what: &str) -> Result<Option<Self>, RadiographError> {
        if !data.has(sequence) {
            return Ok(None);
        }
        let descriptor = data.words(sequence, tags::LUT_DESCRIPTOR).unwrap_or_default();
        let &[count, first, bits] = &descriptor[..] else {
            return Err(data.malformed(format!("the descriptor of its {what} has {} numbers, but 3 belong there", descriptor.len())));
        };
        if !(8..=16).contains(&bits) {
            return Err(data.malformed(format!("its {what} has entries of {bits} bits, but 8 to 16 are possible")));
        }
        // 65536 does not fit into the descriptor, which has 0 instead.
        let count = if count == 0 { 1 << 16 } else { usize::from(count) };
        let words = data.words(sequence, tags::LUT_DATA).unwrap_or_default();
        let signed = data.is_signed(sequence, tags::LUT_DESCRIPTOR, signed);
        let first = if signed { i32::from(first as i16) } else { i32::from(first) };
        match entries(words, count, bits) {
            Ok(entries) => Ok(Some(Self { first, entries, bits: bits.into() })),
            Err(found) => Err(data.malformed(format!("its {what} holds {found} entries of the {count} that it announces"))),
        }
    }

    /// The entry of an input. Inputs before the first entry or after the last have that entry.
    pub fn at(&self, input: f64) -> u16 {
        let last = self.entries.len().saturating_sub(1);
        let index = (input - f64::from(self.first)).round().clamp(0.0, last as f64) as usize;
        self.entries.get(index).copied().unwrap_or(0)
    }

    /// The entry as a share of the largest possible one.
    pub fn share(&self, input: f64) -> f64 {
        f64::from(self.at(input)) / f64::from((1u32 << self.bits) - 1)
    }
}

/// The entries in these words. A word may hold one or two entries of 8 bits. If there are too few, the error is their number.
fn entries(mut words: Vec<u16>, count: usize, bits: u16) -> Result<Vec<u16>, usize> {
    if words.len() >= count {
        words.truncate(count);
        return Ok(words);
    }
    if bits == 8 && words.len() * 2 >= count {
        return Ok(words.iter().flat_map(|word| [word & 0xFF, word >> 8]).take(count).collect());
    }
    Err(words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_beyond_the_ends_have_the_entry_at_that_end() {
        let lut = Lut { first: -2, entries: vec![10, 20, 30], bits: 8 };
        let found: Vec<u16> = [-1e9, -2.0, -1.0, 0.0, 1.0, 1e9].iter().map(|&input| lut.at(input)).collect();
        assert_eq!(found, [10, 10, 20, 30, 30, 30]);
        assert_eq!(lut.share(0.0), 30.0 / 255.0);
    }

    #[test]
    fn entries_of_one_byte_may_be_packed() {
        assert_eq!(entries(vec![0x0201, 0x0403], 3, 8), Ok(vec![1, 2, 3]));
        assert_eq!(entries(vec![1, 2, 3, 4], 3, 8), Ok(vec![1, 2, 3]));
        assert_eq!(entries(vec![0x0201, 0x0403], 3, 12), Err(2));
        assert_eq!(entries(vec![], 1, 8), Err(0));
    }
}
