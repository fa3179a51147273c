//! Sequences. They are stepped over, except for a few whose items are read.
//!
//! dicom-rs cannot read sequences of unknown representation (UN) and undefined length. Systems that do not know a private sequence write it
//! in this way. The items are in implicit VR whatever the transfer syntax (DICOM PS3.5, 6.2.2). They are common in archived files, also
//! inside other sequences.

use dicom_core::{Tag, VR};
use std::ops::Range;

/// The length of a sequence or item that ends with a delimiter.
pub(super) const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
/// Most levels of sequences. Images have far fewer, but each level takes memory.
const MAX_DEPTH: usize = 64;
/// Most fragments: more than those of the largest accepted frame at 32 KiB each.
const MAX_FRAGMENTS: usize = 1 << 16;

/// Encoding of elements.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Encoding {
    /// Whether elements have explicit value representations.
    pub explicit: bool,
    pub big_endian: bool,
}

impl Encoding {
    const IMPLICIT: Self = Self { explicit: false, big_endian: false };

    /// The encoding of the items of a sequence whose header ends at `at`.
    pub fn inside(self, body: &[u8], at: usize, length: u32) -> Self {
        // Such a header ends with the representation, two reserved bytes and the length.
        let representation = at.checked_sub(8).and_then(|start| body.get(start..start + 2));
        if self.explicit && length == UNDEFINED && representation == Some(b"UN") { Self::IMPLICIT } else { self }
    }
}

/// Why a sequence cannot be read.
#[derive(Debug, PartialEq)]
pub(super) enum Broken {
    /// It does not end, or contains something that is not an item.
    Unended,
    /// Sequences are nested too deeply.
    Deep,
    /// There are too many fragments.
    Fragments,
}

/// The position of a sequence.
#[derive(Debug, PartialEq)]
pub(super) struct Sequence {
    /// Its first items without delimiters, as many as were asked for.
    pub items: Vec<Range<usize>>,
    /// Its end.
    pub end: usize,
}

impl Sequence {
    /// Finds the end of the sequence whose items begin at `at`, and its first items, at most so many.
    pub fn read(body: &[u8], at: usize, length: u32, encoding: Encoding, most: usize) -> Result<Self, Broken> {
        Walk { body, encoding }.sequence(at, length, 0, most)
    }
}

/// The fragments of compressed pixels that begin at `at`.
pub(super) fn fragments(body: &[u8], mut at: usize) -> Result<Vec<&[u8]>, Broken> {
    let walk = Walk { body, encoding: Encoding::IMPLICIT };
    let mut fragments = Vec::new();
    loop {
        let (tag, length) = walk.item_header(at)?;
        match tag {
            SEQUENCE_END => return Ok(fragments),
            ITEM if fragments.len() > MAX_FRAGMENTS => return Err(Broken::Fragments),
            ITEM => {
                let end = walk.step(at + 8, length)?;
                fragments.push(&body[at + 8..end]);
                at = end;
            }
            _ => return Err(Broken::Unended),
        }
    }
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    body: &'a [u8],
    encoding: Encoding,
}

impl Walk<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], Broken> {
        self.body.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Broken::Unended)
    }

    fn short(&self, at: usize) -> Result<u16, Broken> {
        let bytes = self.bytes(at)?;
        Ok(if self.encoding.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Result<u32, Broken> {
        let bytes = self.bytes(at)?;
        Ok(if self.encoding.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Tag and length of an item or a delimiter, which have no value representation.
    fn item_header(&self, at: usize) -> Result<(Tag, u32), Broken> {
        Ok((Tag(self.short(at)?, self.short(at + 2)?), self.long(at + 4)?))
    }

    /// The end of a value of this length.
    fn step(&self, at: usize, length: u32) -> Result<usize, Broken> {
        at.checked_add(length as usize).filter(|&end| end <= self.body.len()).ok_or(Broken::Unended)
    }

    fn sequence(self, mut at: usize, length: u32, depth: usize, most: usize) -> Result<Sequence, Broken> {
        if depth > MAX_DEPTH {
            return Err(Broken::Deep);
        }
        let stated = if length == UNDEFINED { None } else { Some(self.step(at, length)?) };
        let mut items = Vec::new();
        loop {
            match stated {
                // If the end is known, further items are not used.
                Some(end) if at >= end || items.len() >= most => return Ok(Sequence { items, end }),
                _ => {}
            }
            let (tag, length) = self.item_header(at)?;
            at += 8;
            match tag {
                SEQUENCE_END => return Ok(Sequence { items, end: stated.unwrap_or(at) }),
                ITEM => {
                    let (end, next) = if length == UNDEFINED {
                        self.item(at, depth)?
                    } else {
                        let end = self.step(at, length)?;
                        (end, end)
                    };
                    if items.len() < most {
                        items.push(at..end);
                    }
                    at = next;
                }
                _ => return Err(Broken::Unended),
            }
        }
    }

    /// The end of an item's content, and of the delimiter after it.
    fn item(self, mut at: usize, depth: usize) -> Result<(usize, usize), Broken> {
        loop {
            let (tag, mut length) = self.item_header(at)?;
            match tag {
                ITEM_END => return Ok((at, at + 8)),
                ITEM | SEQUENCE_END => return Err(Broken::Unended),
                _ => at += 8,
            }
            if self.encoding.explicit {
                use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
                match VR::from_binary(self.bytes(at - 4)?).ok_or(Broken::Unended)? {
                    OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV => {
                        length = self.long(at)?;
                        at += 4;
                    }
                    _ => length = self.short(at - 2)?.into(),
                }
            }
            at = if length == UNDEFINED {
                let inside = Self { encoding: self.encoding.inside(self.body, at, length), ..self };
                inside.sequence(at, length, depth + 1, 0)?.end
            } else {
                self.step(at, length)?
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::once;

    const EXPLICIT: Encoding = Encoding { explicit: true, big_endian: false };
    const ITEM_TAG: [u8; 4] = [0xFE, 0xFF, 0, 0xE0];
    const ITEM_END_TAG: [u8; 4] = [0xFE, 0xFF, 0x0D, 0xE0];
    const END_TAG: [u8; 4] = [0xFE, 0xFF, 0xDD, 0xE0];
    const INNER: [u8; 4] = [9, 0, 1, 0];

    fn piece(tag: [u8; 4], length: u32) -> Vec<u8> {
        [tag, length.to_le_bytes()].concat()
    }

    /// An explicit header with a length of four bytes.
    fn long(representation: &[u8; 2], length: u32) -> Vec<u8> {
        [&INNER[..], representation, &[0, 0], &length.to_le_bytes()].concat()
    }

    #[test]
    fn nested_sequences_are_stepped_over() {
        let unknown = |inside: &[u8]| {
            let nested = [piece(INNER, UNDEFINED), piece(ITEM_TAG, 4), vec![7; 4], piece(END_TAG, 0)].concat();
            [long(b"UN", UNDEFINED), piece(ITEM_TAG, UNDEFINED), nested, inside.to_vec(), piece(ITEM_END_TAG, 0), piece(END_TAG, 0)]
                .concat()
        };
        let implicit = [piece(INNER, 6), vec![7; 6]].concat();
        let alone = unknown(&implicit);
        let read = |bytes: &[u8]| Sequence::read(bytes, 12, UNDEFINED, EXPLICIT.inside(bytes, 12, UNDEFINED), 1);
        let whole = [&alone[..], &[1, 2, 3]].concat();
        assert_eq!(read(&whole), Ok(Sequence { items: once(20..alone.len() - 16).collect(), end: alone.len() }));
        assert_eq!(read(&whole[..alone.len() - 1]), Err(Broken::Unended));
        // The same one inside a known sequence, between elements with short and long headers.
        let short = [&INNER[..], b"CS", &[2, 0], b"ab"].concat();
        let known = [
            [&INNER[..], b"SQ\0\0", &[0xFF; 4]].concat(),
            piece(ITEM_TAG, UNDEFINED),
            [&short[..], &alone, &long(b"OB", 3), &[7; 3]].concat(),
            piece(ITEM_END_TAG, 0),
            piece(ITEM_TAG, 0),
            piece(END_TAG, 0),
        ]
        .concat();
        assert_eq!(read(&known).unwrap().end, known.len());
        // If the length is known, no more items are read than asked for.
        let measured = [piece(ITEM_TAG, 2), vec![7, 7], piece(ITEM_TAG, 1), vec![7], vec![0xEE; 9]].concat();
        let read = |most| Sequence::read(&measured, 0, measured.len() as u32, EXPLICIT, most);
        assert_eq!(read(1), Ok(Sequence { items: once(8..10).collect(), end: measured.len() }));
        assert_eq!(read(2), Ok(Sequence { items: vec![8..10, 18..19], end: measured.len() }));
        assert_eq!(read(3), Err(Broken::Unended));
        assert_eq!(Sequence::read(&measured, 0, 99, EXPLICIT, 1), Err(Broken::Unended));
        assert_eq!(Sequence::read(&[], 0, 0, EXPLICIT, 1), Ok(Sequence { items: vec![], end: 0 }));
    }

    #[test]
    fn depth_is_bounded_and_no_bytes_panic() {
        let level = [long(b"SQ", UNDEFINED), piece(ITEM_TAG, UNDEFINED)].concat();
        assert_eq!(Sequence::read(&level.repeat(1000), 12, UNDEFINED, EXPLICIT, 1), Err(Broken::Deep));
        let mut state = 1u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    [0xFE, 0xFF, 0, 0xE0, 0x0D, 0xDD, b'S', b'Q', b'U', b'N', 1, 9][(state >> 16) as usize % 12]
                })
                .collect();
            for encoding in [EXPLICIT, Encoding::IMPLICIT, Encoding { explicit: true, big_endian: true }] {
                let _ = Sequence::read(&bytes, 0, UNDEFINED, encoding, 2);
                let _ = fragments(&bytes, 0);
            }
        }
    }

    #[test]
    fn fragments_are_items_of_known_length() {
        let bytes = [piece(ITEM_TAG, 0), piece(ITEM_TAG, 2), vec![5, 6], piece(END_TAG, 0)].concat();
        assert_eq!(fragments(&bytes, 0), Ok(vec![&[][..], &[5, 6]]));
        assert_eq!(fragments(&bytes[..bytes.len() - 1], 0), Err(Broken::Unended));
    }
}
