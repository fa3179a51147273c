//! What a file says about its radiograph.

use serde::{Deserialize, Serialize};

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

/// How the pixels of a DICOM file were made and displayed. The values are written as in its header, several of them with `\\` between; one
/// is empty if the header does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct PixelHistory {
    /// Which of the header's VOI LUTs and windows the pixels are displayed with, counted from 1; see
    /// [`ReadOptions`](crate::ReadOptions::window).
    pub window: String,
    /// Burned In Annotation (0028,0301): `YES` or `NO`.
    pub burned_in_annotation: String,
    /// Lossy Image Compression (0028,2110): `01` if the pixels were compressed with losses at any time, `00` if not.
    pub lossy_image_compression: String,
    /// Lossy Image Compression Ratio (0028,2112) of each compression.
    pub lossy_image_compression_ratio: String,
    /// Lossy Image Compression Method (0028,2114) of each compression, for example `ISO_10918_1`.
    pub lossy_image_compression_method: String,
}

impl PixelHistory {
    /// Whether a file could have these values, so that they can be shown.
    pub(crate) fn is_valid(&self) -> bool {
        let Self { window, burned_in_annotation, .. } = self;
        let Self { lossy_image_compression, lossy_image_compression_ratio, lossy_image_compression_method, .. } = self;
        let lossy = [lossy_image_compression, lossy_image_compression_ratio, lossy_image_compression_method];
        let is_shown =
            |value: &String| value.len() <= MAX_VALUE && value.chars().all(|c| c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ');
        lossy.into_iter().chain([window, burned_in_annotation]).all(is_shown)
    }
}

/// Most bytes of a value of [`PixelHistory`]: 32 texts of 64 characters.
const MAX_VALUE: usize = 32 * (4 * 64 + 1);

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
    /// How the pixels were made and displayed.
    pub history: PixelHistory,
    /// Millimetres between rows, and between columns, if the header gives plausible values.
    pub pixel_spacing: Option<[f32; 2]>,
}
