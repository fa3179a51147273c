//! What a DICOM header says about the radiograph.

use super::dataset::{DataSet, TOP};
use crate::radiograph::{Header, Orientation};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

/// Millimetres that a pixel of a radiograph can have.
const PLAUSIBLE: std::ops::RangeInclusive<f32> = 0.01..=2.0;

pub(super) fn header(data: &DataSet) -> Header {
    let text = |tag| data.text(TOP, tag);
    let uid = |tag| text(tag).filter(|uid| uid.bytes().all(|b| b == b'.' || b.is_ascii_digit()));
    let upper = |tag| text(tag).map(|value| value.to_ascii_uppercase());
    let sop_class_uid = uid(tags::SOP_CLASS_UID);
    let raw = [
        uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
        uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
        uids::DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    ];
    Header {
        for_processing: sop_class_uid.as_deref().is_some_and(|uid| raw.contains(&uid))
            || upper(tags::PRESENTATION_INTENT_TYPE).as_deref() == Some("FOR PROCESSING"),
        sop_class_uid,
        sop_instance_uid: uid(tags::SOP_INSTANCE_UID),
        study_instance_uid: uid(tags::STUDY_INSTANCE_UID),
        series_instance_uid: uid(tags::SERIES_INSTANCE_UID),
        modality: upper(tags::MODALITY),
        body_part: upper(tags::BODY_PART_EXAMINED)
            .or_else(|| data.text(tags::ANATOMIC_REGION_SEQUENCE, tags::CODE_MEANING).map(|part| part.to_ascii_uppercase())),
        view_position: upper(tags::VIEW_POSITION).or_else(|| view_code(data)),
        orientation: orientation(data),
        photometric: upper(tags::PHOTOMETRIC_INTERPRETATION),
        pixel_spacing: spacing(data, tags::PIXEL_SPACING).or_else(|| spacing(data, tags::IMAGER_PIXEL_SPACING)),
    }
}

/// Digital radiographs may give the view by a code only.
fn view_code(data: &DataSet) -> Option<String> {
    let meaning = data.text(tags::VIEW_CODE_SEQUENCE, tags::CODE_MEANING)?.to_ascii_lowercase();
    let (pa, ap) = (["postero-anterior", "posterior-anterior"], ["antero-posterior", "anterior-posterior"]);
    let says = |words: &[&str]| words.iter().any(|word| meaning.contains(word));
    Some(if says(&pa) {
        "PA".into()
    } else if says(&ap) {
        "AP".into()
    } else {
        meaning.to_ascii_uppercase()
    })
}

fn orientation(data: &DataSet) -> Option<Orientation> {
    let directions = data.texts(TOP, tags::PATIENT_ORIENTATION);
    let directions: Vec<&str> = directions.iter().map(String::as_str).collect();
    match directions[..] {
        [] | [""] | ["", ""] => None,
        ["L", "F"] => Some(Orientation::Standard),
        ["R", "F"] => Some(Orientation::Mirrored),
        _ => Some(Orientation::Other),
    }
}

fn spacing(data: &DataSet, tag: Tag) -> Option<[f32; 2]> {
    match data.texts(TOP, tag)[..] {
        [ref rows, ref columns] => {
            let number = |text: &str| text.parse::<f32>().ok().filter(|mm| PLAUSIBLE.contains(mm));
            Some([number(rows)?, number(columns)?])
        }
        _ => None,
    }
}
