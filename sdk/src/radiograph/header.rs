//! What a file says about its radiograph.

/// Orientation of the picture, from Patient Orientation or, if it is absent, from Image Orientation (Patient).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Orientation {
    /// The patient's left is on the right of the picture: the standard frontal display (`L\F`).
    Standard,
    /// The patient's left is on the left of the picture (`R\F`).
    Mirrored,
    /// Any other: a lateral or axial view, or a picture that is not upright.
    Other,
}

/// Facts from a DICOM header. All are absent for other formats.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct Header {
    pub sop_class_uid: Option<String>,
    /// Name of the SOP class if its images are not projection radiographs: a CT, an ultrasound image, ...
    pub other_sop_class: Option<String>,
    pub sop_instance_uid: Option<String>,
    pub study_instance_uid: Option<String>,
    pub series_instance_uid: Option<String>,
    pub modality: Option<String>,
    pub body_part: Option<String>,
    pub view_position: Option<String>,
    pub orientation: Option<Orientation>,
    /// Directions of the picture's rows and columns in the patient, as the header gives them: `L\F`.
    pub patient_orientation: Option<String>,
    pub photometric: Option<String>,
    /// Whether pixels are raw detector values that are not meant for display.
    pub for_processing: bool,
    /// Millimetres between rows, and between columns, if the header gives plausible values.
    pub pixel_spacing: Option<[f32; 2]>,
}
