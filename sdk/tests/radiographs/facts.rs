//! Facts about the radiograph in the header, and the flags that follow from them.

use super::file::*;
use anatomix::parts::perception::flags::of_radiograph;
use anatomix::{FlagCode, Orientation, Radiograph};
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

/// The codes of the header's flags.
fn flagged(file: File) -> Vec<FlagCode> {
    of_radiograph(&file.open()).into_iter().map(|flag| flag.code).collect()
}

#[test]
fn other_kinds_of_images_are_flagged_by_their_sop_class() {
    let others = [
        (uids::CT_IMAGE_STORAGE, "CT Image Storage"),
        (uids::ENHANCED_CT_IMAGE_STORAGE, "Enhanced CT"),
        (uids::MR_IMAGE_STORAGE, "MR Image Storage"),
        (uids::ULTRASOUND_IMAGE_STORAGE, "Ultrasound"),
        (uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION, "Mammography"),
        (uids::POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE, "Positron"),
        (uids::SEGMENTATION_STORAGE, "Segmentation"),
        (uids::VL_PHOTOGRAPHIC_IMAGE_STORAGE, "VL Photographic"),
    ];
    for (class, name) in others {
        let bare = || File::new().without(tags::MODALITY);
        let flags = of_radiograph(&bare().text(tags::SOP_CLASS_UID, VR::UI, class).open());
        assert_eq!(flags.iter().map(|flag| flag.code).collect::<Vec<_>>(), [FlagCode::NotChest], "{name}");
        assert!(flags[0].message.contains(name), "{}", flags[0].message);
        // If the data set has no SOP class, that of the file meta information is used.
        assert_eq!(flagged(File { class, ..bare().without(tags::SOP_CLASS_UID) }), [FlagCode::NotChest], "{name}");
        // SOP class and modality together give one flag.
        assert_eq!(flagged(File::new().text(tags::SOP_CLASS_UID, VR::UI, class).text(tags::MODALITY, VR::CS, "CT")), [FlagCode::NotChest]);
    }
    for class in [uids::SECONDARY_CAPTURE_IMAGE_STORAGE, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION, "1.2.3.4"] {
        assert_eq!(flagged(File::new().without(tags::MODALITY).text(tags::SOP_CLASS_UID, VR::UI, class)), []);
    }
}

#[test]
fn pictures_that_are_not_frontal_or_do_not_stand_upright_are_flagged() {
    let oriented = |value: &str| File::new().text(tags::PATIENT_ORIENTATION, VR::CS, value);
    for value in ["A\\F", "P\\F", "L\\H", "F\\L", "R\\A", "LA\\F"] {
        let flags = of_radiograph(&oriented(value).open());
        assert_eq!(flags.iter().map(|flag| flag.code).collect::<Vec<_>>(), [FlagCode::NotFrontal], "{value}");
        assert!(flags[0].message.contains(value), "{}", flags[0].message);
    }
    // A mirrored radiograph is flagged later, by the positions of its structures.
    for value in ["L\\F", "R\\F", "LH\\FR", "L\\", "\\", ""] {
        assert_eq!(flagged(oriented(value)), [], "{value:?}");
    }
    // Cross-sectional images have direction cosines instead.
    let cosines = |value: &str| File::new().text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, value);
    assert_eq!(flagged(cosines("1\\0\\0\\0\\1\\0")), [FlagCode::NotFrontal]);
    assert_eq!(flagged(cosines("1\\0\\0.02\\0\\0.1\\-0.99")), []);
    assert_eq!(flagged(cosines("1\\0\\wide")), []);
}

#[test]
fn body_parts_are_compared_as_words() {
    let part = |value: &str| flagged(File::new().text(tags::BODY_PART_EXAMINED, VR::CS, value));
    assert_eq!((part("SCRIBE"), part("HAND")), (vec![FlagCode::NotChest], vec![FlagCode::NotChest]));
    assert_eq!((part("RIBS"), part("CHEST PA"), part("PORT_CHEST")), (vec![], vec![], vec![]));
}

#[test]
fn formats_without_a_header_are_flagged_for_nothing_of_it() {
    let flags = of_radiograph(&Radiograph::from_bytes(&jpeg().1, NAME).unwrap());
    assert!(flags.is_empty(), "{flags:?}");
}

#[test]
fn the_history_of_the_pixels_is_read() {
    let file = File::new()
        .text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES")
        .text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01")
        .text(tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, "12.5\\20")
        .text(tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, "ISO_10918_1\\ISO_15444_1\u{1b}[31m")
        .window("2000", "100", "");
    let history = file.open().header().history.clone();
    assert_eq!([history.window, history.burned_in_annotation, history.lossy_image_compression].join(" "), "1 YES 01");
    assert_eq!(history.lossy_image_compression_ratio, r"12.5\20");
    assert_eq!(history.lossy_image_compression_method, r"ISO_10918_1\ISO_15444_1[31m");
    assert_eq!(File::new().open().header().history, Default::default());
}

#[test]
fn an_image_that_was_changed_has_a_hash_of_its_own() {
    let pixels: Vec<u8> = (0..64 * 40).map(|i| (i % 61) as u8).collect();
    for whole in [Radiograph::from_pixels_u8(64, 40, &pixels).unwrap(), File::new().open()] {
        let mirrored = whole.mirrored().unwrap();
        let changed = [mirrored.clone(), whole.clone().inverted(), mirrored.clone().inverted()];
        let mut hashes: Vec<&str> = changed.iter().map(|image| image.sha256()).chain([whole.sha256()]).collect();
        assert!(hashes.iter().all(|hash| hash.len() == 64), "{hashes:?}");
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 4);
        // The same image has the same hash, however it was made.
        assert_eq!(mirrored.mirrored().unwrap().sha256(), whole.sha256());
        assert_eq!(mirrored.inverted().sha256(), whole.clone().inverted().mirrored().unwrap().sha256());
        let line = format!("inverted {}\n", whole.sha256());
        assert_eq!(whole.inverted().sha256(), anatomix::parts::hash::Digest::of(line.as_bytes()).to_string());
    }
}
