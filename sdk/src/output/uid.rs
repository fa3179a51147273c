//! UIDs that are derived from what they name, so that the same object has the same UID wherever it is made.

use crate::hash::Hasher;

/// The UID of what these parts say (DICOM PS3.5, B.2): `2.25.` and the number of their [`uuid`].
pub(super) fn derived(parts: &[&[u8]]) -> String {
    format!("2.25.{}", bits(parts))
}

/// The UUID of what these parts say: 122 of its bits are the beginning of the parts' SHA-256. The others say that it is a UUID of version 8
/// (RFC 9562, 5.8).
pub(super) fn uuid(parts: &[&[u8]]) -> String {
    let digits = format!("{:032x}", bits(parts));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn bits(parts: &[&[u8]]) -> u128 {
    let mut hasher = Hasher::default();
    for part in parts {
        // The length keeps parts apart.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finish().0;
    let bits = digest.iter().take(16).fold(0u128, |bits, &byte| bits << 8 | u128::from(byte));
    let fixed = 0xF << 76 | 0b11 << 62;
    bits & !fixed | 0x8 << 76 | 0b10 << 62
}

#[cfg(test)]
mod tests {
    use super::{derived, uuid};

    #[test]
    fn a_uid_follows_from_its_parts() {
        let uid = derived(&[b"ab", b"c"]);
        assert_eq!(uid, derived(&[b"ab", b"c"]));
        assert!(uid.len() <= 64 && uid.starts_with("2.25.") && uid[5..].bytes().all(|b| b.is_ascii_digit()));
        for other in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"ab", b"c", b""]] {
            assert_ne!(uid, derived(other));
        }
        let bits: u128 = uid[5..].parse().unwrap();
        assert_eq!((bits >> 76 & 0xF, bits >> 62 & 0b11), (8, 0b10));
        let uuid = uuid(&[b"ab", b"c"]);
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!((u128::from_str_radix(&uuid.replace('-', ""), 16), lengths), (Ok(bits), vec![8, 4, 4, 4, 12]));
    }
}
