//! DICOM files of phantoms: Digital X-Ray Image Storage - For Presentation, 12 bit.

use crate::files::{DatasetError, replace};
use crate::layer::Layer;
use crate::scene::Scene;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::path::Path;

/// Writes `picture` as DICOM, with MONOCHROME1 for odd seeds and MONOCHROME2 for even ones.
///
/// Patient Orientation is `L\F`, that of a standard frontal view, even if the picture is mirrored: a technician would not have entered
/// anything else.
///
/// # Errors
/// [`DatasetError`], which names the file.
pub fn write_dicom(path: &Path, scene: &Scene, picture: &Layer) -> Result<(), DatasetError> {
    let inverted = scene.seed % 2 == 1;
    let pixels: Vec<u16> = picture
        .data
        .iter()
        .map(|&v| {
            let level = (v.clamp(0.0, 1.0) * 4095.0).round() as u16;
            if inverted { 4095 - level } else { level }
        })
        .collect();
    let uid = |kind: u64| format!("2.25.{}", u128::from(kind) * 1_000_000_000_000_000_000_000 + u128::from(scene.seed));
    let (study, series, instance) = (uid(1), uid(2), uid(3));
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let number = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let spacing = format!("{:.4}", 350.0 / f64::from(picture.width.max(picture.height)));
    let chest = InMemDicomObject::from_element_iter([
        text(tags::CODE_VALUE, VR::SH, "51185008"),
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "SCT"),
        text(tags::CODE_MEANING, VR::LO, "Chest"),
    ]);
    // Pixel values of a picture that is not inverted increase with attenuation, so they decrease with the detected intensity.
    let sign: i16 = if inverted { 1 } else { -1 };
    let mut object = InMemDicomObject::new_empty();
    for element in [
        text(tags::SOP_CLASS_UID, VR::UI, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION),
        text(tags::SOP_INSTANCE_UID, VR::UI, &instance),
        text(tags::STUDY_INSTANCE_UID, VR::UI, &study),
        text(tags::SERIES_INSTANCE_UID, VR::UI, &series),
        text(tags::MODALITY, VR::CS, "DX"),
        text(tags::PATIENT_NAME, VR::PN, "Phantom^Synthetic"),
        text(tags::PATIENT_ID, VR::LO, &scene.id()),
        text(tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        text(tags::PATIENT_SEX, VR::CS, ""),
        text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
        text(tags::ACCESSION_NUMBER, VR::SH, ""),
        text(tags::STUDY_ID, VR::SH, "1"),
        text(tags::SERIES_NUMBER, VR::IS, "1"),
        text(tags::MANUFACTURER, VR::LO, "anatomix-phantom"),
        text(tags::CONTENT_DATE, VR::DA, "20260101"),
        text(tags::CONTENT_TIME, VR::TM, "120000"),
        text(tags::IMAGE_LATERALITY, VR::CS, "U"),
        text(tags::DETECTOR_TYPE, VR::CS, ""),
        text(tags::POSITIONER_TYPE, VR::CS, ""),
        text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
        text(tags::PIXEL_INTENSITY_RELATIONSHIP, VR::CS, "LOG"),
        DataElement::new(tags::PIXEL_INTENSITY_RELATIONSHIP_SIGN, VR::SS, PrimitiveValue::from(sign)),
        DataElement::new(tags::ANATOMIC_REGION_SEQUENCE, VR::SQ, DataSetSequence::from(vec![chest])),
        DataElement::new(tags::ACQUISITION_CONTEXT_SEQUENCE, VR::SQ, DataSetSequence::<InMemDicomObject>::empty()),
        text(tags::STUDY_DATE, VR::DA, "20260101"),
        text(tags::STUDY_TIME, VR::TM, "120000"),
        text(tags::INSTANCE_NUMBER, VR::IS, "1"),
        text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST"),
        text(tags::VIEW_POSITION, VR::CS, if scene.ap_view { "AP" } else { "PA" }),
        text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PRESENTATION"),
        text(tags::PRESENTATION_LUT_SHAPE, VR::CS, if inverted { "INVERSE" } else { "IDENTITY" }),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, if inverted { "MONOCHROME1" } else { "MONOCHROME2" }),
        text(tags::BURNED_IN_ANNOTATION, VR::CS, if scene.markers { "YES" } else { "NO" }),
        text(tags::RESCALE_INTERCEPT, VR::DS, "0"),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        text(tags::RESCALE_TYPE, VR::LO, "US"),
        DataElement::new(tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["DERIVED", "PRIMARY"])),
        DataElement::new(tags::PATIENT_ORIENTATION, VR::CS, dicom_value!(Strs, ["L", "F"])),
        DataElement::new(tags::PIXEL_SPACING, VR::DS, dicom_value!(Strs, [spacing.clone(), spacing.clone()])),
        DataElement::new(tags::IMAGER_PIXEL_SPACING, VR::DS, dicom_value!(Strs, [spacing.clone(), spacing.clone()])),
        text(tags::WINDOW_CENTER, VR::DS, "2048"),
        text(tags::WINDOW_WIDTH, VR::DS, "4096"),
        number(tags::SAMPLES_PER_PIXEL, 1),
        number(tags::ROWS, picture.height as u16),
        number(tags::COLUMNS, picture.width as u16),
        number(tags::BITS_ALLOCATED, 16),
        number(tags::BITS_STORED, 12),
        number(tags::HIGH_BIT, 11),
        number(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())),
    ] {
        object.put(element);
    }
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION)
        .media_storage_sop_instance_uid(&instance);
    let failed = |message: String| DatasetError::Picture { path: path.into(), message };
    let file = object.with_meta(meta).map_err(|e| failed(e.to_string()))?;
    replace(path, |part, _| file.write_to_file(part).map_err(|e| failed(e.to_string())))
}
