//! The modules that all objects share (DICOM PS3.3, C.7 and C.12). Patient and study are those of the radiograph.

use super::codes::PRIVATE_SCHEME;
use super::element::{item, sequence, text};
use super::uid;
use crate::output::OutputError;
use crate::provenance::Provenance;
use crate::radiograph::{Identity, is_date, is_time, representation};
use crate::study::Study;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

/// The product's name, as maker and model of the equipment.
pub(super) const PRODUCT: &str = "AnatomiX";

/// The identity of the study's radiograph.
///
/// # Errors
/// If it is no DICOM file, or its header is not valid.
pub(super) fn identity(study: &Study) -> Result<&Identity, OutputError> {
    let missing = |message: &String| OutputError::Identity { name: study.name().into(), message: message.clone() };
    study.source.as_ref().map(|identity| &**identity).map_err(missing)
}

/// Date and time of an object's content, in DICOM's form.
pub(super) struct ContentTime {
    date: String,
    time: String,
}

impl ContentTime {
    /// The time that the caller gives, as `YYYYMMDDhhmmss`, else that of the radiograph. It is never the time at which this runs, so that
    /// the same result is the same object.
    ///
    /// # Errors
    /// If the given time is none, or none is given and the radiograph has none.
    pub fn new(given: Option<&str>, identity: &Identity, study: &Study) -> Result<Self, OutputError> {
        if let Some(given) = given {
            let parts = given.split_at_checked(8).filter(|(date, time)| is_date(date) && is_time(time) && time.len() == 6);
            let (date, time) = parts.ok_or_else(|| OutputError::Time { found: crate::text::brief(given) })?;
            return Ok(Self { date: date.into(), time: time.into() });
        }
        let [date, time] = identity.time().ok_or_else(|| OutputError::Identity {
            name: study.name().into(),
            message: "its header has no date with a time that the object could take; give the content time".into(),
        })?;
        Ok(Self { date: date.into(), time: time.into() })
    }

    /// The elements Content Date and Content Time.
    pub fn elements(&self) -> [InMemElement; 2] {
        [text(tags::CONTENT_DATE, VR::DA, &self.date), text(tags::CONTENT_TIME, VR::TM, &self.time)]
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
    let scheme = item([
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, PRIVATE_SCHEME),
        text(tags::CODING_SCHEME_NAME, VR::ST, "Structures, labels and measurements of AnatomiX"),
        text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, PRODUCT),
    ]);
    for element in [
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        text(tags::SOP_CLASS_UID, VR::UI, class_uid),
        sequence(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![scheme]),
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
