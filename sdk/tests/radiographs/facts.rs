//! What the header says about the radiograph.

use super::file::*;
use anatomix::radiograph::Orientation;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

#[test]
fn the_header_is_read_and_cleaned() {
    let file = File::new()
        .text(tags::PATIENT_ORIENTATION, VR::CS, "L\\F")
        .text(tags::VIEW_POSITION, VR::CS, "pa")
        .text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST\u{1b}[2J\n")
        .text(tags::IMAGER_PIXEL_SPACING, VR::DS, "0.143\\0.15")
        .text(tags::PIXEL_SPACING, VR::DS, "0\\0")
        .text(tags::STUDY_INSTANCE_UID, VR::UI, "not a uid")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, &"1".repeat(9000));
    let opened = file.open();
    let header = opened.header();
    assert_eq!(header.orientation, Some(Orientation::Standard));
    assert_eq!(header.view_position.as_deref(), Some("PA"));
    assert_eq!(header.body_part.as_deref(), Some("CHEST[2J"));
    assert_eq!(header.modality.as_deref(), Some("CR"));
    assert_eq!(header.photometric.as_deref(), Some("MONOCHROME2"));
    assert_eq!(header.sop_class_uid.as_deref(), Some(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE));
    assert_eq!(header.sop_instance_uid.as_deref(), Some("2.25.1"));
    assert_eq!(header.study_instance_uid, None);
    assert_eq!(header.series_instance_uid.as_ref().map(String::len), Some(64));
    assert_eq!(header.pixel_spacing, Some([0.143, 0.15]));
    assert!(!header.for_processing);
    let bare = File::new().open();
    assert_eq!((bare.header().orientation, bare.header().pixel_spacing), (None, None));
    let turned = |value: &str| File::new().text(tags::PATIENT_ORIENTATION, VR::CS, value).open().header().orientation;
    assert_eq!(turned("R\\F"), Some(Orientation::Mirrored));
    assert_eq!(turned("A\\F"), Some(Orientation::Other));
    assert_eq!(turned("\\"), None);
    assert!(File::new().text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PROCESSING").open().header().for_processing);
}
