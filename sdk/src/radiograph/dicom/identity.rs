//! The identity of a DICOM file, decoded from its character sets.

use super::dataset::{DataSet, TOP};
use crate::radiograph::identity::{Identity, Source};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

/// Most bytes of a value: three ways of writing a name, each of 64 characters of up to four bytes, and escape sequences.
const MAX_BYTES: usize = 1024;
const ESCAPE: u8 = 0x1B;

/// Reads the identity. `file_class` is the SOP class that the file meta information names.
pub(super) fn read(data: &DataSet, file_class: Option<&str>) -> Source {
    let sets = data.texts(TOP, tags::SPECIFIC_CHARACTER_SET);
    Identity::read(|tag| {
        let value = value(data, tag, &sets)?;
        let is_class = tag == tags::SOP_CLASS_UID;
        Ok(value.filter(|value| !value.is_empty()).or_else(|| file_class.filter(|_| is_class).map(str::to_owned)))
    })
}

fn value(data: &DataSet, tag: Tag, sets: &[String]) -> Result<Option<String>, String> {
    let Some(bytes) = data.bytes(tag) else { return Ok(None) };
    if bytes.len() > MAX_BYTES {
        return Err(format!("has {} bytes", bytes.len()));
    }
    let text = decode(bytes, sets).ok_or_else(|| format!("cannot be decoded from the character set \"{}\"", sets.join("\\")))?;
    Ok(Some(text.trim_end_matches(['\0', ' ']).trim_start_matches(' ').to_owned()))
}

/// Decodes a value of one text from the values of Specific Character Set (DICOM PS3.3, C.12.1.1.2); `None` if that is not possible without
/// loss.
fn decode(bytes: &[u8], sets: &[String]) -> Option<String> {
    if bytes.is_ascii() && !bytes.contains(&ESCAPE) {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let first = sets.first().map_or("", String::as_str);
    let is_escaped = bytes.contains(&ESCAPE);
    let further = |name: &str| sets.iter().any(|set| set == name);
    // With code extensions (ISO 2022), an escape sequence says which set follows. Japanese decoders know theirs. Korean and Chinese
    // characters have the highest bit set, which ASCII has not, so that their sequence says nothing more beside ASCII. Beside another first
    // set it does, and bytes before it would be read as the wrong characters.
    let is_beside_ascii = is_ascii(first) && bytes.iter().take_while(|&&byte| byte != ESCAPE).all(u8::is_ascii);
    let (name, content) = match is_escaped {
        false => (first, bytes.to_vec()),
        true if further("ISO 2022 IR 87") => ("ISO_IR 87", bytes.to_vec()),
        true if !is_beside_ascii => return None,
        true if further("ISO 2022 IR 149") => ("ISO_IR 149", without(bytes, b"\x1B$)C")),
        true if further("ISO 2022 IR 58") => ("GBK", without(bytes, b"\x1B$)A")),
        true => return None,
    };
    // The default is ASCII, so other bytes need a set.
    let set = SpecificCharacterSet::from_code(name).filter(|_| !is_ascii(name))?;
    // The decoder writes what it cannot decode as a backslash and digits. No value that is read here may have a backslash of its own.
    set.decode(&content).ok().filter(|text| !text.contains(['\\', '\u{FFFD}', '\u{1B}']))
}

/// Whether this is the default character set.
fn is_ascii(set: &str) -> bool {
    matches!(set, "" | "ISO_IR 6" | "ISO 2022 IR 6")
}

fn without(bytes: &[u8], sequence: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut kept = Vec::with_capacity(bytes.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = rest.strip_prefix(sequence).unwrap_or_else(|| {
            kept.push(byte);
            after
        });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of DICOM PS3.5, annexes H, I and J, and of other sets.
    #[test]
    fn names_are_decoded_as_the_standard_says() {
        let names: [(&[u8], &[&str], &str); 8] = [
            (b"Yamada^Tarou", &["unknown"], "Yamada^Tarou"),
            (b"Buc^J\xE9r\xF4me", &["ISO_IR 100"], "Buc^Jérôme"),
            (b"\xC4neas", &["ISO 2022 IR 100", "ISO 2022 IR 126"], "Äneas"),
            ("Wang^XiaoDong=王^小东".as_bytes(), &["ISO_IR 192"], "Wang^XiaoDong=王^小东"),
            (b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB", &["GB18030"], "Wang^XiaoDong=王^小东"),
            (
                b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B",
                &["", "ISO 2022 IR 87"],
                "Yamada^Tarou=山田^太郎=やまだ^たろう",
            ),
            (
                b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF",
                &["", "ISO 2022 IR 149"],
                "Hong^Gildong=洪^吉洞=홍^길동",
            ),
            (b"Zhang^XiaoDong=\x1B$)A\xD5\xC5^\x1B$)A\xD0\xA1\xB6\xAB", &["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
        ];
        for (bytes, sets, expected) in names {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            assert_eq!(decode(bytes, &sets).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_not_guessed() {
        let names: [(&[u8], &[&str]); 11] = [
            // Bytes of the first set beside another one's.
            (b"\xC4\xD6^\x1B$)C\xFB\xF3", &["ISO 2022 IR 100", "ISO 2022 IR 149"]),
            (b"M\xFC\xDFler^\x1B$)A\xD5\xC5", &["ISO 2022 IR 100", "ISO 2022 IR 58"]),
            (b"\xB8\xD2\xD0\xDD=\x1B$)C\xFB\xF3", &["ISO 2022 IR 144", "ISO 2022 IR 149"]),
            (b"\xC4\xD6^\x1B$)C\xFB\xF3", &["", "ISO 2022 IR 149"]),
            (b"J\xE9r\xF4me", &[]),
            (b"J\xE9r\xF4me", &["ISO_IR 6"]),
            (b"J\xE9r\xF4me", &["ISO_IR 192"]),
            (b"J\xE9r\xF4me", &["ISO_IR 999"]),
            (b"\x1B$B;3ED\x1B(B", &["ISO_IR 100"]),
            (b"\x1B$B;3\xFF\xFF", &["", "ISO 2022 IR 87"]),
            (b"\x1B-F\xC4", &["ISO 2022 IR 100", "ISO 2022 IR 126"]),
        ];
        for (bytes, sets) in names {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            assert_eq!(decode(bytes, &sets), None, "{bytes:?} {sets:?}");
        }
    }
}
