//! Look-up tables in the header.

use super::dataset::{DataSet, Place};
use crate::radiograph::RadiographError;
use crate::radiograph::shown::Lut;
use dicom_dictionary_std::tags;

/// The table at `place`, if there is one. `what` is its name in messages.
pub(super) fn read(data: &DataSet, place: Place, signed: bool, what: &str) -> Result<Option<Lut>, RadiographError> {
    if !data.has(place) {
        return Ok(None);
    }
    let descriptor = data.words(place, tags::LUT_DESCRIPTOR).unwrap_or_default();
    let &[count, first, bits] = &descriptor[..] else {
        return Err(data.malformed(format!("the descriptor of its {what} has {} numbers instead of 3", descriptor.len())));
    };
    if !(8..=16).contains(&bits) {
        return Err(data.malformed(format!("its {what} has entries of {bits} bits, but must have 8 to 16")));
    }
    // 65536 does not fit into the descriptor, which has 0 instead.
    let count = if count == 0 { 1 << 16 } else { usize::from(count) };
    let words = data.words(place, tags::LUT_DATA).unwrap_or_default();
    let signed = data.is_signed(place, tags::LUT_DESCRIPTOR, signed);
    let first = if signed { i32::from(first as i16) } else { i32::from(first) };
    match entries(words, count, bits) {
        Ok(entries) => Ok(Some(Lut { first, entries, bits: bits.into() })),
        Err(found) => Err(data.malformed(format!("its {what} has {found} of the {count} entries that its descriptor gives"))),
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
    fn entries_of_one_byte_may_be_packed() {
        assert_eq!(entries(vec![0x0201, 0x0403], 3, 8), Ok(vec![1, 2, 3]));
        assert_eq!(entries(vec![1, 2, 3, 4], 3, 8), Ok(vec![1, 2, 3]));
        assert_eq!(entries(vec![0x0201, 0x0403], 3, 12), Err(2));
        assert_eq!(entries(vec![], 1, 8), Err(0));
    }
}
