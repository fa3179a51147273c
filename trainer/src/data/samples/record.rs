//! Images and samples of a prepared folder, one JSON object a line.

use crate::data::sources::imagenome::SceneGraph;
use crate::data::sources::mimic::Labels;
use crate::data::sources::split::Split;
use anatomix::parts::geometry::Letterbox;
use anatomix::{PixelBox, STRUCTURE_COUNT, Task};
use serde::{Deserialize, Serialize};

/// A data set that images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// MIMIC-CXR-JPG, annotated by Chest ImaGenome.
    MimicCxrJpg,
    /// VinDr-CXR.
    VindrCxr,
    /// PadChest-GR.
    PadchestGr,
    /// SLAKE.
    Slake,
    /// Phantoms.
    Phantom,
}

impl Source {
    /// All sources of images.
    pub const ALL: [Self; 5] = [Self::MimicCxrJpg, Self::VindrCxr, Self::PadchestGr, Self::Slake, Self::Phantom];

    /// The name in identifiers and data files.
    pub fn name(self) -> &'static str {
        match self {
            Self::MimicCxrJpg => "mimic_cxr_jpg",
            Self::VindrCxr => "vindr_cxr",
            Self::PadchestGr => "padchest_gr",
            Self::Slake => "slake",
            Self::Phantom => "phantom",
        }
    }
}

/// An image with what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The source and the source's identifier: `mimic_cxr_jpg/ID`.
    pub id: String,
    /// The source; its folder is in `prepared.json`.
    pub source: Source,
    /// Path of the file in the source's folder.
    pub path: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The source and its identifier of the patient, or of the smallest unit that is known to be one patient's.
    pub patient: String,
    /// The source's identifier of the study.
    pub study: String,
    /// The split for the perception module. `None` if the patient is in a more protected split elsewhere: then the image serves only the
    /// samples on it.
    pub split: Option<Split>,
    /// Box of each structure in index order, in pixels of the image; `None` masks a structure that is not annotated. Empty for images
    /// without a scene graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<Option<PixelBox>>,
    /// Sentence on each structure in index order; `None` masks a structure of which nothing is known. Empty like `boxes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentences: Vec<Option<String>>,
    /// The 14 labels in index order: 1 applies, 0 does not, -1 is uncertain, `None` is not mentioned. `None` for images without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

impl Image {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// An image without annotations and labels. `own` is the source's identifier of the image, and `path` that of the file in the
    /// source's folder.
    pub fn new(
        source: Source,
        own: &str,
        path: String,
        (width, height): (u32, u32),
        patient: String,
        study: String,
        split: Option<Split>,
    ) -> Self {
        let id = format!("{}/{own}", source.name());
        Self { id, source, path, width, height, patient, study, split, boxes: Vec::new(), sentences: Vec::new(), labels: None }
    }

    /// The letterbox of the image.
    pub fn letterbox(&self) -> Letterbox {
        Letterbox::new(self.width, self.height)
    }

    /// Takes boxes and sentences from a scene graph.
    pub fn annotate(&mut self, graph: SceneGraph) {
        self.boxes = graph.boxes.into();
        self.sentences = graph.sentences.into();
    }

    /// Whether the record is one that `prepare` can have written: an image with pixels, 36 structures or none, boxes inside the image,
    /// labels of -1, 0 and 1.
    pub fn is_valid(&self) -> bool {
        let (w, h) = (self.width as f32, self.height as f32);
        let inside = |b: &PixelBox| 0.0 <= b.x0 && b.x0 < b.x1 && b.x1 <= w && 0.0 <= b.y0 && b.y0 < b.y1 && b.y1 <= h;
        self.width > 0
            && self.height > 0
            && [self.boxes.len(), self.sentences.len()].iter().all(|len| [0, STRUCTURE_COUNT].contains(len))
            && self.boxes.len() == self.sentences.len()
            && self.boxes.iter().flatten().all(inside)
            && self.labels.iter().flatten().flatten().all(|label| (-1..=1).contains(label))
    }
}

/// An instruction on an image, and its answer. Boxes in the texts are on the prompt's grid, 0..=1024 over the letterboxed square, as the
/// model reads and writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Identifier of the image.
    pub image: String,
    /// The patient, as in [`Image::patient`].
    pub patient: String,
    /// The study.
    pub study: String,
    /// The split.
    pub split: Split,
    /// The task.
    pub task: Task,
    /// Earlier questions and answers of the same conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<(String, String)>,
    /// The instruction.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The boxes that the sample is about, in pixels of the image: asked for, or given in the question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<PixelBox>,
}

impl Sample {
    /// A sample on an image without boxes and earlier turns.
    pub fn new(image: &Image, split: Split, task: Task, question: String, answer: String) -> Self {
        let (history, boxes) = (Vec::new(), Vec::new());
        let [image, patient, study] = [&image.id, &image.patient, &image.study].map(String::clone);
        Self { image, patient, study, split, task, history, question, answer, boxes }
    }
}

/// Boxes as text of a question or an answer.
pub fn box_text(boxes: &[PixelBox], letterbox: &Letterbox) -> String {
    let one = |bounds| {
        let [x0, y0, x1, y1] = letterbox.normalize(bounds).to_grid();
        format!("<box>({x0},{y0}),({x1},{y1})</box>")
    };
    boxes.iter().map(one).collect()
}
