//! RLE Lossless (PackBits in byte planes). The decoder is our own, because that of dicom-rs does not check the number of segments.

use crate::radiograph::decoded::surplus;

/// Most values per byte of a segment: two bytes are a run of at most 128 values.
const MAX_PER_BYTE: usize = 64;

/// Decompressed values.
#[derive(Debug, PartialEq)]
pub(super) struct Unpacked {
    /// Little-endian, of as many bytes as were asked for.
    pub bytes: Vec<u8>,
    /// Why they may be damaged although they are complete.
    pub doubt: Option<String>,
}

/// Fills `out` with little-endian values of `width` bytes. Returns `None` if the data are cut or contradict themselves.
pub(super) fn decode(packed: &[u8], mut out: Vec<u8>, width: usize) -> Option<Unpacked> {
    let pixels = out.len() / width;
    let word = |i: usize| packed.get(4 * i..4 * i + 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    if word(0)? != width || packed.len() < pixels * width / MAX_PER_BYTE {
        return None;
    }
    let mut doubt = None;
    for segment in 0..width {
        let start = word(1 + segment)?;
        let end = if segment + 1 < width { word(2 + segment)? } else { packed.len() };
        // The first segment has the most significant bytes.
        let plane = out.iter_mut().skip(width - 1 - segment).step_by(width);
        let surplus = unpack(packed.get(start..end)?, plane, pixels)?;
        doubt = doubt.or(surplus);
    }
    Some(Unpacked { bytes: out, doubt })
}

/// Fills a plane of `left` bytes. Returns a doubt if the segment holds more.
fn unpack<'a>(mut packed: &[u8], mut plane: impl Iterator<Item = &'a mut u8>, mut left: usize) -> Option<Option<String>> {
    let mut beyond = 0;
    while left > 0 {
        let (&control, rest) = packed.split_first()?;
        packed = rest;
        match control {
            0..=127 => {
                let length = usize::from(control) + 1;
                beyond = length.saturating_sub(left);
                let run = packed.get(..length.min(left))?;
                plane.by_ref().take(run.len()).zip(run).for_each(|(out, &value)| *out = value);
                packed = packed.get(length..).unwrap_or_default();
                left -= run.len();
            }
            128 => {}
            129..=255 => {
                let (&value, rest) = packed.split_first()?;
                packed = rest;
                let length = 257 - usize::from(control);
                beyond = length.saturating_sub(left);
                let run = length.min(left);
                plane.by_ref().take(run).for_each(|out| *out = value);
                left -= run;
            }
        }
    }
    if beyond > 0 {
        return Some(Some(format!("a segment of its run-length coded pixels has {beyond} values too many")));
    }
    // No-operations are padding, too.
    let padding = packed.iter().take_while(|&&control| control == 128).count();
    Some(surplus(&packed[padding..]))
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
        let whole = Unpacked { bytes: vec![7, 1, 8, 1, 9, 1, 9, 1], doubt: None };
        assert_eq!(decode(&packed(), vec![0; 8], 2), Some(whole));
    }

    #[test]
    fn surplus_data_are_a_doubt() {
        let doubt = |added: &[u8]| decode(&[&packed()[..], added].concat(), vec![0; 8], 2).unwrap().doubt;
        assert_eq!((doubt(&[]), doubt(&[0])), (None, None));
        assert!(doubt(&[1, 7, 7]).unwrap().contains("3 bytes follow its end"));
        // A run is longer than what is left.
        let mut long = packed();
        *long.iter_mut().nth_back(1).unwrap() = 254;
        assert!(decode(&long, vec![0; 8], 2).unwrap().doubt.unwrap().contains("1 values too many"));
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
