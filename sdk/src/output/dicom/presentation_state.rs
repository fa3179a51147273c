//! Grayscale softcopy presentation states (DICOM PS3.3, A.33.1): boxes and labels that viewers draw over the image.

use super::content::ImageReference;
use super::element::{corners, decimal, floats, integers, item, line, lines, sequence, text, words};
use super::modules::{Series, body_part, common};
use super::object;
use crate::answer::Answer;
use crate::geometry::PixelBox;
use crate::output::document::{Document, unidentified};
use crate::output::record::pixels;
use crate::output::{OutputError, write_private};
use crate::radiograph::shown::{Function, Lut, Modality, Shown, Voi};
use crate::results::StructureResult;
use crate::retrieval::{is_finding, noted};
use crate::study::Study;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use std::path::Path;

/// A DICOM Grayscale Softcopy Presentation State (1.2.840.10008.5.1.4.1.1.11.1) of a study and of answers about it, in the study that the
/// radiograph belongs to: viewers draw its boxes and labels over the image, also those that show no structured report.
///
/// Each box is a closed polygon in pixels of the radiograph, with a text at its top-left corner. There is a layer for structures with a
/// finding, one for the other structures, and one for each answer. The image is displayed as its own header says. `docs/dicom.md` says
/// where each value comes from.
///
/// The same study, answers and options give the same bytes. So the creation date and time are those of the radiograph, unless
/// [`content_time`](Self::content_time) gives others.
///
/// ```no_run
/// # use anatomix::{Engine, Radiograph};
/// # fn main() -> anatomix::Result<()> {
/// # let engine = Engine::builder().open("examples/reference-bundle")?;
/// let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
/// let answer = study.ask("Where is the left lung?")?;
/// study.presentation_state(&[answer]).write("boxes.dcm")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct PresentationState<'a> {
    document: Document<'a>,
}

/// Boxes with labels that are shown and hidden together.
struct Layer {
    name: String,
    description: String,
    boxes: Vec<(PixelBox, String)>,
}

impl<'a> PresentationState<'a> {
    /// The presentation state of a study with these answers of it, which may be none.
    pub fn of(study: &'a Study, answers: &'a [Answer]) -> Self {
        Self { document: Document::of(study, answers) }
    }

    /// Sets the creation date and time, as `YYYYMMDDhhmmss`: the time at which the results were made. Without it, they are those of the
    /// radiograph's content, acquisition, series or study, whichever its header has.
    #[must_use]
    pub fn content_time(self, time: &'a str) -> Self {
        Self { document: Document { content_time: Some(time), ..self.document } }
    }

    /// The bytes of a DICOM file.
    ///
    /// # Errors
    /// [`OutputError`]: if the radiograph is not a DICOM file, its header lacks or misspells what identifies patient, study or image, there
    /// is no content time, an answer is about another radiograph or from another bundle, or the study was saved by a version that did not
    /// keep how the image is displayed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        let (identity, time) = self.document.check()?;
        let Document { study, answers, .. } = self.document;
        let unknown = "how it is displayed was not saved, or overflows; perceive the image again, or correct the header";
        let shown = identity.shown().ok_or_else(|| unidentified(study.name(), unknown))?;
        let image = ImageReference { class_uid: identity.get(tags::SOP_CLASS_UID), instance_uid: identity.get(tags::SOP_INSTANCE_UID) };
        let series = Series { modality: "PR", kind: "presentation state", description: "AnatomiX, for research use" };
        let mut state = common(uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE, identity, &series, study.provenance());
        let referenced_series = item([
            text(tags::SERIES_INSTANCE_UID, VR::UI, identity.get(tags::SERIES_INSTANCE_UID)),
            sequence(tags::REFERENCED_IMAGE_SEQUENCE, vec![image.item()]),
        ]);
        // The modules Presentation State Identification (C.11.10) and Relationship (C.11.11), Displayed Area (C.10.4).
        let general = [
            body_part(study),
            text(tags::PRESENTATION_CREATION_DATE, VR::DA, &time.date),
            text(tags::PRESENTATION_CREATION_TIME, VR::TM, &time.time),
            text(tags::CONTENT_LABEL, VR::CS, "ANATOMIX"),
            text(tags::CONTENT_DESCRIPTION, VR::LO, "Bounding boxes, for research use"),
            text(tags::CONTENT_CREATOR_NAME, VR::PN, ""),
            sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![referenced_series]),
            sequence(tags::DISPLAYED_AREA_SELECTION_SEQUENCE, vec![whole_area(study, shown, image)]),
        ];
        let layers = layers(study.structures(), answers);
        let drawn = layers.iter().map(|layer| layer.annotation(image)).collect();
        let named = layers.iter().enumerate().map(|(index, layer)| layer.item(index)).collect();
        // The modules Graphic Annotation (C.10.5) and Graphic Layer (C.10.7).
        let graphics = [sequence(tags::GRAPHIC_ANNOTATION_SEQUENCE, drawn), sequence(tags::GRAPHIC_LAYER_SEQUENCE, named)];
        let display = modality(&shown.modality).into_iter().chain([softcopy_voi(&shown.voi), polarity(shown)]);
        general.into_iter().chain(graphics).chain(display).for_each(|element| _ = state.put(element));
        object::file(state)
    }

    /// Writes the presentation state as a DICOM file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// As [`PresentationState::to_bytes`], and if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), OutputError> {
        write_private(path, &self.to_bytes()?)
    }
}

impl Study {
    /// The DICOM presentation state of this study with these answers of it, which may be none.
    pub fn presentation_state<'a>(&'a self, answers: &'a [Answer]) -> PresentationState<'a> {
        PresentationState::of(self, answers)
    }
}

/// The layers that have boxes, from the lowest to the highest.
fn layers(structures: &[StructureResult], answers: &[Answer]) -> Vec<Layer> {
    let of_structures = |name: &str, description: &str, finding: bool| Layer {
        name: name.into(),
        description: description.into(),
        boxes: structures
            .iter()
            .filter(|found| is_finding(&found.sentence.text) == finding)
            .map(|found| {
                let name = found.structure.name();
                let label = if finding { format!("{name}: {}", noted(found.structure, &found.sentence.text)) } else { name.into() };
                (found.bounds, label)
            })
            .collect(),
    };
    let of_answer = |(index, answer): (usize, &Answer)| Layer {
        name: format!("ANSWER_{}", index + 1),
        description: line(&answer.question, 64),
        boxes: answer
            .groundings
            .iter()
            .flat_map(|grounding| grounding.boxes.iter().map(move |&bounds| (bounds, grounding.phrase.clone())))
            .collect(),
    };
    let fixed =
        [of_structures("STRUCTURES", "Structures without a finding", false), of_structures("FINDINGS", "Structures with a finding", true)];
    let layers = fixed.into_iter().chain(answers.iter().enumerate().map(of_answer));
    layers.filter(|layer| !layer.boxes.is_empty()).collect()
}

impl Layer {
    /// The item of Graphic Annotation Sequence.
    fn annotation(&self, image: ImageReference) -> InMemDicomObject {
        let polygon = |(bounds, _): &(PixelBox, String)| {
            item([
                text(tags::GRAPHIC_ANNOTATION_UNITS, VR::CS, "PIXEL"),
                words(tags::GRAPHIC_DIMENSIONS, VR::US, &[2]),
                words(tags::NUMBER_OF_GRAPHIC_POINTS, VR::US, &[5]),
                floats(tags::GRAPHIC_DATA, &corners(&PixelBox::from(pixels(bounds)))),
                text(tags::GRAPHIC_TYPE, VR::CS, "POLYLINE"),
                text(tags::GRAPHIC_FILLED, VR::CS, "N"),
            ])
        };
        // A box without a phrase has no label: an empty text is not allowed.
        let label = |(bounds, label): &(PixelBox, String)| {
            let label = lines(label.trim()).replace('\\', "/").chars().take(1024).collect::<String>();
            let [x0, y0, ..] = pixels(bounds);
            (!label.is_empty()).then(|| {
                item([
                    text(tags::ANCHOR_POINT_ANNOTATION_UNITS, VR::CS, "PIXEL"),
                    text(tags::UNFORMATTED_TEXT_VALUE, VR::ST, &label),
                    floats(tags::ANCHOR_POINT, &[x0, y0]),
                    text(tags::ANCHOR_POINT_VISIBILITY, VR::CS, "N"),
                ])
            })
        };
        let mut annotation = item([
            sequence(tags::REFERENCED_IMAGE_SEQUENCE, vec![image.item()]),
            text(tags::GRAPHIC_LAYER, VR::CS, &self.name),
            sequence(tags::GRAPHIC_OBJECT_SEQUENCE, self.boxes.iter().map(polygon).collect()),
        ]);
        let labels: Vec<_> = self.boxes.iter().filter_map(label).collect();
        if !labels.is_empty() {
            annotation.put(sequence(tags::TEXT_OBJECT_SEQUENCE, labels));
        }
        annotation
    }

    /// The item of Graphic Layer Sequence.
    fn item(&self, index: usize) -> InMemDicomObject {
        item([
            text(tags::GRAPHIC_LAYER, VR::CS, &self.name),
            text(tags::GRAPHIC_LAYER_ORDER, VR::IS, &(index + 1).to_string()),
            text(tags::GRAPHIC_LAYER_DESCRIPTION, VR::LO, self.description.trim()),
        ])
    }
}

/// The item of Displayed Area Selection Sequence: the whole image, as large as fits.
fn whole_area(study: &Study, shown: &Shown, image: ImageReference) -> InMemDicomObject {
    let [height, width] = shown.aspect;
    item([
        sequence(tags::REFERENCED_IMAGE_SEQUENCE, vec![image.item()]),
        integers(tags::DISPLAYED_AREA_TOP_LEFT_HAND_CORNER, &[1, 1]),
        integers(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER, &[study.width() as i32, study.height() as i32]),
        text(tags::PRESENTATION_SIZE_MODE, VR::CS, "SCALE TO FIT"),
        text(tags::PRESENTATION_PIXEL_ASPECT_RATIO, VR::IS, &format!("{height}\\{width}")),
    ])
}

/// The module Modality LUT (C.11.1), which is left out if it would change nothing.
fn modality(modality: &Modality) -> Vec<InMemElement> {
    match modality {
        Modality::Linear { slope, intercept } if *slope == 1.0 && *intercept == 0.0 => vec![],
        Modality::Linear { slope, intercept } => {
            vec![decimal(tags::RESCALE_INTERCEPT, *intercept), decimal(tags::RESCALE_SLOPE, *slope), text(tags::RESCALE_TYPE, VR::LO, "US")]
        }
        Modality::Table(lut) => {
            let mut entry = table(lut);
            entry.put(text(tags::MODALITY_LUT_TYPE, VR::LO, "US"));
            vec![sequence(tags::MODALITY_LUT_SEQUENCE, vec![entry])]
        }
    }
}

/// The module Softcopy VOI LUT (C.11.8).
fn softcopy_voi(voi: &Voi) -> InMemElement {
    let entry = match voi {
        Voi::Window { function, center, width } => {
            let function = match function {
                Function::Linear => "LINEAR",
                Function::LinearExact => "LINEAR_EXACT",
                Function::Sigmoid => "SIGMOID",
            };
            item([
                decimal(tags::WINDOW_CENTER, *center),
                decimal(tags::WINDOW_WIDTH, *width),
                text(tags::VOILUT_FUNCTION, VR::CS, function),
            ])
        }
        Voi::Table(lut) => item([sequence(tags::VOILUT_SEQUENCE, vec![table(lut)])]),
        Voi::Everything => item([]),
    };
    sequence(tags::SOFTCOPY_VOILUT_SEQUENCE, vec![entry])
}

/// The module Softcopy Presentation LUT (C.11.6).
fn polarity(shown: &Shown) -> InMemElement {
    text(tags::PRESENTATION_LUT_SHAPE, VR::CS, if shown.inverted { "INVERSE" } else { "IDENTITY" })
}

/// The item of a look-up table. 65536 entries are written as 0, as DICOM has it.
fn table(Lut { first, entries, bits }: &Lut) -> InMemDicomObject {
    let vr = if *first < 0 { VR::SS } else { VR::US };
    let descriptor: [u16; 3] = [entries.len() as u16, *first as u16, *bits as u16];
    item([words(tags::LUT_DESCRIPTOR, vr, &descriptor), words(tags::LUT_DATA, VR::OW, entries)])
}
