//! What a file says about the radiograph in it.

use serde::Serialize;

/// How the picture is turned, from Patient Orientation or, without one, from Image Orientation (Patient).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Orientation {
    /// The patient's left is on the right of the picture: the standard frontal display (`L\F`).
    Standard,
    /// The patient's left is on the left of the picture (`R\F`).
    Mirrored,
    /// Anything else: a lateral or axial view, or a picture that does not stand upright.
    Other,
}

/// Facts of a DICOM header that matter here; all absent for other formats.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct Header {
    pub sop_class_uid: Option<String>,
    /// The name of the SOP class, where images of that class are no projection radiographs: a CT, an ultrasound image, ...
    pub other_sop_class: Option<String>,
    pub sop_instance_uid: Option<String>,
    pub study_instance_uid: Option<String>,
    pub series_instance_uid: Option<String>,
    pub modality: Option<String>,
    pub body_part: Option<String>,
    pub view_position: Option<String>,
    pub orientation: Option<Orientation>,
    /// Towards which side of the patient the picture's rows and columns run, as the header says it: `L\F`.
    pub patient_orientation: Option<String>,
    pub photometric: Option<String>,
    /// Whether pixels are raw detector values, not meant for display.
    pub for_processing: bool,
    /// Millimetres between rows and between columns, where the header gives plausible ones.
    pub pixel_spacing: Option<[f32; 2]>,
}
