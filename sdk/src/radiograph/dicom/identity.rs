//! The identity of a DICOM file, decoded from its character sets.

use super::characters::{Undecodable, decode};
use super::dataset::DataSet;
use crate::radiograph::identity::{Identity, Problem, Source, representation};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

/// Most bytes of a value: three ways of writing a name, each of 64 characters of up to four bytes, and escape sequences.
const MAX_BYTES: usize = 1024;

/// Reads the identity. `file_class` is the SOP class that the file meta information names.
pub(super) fn read(data: &DataSet, file_class: Option<&str>) -> Source {
    let sets = data.all_texts(tags::SPECIFIC_CHARACTER_SET);
    Identity::read(|tag| {
        let value = value(data, tag, &sets)?;
        let is_class = tag == tags::SOP_CLASS_UID;
        Ok(value.filter(|value| !value.is_empty()).or_else(|| file_class.filter(|_| is_class).map(str::to_owned)))
    })
}

fn value(data: &DataSet, tag: Tag, sets: &[String]) -> Result<Option<String>, Problem> {
    let Some(bytes) = data.bytes(tag) else { return Ok(None) };
    if bytes.len() > MAX_BYTES {
        return Err(Problem::wrong(format!("has {} bytes", bytes.len())));
    }
    let text = decode(bytes, sets, representation(tag) == VR::PN).map_err(|undecodable| match undecodable {
        Undecodable::Bytes => Problem::wrong(format!("cannot be decoded from the character set \"{}\"", sets.join("\\"))),
        Undecodable::Unknown(set) => Problem {
            what: format!("is in the character set \"{set}\", which is not supported"),
            advice: "write the header in another, for instance in Unicode (ISO_IR 192)",
        },
    })?;
    Ok(Some(text.trim_end_matches(['\0', ' ']).trim_start_matches(' ').to_owned()))
}
