//! RLE Lossless (PackBits in byte planes). The decoder is our own, because that of dicom-rs does not check the number of segments.

/// Most values per byte of a segment: two bytes are a run of at most 128 values.
const MAX_PER_BYTE: usize = 64;

/// Fills `out` with little-endian values of `width` bytes. Returns `None` if the data are cut or contradict themselves.
pub(super) fn decode(packed: &[u8], mut out: Vec<u8>, width: usize) -> Option<Vec<u8>> {
    let pixels = out.len() / width;
    let word = |i: usize| packed.get(4 * i..4 * i + 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    if word(0)? != width || packed.len() < pixels * width / MAX_PER_BYTE {
        return None;
    }
    for segment in 0..width {
        let start = word(1 + segment)?;
        let end = if segment + 1 < width { word(2 + segment)? } else { packed.len() };
        // The first segment has the most significant bytes.
        let plane = out.iter_mut().skip(width - 1 - segment).step_by(width);
        unpack(packed.get(start..end)?, plane, pixels)?;
    }
    Some(out)
}

fn unpack<'a>(mut packed: &[u8], mut plane: impl Iterator<Item = &'a mut u8>, mut left: usize) -> Option<()> {
    while left > 0 {
        let (&control, rest) = packed.split_first()?;
        packed = rest;
        match control {
            0..=127 => {
                let run = packed.get(..(usize::from(control) + 1).min(left))?;
                plane.by_ref().take(run.len()).zip(run).for_each(|(out, &value)| *out = value);
                packed = &packed[run.len()..];
                left -= run.len();
            }
            128 => {}
            129..=255 => {
                let (&value, rest) = packed.split_first()?;
                packed = rest;
                let run = (257 - usize::from(control)).min(left);
                plane.by_ref().take(run).for_each(|out| *out = value);
                left -= run;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[0] = 2;
        bytes[4] = 64;
        bytes[8] = 66;
        // High bytes: a run of four. Low bytes: a no-op, two literals, a run of two.
        bytes.extend([253, 1, 128, 1, 7, 8, 255, 9]);
        bytes
    }

    #[test]
    fn planes_are_interleaved() {
        assert_eq!(decode(&packed(), vec![0; 8], 2), Some(vec![7, 1, 8, 1, 9, 1, 9, 1]));
    }

    #[test]
    fn data_that_are_cut_or_announce_too_much_are_refused() {
        let bytes = packed();
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length], vec![0; 8], 2), None, "{length}");
        }
        assert_eq!(decode(&bytes, vec![0; 10], 2), None);
        assert_eq!(decode(&bytes, vec![0; 4], 1), None);
        assert_eq!(decode(&bytes, vec![0; 200_000], 2), None);
    }
}
