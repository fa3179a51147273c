//! Character sets of DICOM texts (PS3.3, C.12.1.1.2; PS3.5, 6.1 and annexes H to K).
//!
//! Specific Character Set names one set, or several that escape sequences switch between (code extensions, ISO 2022). encoding_rs decodes
//! the characters. Which bytes are a character of a set is decided here, because the encodings of the web that encoding_rs knows have
//! characters that the sets do not have.

use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5, ISO_8859_6, ISO_8859_7, ISO_8859_8,
    ISO_8859_15, UTF_8, WINDOWS_874, WINDOWS_1252, WINDOWS_1254,
};

const ESCAPE: u8 = 0x1B;

/// Why a text cannot be decoded.
#[derive(Debug, PartialEq)]
pub(super) enum Undecodable {
    /// The header names a set that is not known here.
    Unknown(String),
    /// Bytes of the text are not characters of the sets that the header names.
    Bytes,
}

/// A set of characters that are coded in one or two bytes: those of ISO's register with this number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Set(u16);

impl Set {
    const ASCII: Self = Self(6);
    /// The Latin letters of JIS X 0201: ASCII, but for two characters.
    const ROMAN: Self = Self(14);

    /// All sets that DICOM defines, each with the end of its escape sequence. Before that are the bytes that say whether it is for bytes
    /// below 0x80 (G0) or above (G1).
    const KNOWN: [(Self, &[u8]); 18] = [
        (Self::ASCII, b"(B"),
        (Self::ROMAN, b"(J"),
        (Self(13), b")I"),
        (Self(58), b"$)A"),
        (Self(87), b"$B"),
        (Self(100), b"-A"),
        (Self(101), b"-B"),
        (Self(109), b"-C"),
        (Self(110), b"-D"),
        (Self(126), b"-F"),
        (Self(127), b"-G"),
        (Self(138), b"-H"),
        (Self(144), b"-L"),
        (Self(148), b"-M"),
        (Self(149), b"$)C"),
        (Self(159), b"$(D"),
        (Self(166), b"-T"),
        (Self(203), b"-b"),
    ];

    /// The set with a name as in Specific Character Set.
    fn named(name: &str) -> Option<Self> {
        let number = ["ISO_IR ", "ISO_IR_", "ISO 2022 IR "].iter().find_map(|prefix| name.strip_prefix(prefix));
        let set = if name.is_empty() { Self::ASCII } else { Self(number?.parse().ok()?) };
        Self::KNOWN.iter().any(|(known, _)| *known == set && set != Self::ROMAN).then_some(set)
    }

    /// Whether its bytes are below 0x80.
    fn is_low(self) -> bool {
        matches!(self.0, 6 | 14 | 87 | 159)
    }

    /// Bytes of a character.
    fn width(self) -> usize {
        if matches!(self.0, 58 | 87 | 149 | 159) { 2 } else { 1 }
    }

    /// Appends the character that these bytes are; `None` if they are none of the set.
    fn decode(self, bytes: &[u8], text: &mut String) -> Option<()> {
        let &[first, ..] = bytes else { return None };
        let second = bytes.get(1).copied();
        let row = first & 0x7F;
        let possible = match self.0 {
            6 | 14 => first < 0x80,
            13 => (0xA1..=0xDF).contains(&first),
            // The rows that have characters.
            58 => matches!(row - 0x20, 1..=9 | 16..=87),
            87 => matches!(row - 0x20, 1..=8 | 16..=84),
            // Three characters came later than the set.
            126 => first >= 0xA0 && !matches!(first, 0xA4 | 0xA5 | 0xAA),
            166 => first >= 0xA1,
            _ => self.is_low() || first >= 0xA0,
        };
        if !possible {
            return None;
        }
        let known = match self.0 {
            14 if first == b'~' => Some('\u{203E}'),
            6 | 14 => Some(first.into()),
            // Half-width katakana are in the same order.
            13 => char::from_u32(0xFF61 + u32::from(first - 0xA1)),
            _ => None,
        };
        if let Some(character) = known {
            text.push(character);
            return Some(());
        }
        let encoding: &Encoding = match self.0 {
            58 => GBK,
            87 | 159 => EUC_JP,
            100 => WINDOWS_1252,
            101 => ISO_8859_2,
            109 => ISO_8859_3,
            110 => ISO_8859_4,
            126 => ISO_8859_7,
            127 => ISO_8859_6,
            138 => ISO_8859_8,
            144 => ISO_8859_5,
            148 => WINDOWS_1254,
            149 => EUC_KR,
            166 => WINDOWS_874,
            203 => ISO_8859_15,
            _ => return None,
        };
        let coded = match (self.0, second) {
            (87, Some(second)) => vec![first | 0x80, second | 0x80],
            (159, Some(second)) => vec![0x8F, first | 0x80, second | 0x80],
            _ => bytes.to_vec(),
        };
        text.push_str(&encoding.decode_without_bom_handling_and_without_replacement(&coded)?);
        Some(())
    }
}

/// Decodes a text of one value. `sets` are the values of Specific Character Set; `is_name` says whether the text is a person's name, whose
/// parts begin with the first set again.
///
/// # Errors
/// [`Undecodable`]: nothing is guessed.
pub(super) fn decode(bytes: &[u8], sets: &[String], is_name: bool) -> Result<String, Undecodable> {
    if bytes.is_ascii() && !bytes.contains(&ESCAPE) {
        return String::from_utf8(bytes.to_vec()).map_err(|_| Undecodable::Bytes);
    }
    let first = sets.first().map_or("", String::as_str);
    let alone = match first {
        "ISO_IR 192" | "ISO_IR_192" => Some(UTF_8),
        "GB18030" => Some(GB18030),
        "GBK" => Some(GBK),
        _ => None,
    };
    if let Some(encoding) = alone {
        let text = encoding.decode_without_bom_handling_and_without_replacement(bytes).ok_or(Undecodable::Bytes)?;
        return if text.contains('\u{1B}') { Err(Undecodable::Bytes) } else { Ok(text.into_owned()) };
    }
    let named = |name: &String| Set::named(name).ok_or_else(|| Undecodable::Unknown(name.clone()));
    let sets = sets.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    extended(bytes, &sets, is_name).ok_or(Undecodable::Bytes)
}

/// Decodes a text with code extensions.
fn extended(mut rest: &[u8], sets: &[Set], is_name: bool) -> Option<String> {
    let first = sets.first().copied().unwrap_or(Set::ASCII);
    // A two-byte set for low bytes is never there from the beginning.
    let low = if first == Set(13) { Set::ROMAN } else { Set::ASCII };
    let high = (!first.is_low()).then_some(first);
    let (mut g0, mut g1) = (low, high);
    let mut text = String::with_capacity(rest.len());
    while let Some(&byte) = rest.first() {
        if let Some(sequence) = rest.strip_prefix(&[ESCAPE]) {
            let (set, end) = Set::KNOWN.iter().find(|(_, end)| sequence.starts_with(end))?;
            let is_listed = sets.contains(set) || *set == Set::ASCII || (*set == Set::ROMAN && sets.contains(&Set(13)));
            if !is_listed {
                return None;
            }
            if set.is_low() {
                g0 = *set
            } else {
                g1 = Some(*set)
            }
            rest = &sequence[end.len()..];
            continue;
        }
        let set = if byte < 0x80 { g0 } else { g1? };
        let (character, after) = rest.split_at_checked(set.width())?;
        // Both bytes of a character are in the same half, and none is a control character.
        let is_whole = character.iter().all(|&other| other & 0x80 == byte & 0x80 && (set.width() == 1 || other & 0x7F > 0x20));
        if !is_whole || (0x80..0xA0).contains(&byte) {
            return None;
        }
        set.decode(character, &mut text)?;
        rest = after;
        if is_name && set.width() == 1 && matches!(byte, b'^' | b'=') {
            (g0, g1) = (low, high);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], sets: &[&str]) -> Result<String, Undecodable> {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        decode(bytes, &sets, true)
    }

    /// Examples of DICOM PS3.5, annexes H, I, J and K, and of other sets.
    #[test]
    fn names_are_decoded_as_the_standard_says() {
        let kanji = b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B";
        let katakana = b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3=\x1B$B;3ED\x1B(J^\x1B$BB@O:\x1B(J=\x1B$B$d$^$@\x1B(J^\x1B$B$?$m$&\x1B(J";
        let seven = ["ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 101", "ISO 2022 IR 109", "ISO 2022 IR 110", "ISO 2022 IR 144"];
        let seven = [&seven[..], &["ISO 2022 IR 126"]].concat();
        let names: [(&[u8], &[&str], &str); 19] = [
            (b"Yamada^Tarou", &["unknown"], "Yamada^Tarou"),
            (b"Buc^J\xE9r\xF4me", &["ISO_IR 100"], "Buc^Jérôme"),
            (b"\xC4neas", &["ISO 2022 IR 100", "ISO 2022 IR 126"], "Äneas"),
            ("Wang^XiaoDong=王^小东".as_bytes(), &["ISO_IR 192"], "Wang^XiaoDong=王^小东"),
            (b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB", &["GB18030"], "Wang^XiaoDong=王^小东"),
            (kanji, &["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
            (katakana, &["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
            (b"\x1B$(D\x30\x21\x1B(B", &["", "ISO 2022 IR 159"], "丂"),
            (b"\xD4\xCF~", &["ISO_IR 13"], "ﾔﾏ‾"),
            (
                b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF",
                &["", "ISO 2022 IR 149"],
                "Hong^Gildong=洪^吉洞=홍^길동",
            ),
            (b"Zhang^XiaoDong=\x1B$)A\xD5\xC5^\x1B$)A\xD0\xA1\xB6\xAB", &["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
            (b"\xC7a\xF0\xFDl", &["ISO_IR 148"], "Çağıl"),
            (b"\xA4 \xBDuvre", &["ISO_IR 203"], "€ œuvre"),
            (b"\xA1\xD2\xFB", &["ISO_IR 166"], "กา๛"),
            // Bytes of the first set, then another one's; each part of a name begins with the first again.
            (b"\xC4\x1B-F\xC4^\xC4", &["ISO 2022 IR 100", "ISO 2022 IR 126"], "ÄΔ^Ä"),
            (b"\xC4\xD6^\x1B$)C\xFB\xF3", &["ISO 2022 IR 100", "ISO 2022 IR 149"], "ÄÖ^洪"),
            (b"M\xFC\xDFler^\x1B$)A\xD5\xC5", &["ISO 2022 IR 100", "ISO 2022 IR 58"], "Müßler^张"),
            (b"\xBB\xEEk=\x1B$)C\xFB\xF3", &["ISO 2022 IR 144", "ISO 2022 IR 149"], "Люk=洪"),
            (b"\x1B-L\xBB\x1B-F\xC4", &seven, "ЛΔ"),
        ];
        for (bytes, sets, expected) in names {
            assert_eq!(read(bytes, sets).as_deref(), Ok(expected), "{sets:?}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_not_guessed() {
        let names: [(&[u8], &[&str]); 20] = [
            (b"\xC4\xD6^\x1B$)C\xFB\xF3", &["", "ISO 2022 IR 149"]),
            (b"J\xE9r\xF4me", &[]),
            (b"J\xE9r\xF4me", &["ISO_IR 6"]),
            (b"J\xE9r\xF4me", &["ISO_IR 192"]),
            (b"J\x85r", &["ISO_IR 100"]),
            // Escape sequences of sets that are not listed, that are none, and that break off.
            (b"\x1B$B;3ED\x1B(B", &["ISO_IR 100"]),
            (b"\x1B-F\xC4", &["ISO 2022 IR 100"]),
            (b"\x1B-Z\xC4", &["ISO 2022 IR 100"]),
            (b"\x1B(J~", &["ISO 2022 IR 100"]),
            (b"\xC4\x1B", &["ISO 2022 IR 100"]),
            (b"\xC4\x1B", &["GB18030"]),
            // Bytes that are not a character of their set.
            (b"\x1B$B;3\xFF\xFF", &["", "ISO 2022 IR 87"]),
            (b"\x1B$B;3E\x1B(B", &["", "ISO 2022 IR 87"]),
            (b"\x1B$B-!\x1B(B", &["", "ISO 2022 IR 87"]),
            (b"\x1B$)C\xFB^", &["", "ISO 2022 IR 149"]),
            (b"\xA0\xA1", &["ISO_IR 166"]),
            (b"\xA1\x85", &["ISO_IR 166"]),
            (b"\x88\x9F", &["ISO_IR 13"]),
            (b"\xD4\xE0", &["ISO_IR 13"]),
            (b"\xA4", &["ISO_IR 126"]),
        ];
        for (bytes, sets) in names {
            assert_eq!(read(bytes, sets), Err(Undecodable::Bytes), "{bytes:?} {sets:?}");
        }
        let mixed: &[&str] = &["ISO 2022 IR 100", "ISO 2022 IR 999"];
        for (sets, unknown) in [(&["ISO_IR 999"][..], "ISO_IR 999"), (&["ISO_IR 14"], "ISO_IR 14"), (mixed, mixed[1])] {
            assert_eq!(read(b"J\xE9r\xF4me", sets), Err(Undecodable::Unknown(unknown.into())));
        }
        // Nothing panics.
        let mut state = 1u32;
        for _ in 0..50_000 {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as usize
            };
            let bytes: Vec<u8> =
                (0..next() % 12).map(|_| [0x1B, b'$', b'B', b')', b'C', b'(', b'J', b'^', 0xA1, 0xFF, 0, 0x7F][next() % 12]).collect();
            let sets = ["ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 159", "ISO 2022 IR 58"];
            let _ = read(&bytes, &sets[next() % 5..]);
        }
    }
}
