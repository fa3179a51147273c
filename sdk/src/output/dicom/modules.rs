//! The modules that all objects share (DICOM PS3.3, C.7 and C.12). Patient and study are those of the radiograph.

use super::element::{item, sequence, text};
use crate::output::codes::PRIVATE_SCHEME;
use crate::output::document::{ContentTime, PRODUCT};
use crate::output::uid;
use crate::perception::flags::FlagCode;
use crate::provenance::Provenance;
use crate::radiograph::{Identity, representation};
use crate::study::Study;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

/// The elements Content Date and Content Time.
pub(super) fn content_time(time: &ContentTime) -> [InMemElement; 2] {
    [text(tags::CONTENT_DATE, VR::DA, &time.date), text(tags::CONTENT_TIME, VR::TM, &time.time)]
}

/// The body part in the series of an image or a presentation state: the chest, which has no side, unless a flag says that it is another
/// one, whose side is unknown.
pub(super) fn body_part(study: &Study) -> InMemElement {
    match study.flags().iter().any(|flag| flag.code == FlagCode::NotChest) {
        true => text(tags::LATERALITY, VR::CS, ""),
        false => text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST"),
    }
}

/// The series of an object.
pub(super) struct Series<'a> {
    pub modality: &'static str,
    /// What the series holds; another kind of object is another series.
    pub kind: &'static str,
    pub description: &'a str,
}

/// The elements of the modules Patient (C.7.1.1), General Study (C.7.2.1), the series, General and Enhanced General Equipment (C.7.5), and
/// SOP Common (C.12.1) without SOP Instance UID.
pub(super) fn common(class_uid: &str, identity: &Identity, series: &Series, provenance: &Provenance) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    let copied = |tag: Tag| text(tag, representation(tag), identity.get(tag));
    // Type 1 and 2: present, though some may be empty.
    let required = [
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::STUDY_ID,
        tags::ACCESSION_NUMBER,
        tags::REFERRING_PHYSICIAN_NAME,
    ];
    // Type 3: left out if the radiograph has none.
    let optional = [tags::ISSUER_OF_PATIENT_ID, tags::TIMEZONE_OFFSET_FROM_UTC];
    let optional = optional.into_iter().filter(|&tag| !identity.get(tag).is_empty());
    required.into_iter().chain(optional).for_each(|tag| _ = object.put(copied(tag)));
    let Provenance { sdk, bundle_sha256, input_sha256, .. } = provenance;
    let series_uid = uid::derived(&[
        b"series",
        series.kind.as_bytes(),
        identity.get(tags::STUDY_INSTANCE_UID).as_bytes(),
        input_sha256.as_bytes(),
        bundle_sha256.as_bytes(),
        sdk.as_bytes(),
    ]);
    for element in [
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        text(tags::SOP_CLASS_UID, VR::UI, class_uid),
        text(tags::MODALITY, VR::CS, series.modality),
        text(tags::SERIES_INSTANCE_UID, VR::UI, &series_uid),
        text(tags::SERIES_NUMBER, VR::IS, "1"),
        text(tags::SERIES_DESCRIPTION, VR::LO, series.description),
        text(tags::INSTANCE_NUMBER, VR::IS, "1"),
        text(tags::MANUFACTURER, VR::LO, PRODUCT),
        text(tags::MANUFACTURER_MODEL_NAME, VR::LO, PRODUCT),
        // The model is in the bundle, so its hash says which one of the devices this is.
        text(tags::DEVICE_SERIAL_NUMBER, VR::LO, bundle_sha256),
        text(tags::SOFTWARE_VERSIONS, VR::LO, sdk),
    ] {
        object.put(element);
    }
    object
}

/// The element that declares the private coding scheme, of an object that uses it.
pub(super) fn private_scheme() -> InMemElement {
    let scheme = item([
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, PRIVATE_SCHEME),
        text(tags::CODING_SCHEME_NAME, VR::ST, "Structures, labels and measurements of AnatomiX"),
        text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, PRODUCT),
    ]);
    sequence(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![scheme])
}
