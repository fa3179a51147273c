//! Markers, segments and bits of a JPEG.

use super::frame::cut;
use super::huffman::Table;

/// Why entropy-coded data cannot be read.
pub(super) enum Broken {
    /// The data end too early.
    End,
    /// There is no such code.
    Code,
}

impl From<Broken> for String {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::End => "part of its picture is missing".into(),
            Broken::Code => "its compressed data has an invalid code".into(),
        }
    }
}

/// A reader of a JPEG's bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    at: usize,
    /// Bits that were read from the bytes and are not used yet; the next one is the highest.
    bits: u64,
    /// Number of these bits.
    count: u32,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, bits: 0, count: 0 }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next marker, and the number of stray bytes before it.
    pub fn marker(&mut self) -> Result<(u8, usize), String> {
        let rest = self.rest();
        let is_marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF);
        let skipped = rest.windows(2).position(is_marker).ok_or("it ends before its picture does")?;
        self.at += skipped + 2;
        // Any number of 0xFF may precede a marker.
        let is_fill = rest[..skipped].iter().all(|&byte| byte == 0xFF);
        Ok((rest[skipped + 1], if is_fill { 0 } else { skipped }))
    }

    /// The content of the segment after a marker.
    pub fn segment(&mut self) -> Result<&'a [u8], String> {
        let rest = self.rest();
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk().ok_or_else(cut)?));
        let segment = rest.get(2..length).ok_or_else(cut)?;
        self.at += length;
        Ok(segment)
    }

    /// Begins to read entropy-coded data.
    pub fn begin_data(&mut self) {
        (self.bits, self.count) = (0, 0);
    }

    /// Skips the rest of the entropy-coded data, up to the next marker. Returns the number of skipped bytes.
    pub fn end_data(&mut self) -> Result<usize, String> {
        let is_marker = |pair: &[u8]| pair[0] == 0xFF && pair[1] != 0;
        let unread = self.rest().windows(2).position(is_marker).ok_or("it ends before its picture does")?;
        self.at += unread;
        Ok(self.count as usize / 8 + unread)
    }

    /// Reads as many bits as there are, up to 64.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.rest() {
                // A byte of 0xFF is followed by a zero; otherwise it begins a marker.
                [0xFF, 0, ..] => {
                    self.at += 2;
                    0xFF
                }
                [0xFF, ..] | [] => break,
                [byte, ..] => {
                    self.at += 1;
                    *byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Takes up to 32 bits.
    pub fn take(&mut self, count: u32) -> Result<u32, Broken> {
        if self.count < count {
            self.fill();
        }
        if self.count < count {
            return Err(Broken::End);
        }
        // Two shifts, because `count` may be 0.
        let taken = (self.bits >> 32 >> (32 - count)) as u32;
        self.bits <<= count;
        self.count -= count;
        Ok(taken)
    }

    /// Skips up to 32 bits.
    pub fn skip(&mut self, count: u32) -> Result<(), Broken> {
        self.take(count).map(|_| ())
    }

    /// Takes the next code. Returns its value.
    pub fn code(&mut self, table: &Option<Table>) -> Result<u8, Broken> {
        let table = table.as_ref().ok_or(Broken::Code)?;
        if self.count < 16 {
            self.fill();
        }
        let found = table.find((self.bits >> 48) as u32);
        match found {
            Some((length, value)) => self.skip(length).map(|()| value),
            None if self.count < 16 => Err(Broken::End),
            None => Err(Broken::Code),
        }
    }
}
