//! Writes a phantom as a digital radiograph (DX For Presentation), 12 bit.

use crate::{Layer, Scene};
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::path::Path;

/// Writes `picture` as DICOM, with MONOCHROME1 for odd seeds and MONOCHROME2 for even ones.
///
/// The header says what a technician would have entered: a standard frontal view (`L\F`), mirrored picture or not.
///
/// # Errors
/// Whatever keeps the file from being written.
pub fn write_dicom(path: &Path, scene: &Scene, picture: &Layer) -> Result<(), dicom_object::WriteError> {
    let inverted = scene.seed % 2 == 1;
    let pixels: Vec<u16> = picture
        .data
        .iter()
        .map(|&v| {
            let level = (v.clamp(0.0, 1.0) * 4095.0).round() as u16;
            if inverted { 4095 - level } else { level }
        })
        .collect();
    let study = format!("2.25.{}", 7_000_000_000_000 + scene.seed);
    let instance = format!("{study}.1.1");
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let number = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let spacing = format!("{:.4}", 350.0 / f64::from(picture.width.max(picture.height)));
    let mut object = InMemDicomObject::new_empty();
    for element in [
        text(tags::SOP_CLASS_UID, VR::UI, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION),
        text(tags::SOP_INSTANCE_UID, VR::UI, &instance),
        text(tags::STUDY_INSTANCE_UID, VR::UI, &study),
        text(tags::SERIES_INSTANCE_UID, VR::UI, &format!("{study}.1")),
        text(tags::MODALITY, VR::CS, "DX"),
        text(tags::PATIENT_NAME, VR::PN, "Phantom^Synthetic"),
        text(tags::PATIENT_ID, VR::LO, &scene.id()),
        text(tags::STUDY_DATE, VR::DA, "20260101"),
        text(tags::STUDY_TIME, VR::TM, "120000"),
        text(tags::INSTANCE_NUMBER, VR::IS, "1"),
        text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST"),
        text(tags::VIEW_POSITION, VR::CS, if scene.ap_view { "AP" } else { "PA" }),
        text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PRESENTATION"),
        text(tags::PRESENTATION_LUT_SHAPE, VR::CS, if inverted { "INVERSE" } else { "IDENTITY" }),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, if inverted { "MONOCHROME1" } else { "MONOCHROME2" }),
        text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES"),
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
    let file = object.with_meta(meta).map_err(|_| dicom_object::WriteError::WritePreamble {
        backtrace: std::backtrace::Backtrace::disabled(),
        source: std::io::Error::other("the file meta table is incomplete"),
    });
    file?.write_to_file(path)
}
