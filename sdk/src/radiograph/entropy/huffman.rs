//! Huffman tables.

/// A Huffman table (F.2.2.3). Codes of up to 8 bits are looked up at once.
pub(super) struct Table {
    /// Length and value of the code at the beginning of these 8 bits; length 0 for a longer code.
    short: [(u8, u8); 256],
    /// Largest code of each length; -1 for none.
    largest: [i32; 17],
    /// Difference between a code of each length and the index of its value.
    offset: [i32; 17],
    values: Vec<u8>,
}

impl Table {
    /// Makes a table from the number of codes of each length and their values; `None` if there are more codes than bits allow.
    pub fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table = Self { short: [(0, 0); 256], largest: [-1; 17], offset: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0i32, 0i32);
        for (length, &count) in (1..).zip(counts) {
            let count = i32::from(count);
            if code + count > 1 << length {
                return None;
            }
            table.offset[length] = index - code;
            for step in 0..count.min(if length <= 8 { count } else { 0 }) {
                let value = values[(index + step) as usize];
                let first = ((code + step) << (8 - length)) as usize;
                table.short[first..first + (1 << (8 - length))].fill((length as u8, value));
            }
            if count > 0 {
                table.largest[length] = code + count - 1;
            }
            code = (code + count) << 1;
            index += count;
        }
        Some(table)
    }

    /// Length and value of the code at the beginning of these 16 bits.
    pub fn find(&self, bits: u32) -> Option<(u32, u8)> {
        let (length, value) = self.short[(bits >> 8) as usize & 255];
        if length > 0 {
            return Some((length.into(), value));
        }
        (9..=16usize).find_map(|length| {
            let code = (bits >> (16 - length)) as i32;
            (code <= self.largest[length]).then(|| Some((length as u32, *self.values.get((code + self.offset[length]) as usize)?)))?
        })
    }
}
