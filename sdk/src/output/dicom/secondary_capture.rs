//! Secondary captures (DICOM PS3.3, A.8.1): the overlay as an image that every viewer shows.

use super::content::{ImageReference, code};
use super::element::{sequence, text, words};
use super::modules::{Series, body_part, common, content_time};
use super::object;
use crate::output::document::Document;
use crate::output::{OutputError, Overlay, codes, write_private};
use crate::study::Study;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use std::path::Path;

/// A DICOM Secondary Capture image (1.2.840.10008.5.1.4.1.1.7) with an overlay, in the study that the radiograph belongs to: the last
/// resort for viewers that show neither structured reports nor presentation states.
///
/// It is a colour picture of at most 1,650 pixels, in RGB of 8 bits. Its header says that it was derived, from which image, and that
/// annotations are burned in: the radiograph's file name and the answer's question are part of the picture.
///
/// The same study, overlay and options give the same bytes. So Content Date and Time are those of the radiograph, unless
/// [`content_time`](Self::content_time) gives others.
///
/// ```no_run
/// # use anatomix::{Engine, Radiograph};
/// # use anatomix::output::Overlay;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder().open("examples/reference-bundle")?;
/// let radiograph = Radiograph::open("chest.dcm")?;
/// let study = engine.study(&radiograph)?;
/// study.secondary_capture(&Overlay::of_study(&study, &radiograph)?).write("overlay.dcm")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct SecondaryCapture<'a> {
    document: Document<'a>,
    overlay: &'a Overlay,
}

impl<'a> SecondaryCapture<'a> {
    /// The secondary capture of a study with this overlay, which is of the study or of an answer about it.
    pub fn of(study: &'a Study, overlay: &'a Overlay) -> Self {
        Self { document: Document::of(study, &[]), overlay }
    }

    /// Sets Content Date and Content Time, as `YYYYMMDDhhmmss`: the time at which the results were made. Without it, they are those of the
    /// radiograph's content, acquisition, series or study, whichever its header has.
    #[must_use]
    pub fn content_time(self, time: &'a str) -> Self {
        Self { document: Document { content_time: Some(time), ..self.document }, ..self }
    }

    /// The bytes of a DICOM file.
    ///
    /// # Errors
    /// [`OutputError`]: if the radiograph is not a DICOM file, its header lacks or misspells what identifies patient, study or image, there
    /// is no content time, or the overlay is of another radiograph or bundle.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        let (identity, time) = self.document.check()?;
        let study = self.document.study;
        if !self.overlay.is_of(study.provenance()) {
            return Err(OutputError::ForeignOverlay { name: study.name().into() });
        }
        let picture = self.overlay.render();
        let image = ImageReference { class_uid: identity.get(tags::SOP_CLASS_UID), instance_uid: identity.get(tags::SOP_INSTANCE_UID) };
        let series = Series { modality: "OT", kind: "secondary capture", description: "AnatomiX, for research use" };
        let mut capture = common(uids::SECONDARY_CAPTURE_IMAGE_STORAGE, identity, &series, study.provenance());
        let mut source = image.item();
        source.put(text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "NO"));
        source.put(sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![code(codes::SOURCE_IMAGE)]));
        let derivation = "Boxes and labels drawn over the image, which was scaled; for research use, not a medical device";
        // The modules SC Equipment (C.8.6.1) and General Image (C.7.6.1). A picture with margins has no orientation.
        let general = [
            text(tags::CONVERSION_TYPE, VR::CS, "WSD"),
            body_part(study),
            text(tags::PATIENT_ORIENTATION, VR::CS, ""),
            text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY"),
            text(tags::DERIVATION_DESCRIPTION, VR::ST, derivation),
            sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source]),
            text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES"),
        ];
        let lossy = identity.shown().map(|shown| text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, if shown.lossy { "01" } else { "00" }));
        // The module Image Pixel (C.7.6.3). A side of the picture has at most 1,650 pixels.
        let word = |tag, value: u32| words(tag, VR::US, &[value as u16]);
        let pixels = [
            word(tags::SAMPLES_PER_PIXEL, 3),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"),
            word(tags::PLANAR_CONFIGURATION, 0),
            word(tags::ROWS, picture.height()),
            word(tags::COLUMNS, picture.width()),
            word(tags::BITS_ALLOCATED, 8),
            word(tags::BITS_STORED, 8),
            word(tags::HIGH_BIT, 7),
            word(tags::PIXEL_REPRESENTATION, 0),
            DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(picture.into_raw().into())),
        ];
        let elements = general.into_iter().chain(content_time(&time)).chain(lossy).chain(pixels);
        elements.for_each(|element| _ = capture.put(element));
        object::file(capture)
    }

    /// Writes the image as a DICOM file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// As [`SecondaryCapture::to_bytes`], and if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        write_private(path, &self.to_bytes()?)
    }
}

impl Study {
    /// The DICOM Secondary Capture image of this study with an overlay of it or of an answer about it.
    pub fn secondary_capture<'a>(&'a self, overlay: &'a Overlay) -> SecondaryCapture<'a> {
        SecondaryCapture::of(self, overlay)
    }
}
