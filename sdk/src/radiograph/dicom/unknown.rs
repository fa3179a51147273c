//! Sequences that somebody passed on without knowing them: representation UN, length undefined. Inside they are written in
//! implicit VR whatever the file says (DICOM PS3.5, 6.2.2), which dicom-rs does not follow. Such private sequences are
//! common behind an archive, and nothing in them matters here, so they are stepped over.

use dicom_core::Tag;
use std::cell::Cell;
use std::io::{Cursor, Read, Result, Seek, SeekFrom};

const UNDEFINED: u32 = u32::MAX;
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// Where the sequence whose header ends at `at` ends itself, if it is one of these; `None` if it never ends.
pub(super) fn end(body: &[u8], at: usize) -> Option<Option<usize>> {
    // Representation, two reserved bytes and the length come last in an explicit header.
    let header = at.checked_sub(8).and_then(|start| body.get(start..start + 2));
    (header == Some(b"UN")).then(|| sequence_end(body, at))
}

fn sequence_end(body: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1usize;
    while depth > 0 {
        let &[a, b, c, d, length @ ..] = body.get(at..)?.first_chunk::<8>()?;
        let tag = Tag(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        at += 8;
        match (tag, u32::from_le_bytes(length)) {
            (ITEM_END | SEQUENCE_END, _) => depth -= 1,
            (_, UNDEFINED) => depth += 1,
            (_, length) => at = at.checked_add(length as usize)?,
        }
    }
    Some(at)
}

/// A reader of a slice that tells how far it has come.
pub(super) struct Tracked<'a> {
    cursor: Cursor<&'a [u8]>,
    position: &'a Cell<usize>,
}

impl<'a> Tracked<'a> {
    /// Reads `bytes` from `start` on, keeping `position` up to date.
    pub fn new(bytes: &'a [u8], start: usize, position: &'a Cell<usize>) -> Self {
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(start as u64);
        position.set(start);
        Self { cursor, position }
    }
}

impl Read for Tracked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.cursor.read(buffer);
        self.position.set(self.cursor.position() as usize);
        read
    }
}

impl Seek for Tracked<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let reached = self.cursor.seek(to);
        self.position.set(self.cursor.position() as usize);
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_measured_parts_are_stepped_over() {
        let piece = |tag: [u8; 4], length: u32| [tag, length.to_le_bytes()].concat();
        let (item, item_end, end_tag) = ([0xFE, 0xFF, 0, 0xE0], [0xFE, 0xFF, 0x0D, 0xE0], [0xFE, 0xFF, 0xDD, 0xE0]);
        let inner = [9, 0, 1, 0];
        let bytes = [
            [&[9, 0, 2, 0], &b"UN\0\0"[..], &[0xFF; 4]].concat(),
            [piece(item, UNDEFINED), piece(inner, UNDEFINED), piece(item, 4), vec![7; 4], piece(end_tag, 0)].concat(),
            [piece(inner, 6), vec![7; 6], piece(item_end, 0), piece(end_tag, 0)].concat(),
            vec![1, 2, 3],
        ]
        .concat();
        assert_eq!(end(&bytes, 12), Some(Some(bytes.len() - 3)));
        assert_eq!(end(&bytes[..bytes.len() - 4], 12), Some(None));
        assert_eq!(end(&bytes, 13), None);
        assert_eq!(end(&bytes, 3), None);
    }
}
