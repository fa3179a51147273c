//! Facts about the radiograph from its DICOM header.

use super::dataset::{DataSet, TOP};
use crate::radiograph::{Header, Orientation, PixelHistory};
use dicom_core::Tag;
use dicom_core::dictionary::UidDictionary;
use dicom_dictionary_std::{StandardSopClassDictionary, tags, uids};

/// Plausible sizes of a pixel in millimetres.
const PLAUSIBLE: std::ops::RangeInclusive<f32> = 0.01..=2.0;

/// SOP classes whose images may be projection radiographs.
const RADIOGRAPHS: [&str; 12] = [
    uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_SINGLE_BIT_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE,
    uids::ENHANCED_XA_IMAGE_STORAGE,
    uids::X_RAY_RADIOFLUOROSCOPIC_IMAGE_STORAGE,
    uids::ENHANCED_XRF_IMAGE_STORAGE,
];

/// `window` is the number of the transform of interest that the pixels are displayed with.
pub(super) fn header(data: &DataSet, file_class: Option<&str>, window: Option<usize>) -> Header {
    let text = |tag| data.text(TOP, tag);
    let uid = |tag| text(tag).filter(|uid| uid.bytes().all(|b| b == b'.' || b.is_ascii_digit()));
    let upper = |tag| text(tag).map(|value| value.to_ascii_uppercase());
    let sop_class_uid = uid(tags::SOP_CLASS_UID).or_else(|| file_class.map(str::to_owned));
    let (orientation, patient_orientation) = orientation(data);
    let raw = [
        uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
        uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
        uids::DIGITAL_INTRA_ORAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
    ];
    Header {
        for_processing: sop_class_uid.as_deref().is_some_and(|uid| raw.contains(&uid))
            || upper(tags::PRESENTATION_INTENT_TYPE).as_deref() == Some("FOR PROCESSING"),
        history: history(data, window),
        other_sop_class: sop_class_uid.as_deref().and_then(other_class),
        sop_class_uid,
        sop_instance_uid: uid(tags::SOP_INSTANCE_UID),
        study_instance_uid: uid(tags::STUDY_INSTANCE_UID),
        series_instance_uid: uid(tags::SERIES_INSTANCE_UID),
        modality: upper(tags::MODALITY),
        body_part: upper(tags::BODY_PART_EXAMINED)
            .or_else(|| data.text(tags::ANATOMIC_REGION_SEQUENCE, tags::CODE_MEANING).map(|part| part.to_ascii_uppercase())),
        view_position: upper(tags::VIEW_POSITION).or_else(|| view_code(data)),
        orientation,
        patient_orientation,
        photometric: upper(tags::PHOTOMETRIC_INTERPRETATION),
        pixel_spacing: spacing(data, tags::PIXEL_SPACING).or_else(|| spacing(data, tags::IMAGER_PIXEL_SPACING)),
    }
}

/// Height and width of a pixel in any unit.
pub(super) fn aspect(data: &DataSet, header: &Header) -> [u32; 2] {
    match header.pixel_spacing {
        // A difference that cannot be seen is none.
        Some([height, width]) if (height / width - 1.0).abs() > 1e-3 => [height, width].map(|side| (side * 1e4).round() as u32),
        Some(_) => [1, 1],
        None => {
            let given = data.texts(TOP, tags::PIXEL_ASPECT_RATIO).iter().map(|text| text.parse().ok()).collect::<Option<Vec<u16>>>();
            match given.as_deref() {
                Some(&[height, width]) if height > 0 && width > 0 => [height, width].map(u32::from),
                _ => [1, 1],
            }
        }
    }
}

/// Whether the header says that the image was compressed with losses.
pub(super) fn is_lossy(data: &DataSet) -> bool {
    data.text(TOP, tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01")
}

fn history(data: &DataSet, window: Option<usize>) -> PixelHistory {
    let text = |tag| data.all_texts(tag).join("\\");
    PixelHistory {
        window: window.map(|window| window.to_string()).unwrap_or_default(),
        burned_in_annotation: text(tags::BURNED_IN_ANNOTATION),
        lossy_image_compression: text(tags::LOSSY_IMAGE_COMPRESSION),
        lossy_image_compression_ratio: text(tags::LOSSY_IMAGE_COMPRESSION_RATIO),
        lossy_image_compression_method: text(tags::LOSSY_IMAGE_COMPRESSION_METHOD),
    }
}

/// The view position from View Code Sequence. Some digital radiographs have no other.
fn view_code(data: &DataSet) -> Option<String> {
    let meaning = data.text(tags::VIEW_CODE_SEQUENCE, tags::CODE_MEANING)?.to_ascii_lowercase();
    let (pa, ap) = (["postero-anterior", "posterior-anterior"], ["antero-posterior", "anterior-posterior"]);
    let contains = |words: &[&str]| words.iter().any(|word| meaning.contains(word));
    Some(if contains(&pa) {
        "PA".into()
    } else if contains(&ap) {
        "AP".into()
    } else {
        meaning.to_ascii_uppercase()
    })
}

/// The name of a standard SOP class whose images are not radiographs; `None` for private classes, which are unknown.
fn other_class(uid: &str) -> Option<String> {
    let known = StandardSopClassDictionary.by_uid(uid).filter(|_| !RADIOGRAPHS.contains(&uid))?;
    Some(known.name.to_owned())
}

/// Orientation of the picture, and the directions in the header that it follows from.
fn orientation(data: &DataSet) -> (Option<Orientation>, Option<String>) {
    let mut directions = data.texts(TOP, tags::PATIENT_ORIENTATION);
    if directions.iter().all(String::is_empty) {
        directions = directions_by_cosines(data).unwrap_or_default();
    }
    let of = |index: usize| directions.get(index).map_or("", String::as_str);
    (classify(of(0), of(1)), (!directions.is_empty()).then(|| directions.join("\\")))
}

/// The orientation for these directions of rows and columns (DICOM PS3.3, C.7.6.1.1.1). Second and third letters mean that a direction is
/// oblique: within the frontal plane this is accepted, out of it the view is another one.
fn classify(row: &str, column: &str) -> Option<Orientation> {
    let points = |direction: &str, first: char, others: [char; 2]| {
        direction.strip_prefix(first).is_some_and(|rest| rest.chars().all(|letter| others.contains(&letter)))
    };
    let downwards = column.is_empty() || points(column, 'F', ['L', 'R']);
    match (row, column) {
        ("", "") => None,
        ("", _) if downwards => None,
        _ if downwards && points(row, 'L', ['H', 'F']) => Some(Orientation::Standard),
        _ if downwards && points(row, 'R', ['H', 'F']) => Some(Orientation::Mirrored),
        _ => Some(Orientation::Other),
    }
}

/// Directions from Image Orientation (Patient), which cross-sectional images have instead: the largest component of each vector.
fn directions_by_cosines(data: &DataSet) -> Option<Vec<String>> {
    let cosines: Vec<f32> = data.texts(TOP, tags::IMAGE_ORIENTATION_PATIENT).iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    let direction = |vector: &[f32; 3]| {
        let (axis, part) = vector.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
        let [negative, positive] = [["R", "L"], ["A", "P"], ["F", "H"]][axis];
        Some(if *part < 0.0 { negative } else { positive }.to_owned())
    };
    match cosines.as_chunks().0 {
        [row, column] => Some(vec![direction(row)?, direction(column)?]),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oblique_directions_in_the_frontal_plane_are_frontal() {
        let standard = [("L", "F"), ("LH", "F"), ("L", "FR"), ("LF", "FL"), ("L", "")];
        let other = [("A", "F"), ("L", "H"), ("F", "L"), ("LA", "F"), ("L", "FP"), ("R", "H"), ("LE", "VT"), ("", "H"), ("H", "")];
        assert!(standard.iter().all(|(row, column)| classify(row, column) == Some(Orientation::Standard)));
        assert!(other.iter().all(|(row, column)| classify(row, column) == Some(Orientation::Other)));
        assert_eq!((classify("R", "F"), classify("RF", "FL")), (Some(Orientation::Mirrored), Some(Orientation::Mirrored)));
        assert_eq!((classify("", ""), classify("", "F")), (None, None));
    }
}
