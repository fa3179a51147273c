//! The 36 anatomical structures and the 14 image labels, in the order of the published weights' outputs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of structures that the Anatomy Perception Module localises (paper, section 3.1).
pub const STRUCTURE_COUNT: usize = 36;
/// Number of image labels that the Anatomy Perception Module scores.
pub const LABEL_COUNT: usize = 14;

/// Names in index order. The order is part of the weights, because query `i` of the perception module is structure `i`: never sort.
const NAMES: [&str; STRUCTURE_COUNT] = [
    "Abdominal cavity",
    "Aortic arch structure",
    "Apical zone of left lung",
    "Apical zone of right lung",
    "Cardiac shadow viewed radiologically or Heart",
    "Descending aorta",
    "Hilar Area of the Left Lung",
    "Hilar Area of the Right Lung",
    "Left clavicle",
    "Left hemidiaphragm",
    "Left lower lung zone",
    "Left lung",
    "Left mid lung zone",
    "Left upper lung zone",
    "Mediastinum",
    "Right atrial structure",
    "Right border of heart viewed radiologically",
    "Right clavicle",
    "Right hemidiaphragm",
    "Right lower lung zone",
    "Right lung",
    "Right mid lung zone",
    "Right upper lung zone",
    "Structure of carina",
    "Structure of left margin of heart",
    "Structure of left upper quadrant of abdomen",
    "Structure of right upper quadrant of abdomen",
    "Superior mediastinum",
    "Superior vena cava structure",
    "Trachea and Main Bronchus",
    "Vertebral column",
    "cavoatrial",
    "left cardiophrenic sulcus",
    "Left costodiaphragmatic recess",
    "right cardiophrenic sulcus",
    "Right costodiaphragmatic recess",
];

/// Names of two or three words in index order. They are part of compact prompts, and so of weights: they never change.
const SHORT_NAMES: [&str; STRUCTURE_COUNT] = [
    "Abdomen",
    "Aortic arch",
    "Left apex",
    "Right apex",
    "Heart",
    "Descending aorta",
    "Left hilum",
    "Right hilum",
    "Left clavicle",
    "Left hemidiaphragm",
    "Left lower zone",
    "Left lung",
    "Left mid zone",
    "Left upper zone",
    "Mediastinum",
    "Right atrium",
    "Right heart border",
    "Right clavicle",
    "Right hemidiaphragm",
    "Right lower zone",
    "Right lung",
    "Right mid zone",
    "Right upper zone",
    "Carina",
    "Left heart border",
    "Left upper abdomen",
    "Right upper abdomen",
    "Upper mediastinum",
    "Superior vena cava",
    "Trachea",
    "Spine",
    "Cavoatrial junction",
    "Left cardiophrenic",
    "Left costophrenic",
    "Right cardiophrenic",
    "Right costophrenic",
];

/// Pairs of left and right structures, the patient's left first.
const PAIRS: [(u8, u8); 12] =
    [(2, 3), (6, 7), (8, 17), (9, 18), (10, 19), (11, 20), (12, 21), (13, 22), (24, 16), (25, 26), (32, 34), (33, 35)];

/// One of the 36 anatomical structures. Left and right are the patient's, in a mirrored image as well.
///
/// ```
/// use anatomix::{Side, Structure};
/// let lung = Structure::from_name("Left lung").unwrap();
/// assert_eq!(lung.index(), 11);
/// assert_eq!(lung.side(), Some(Side::Left));
/// assert_eq!(lung.counterpart().unwrap().name(), "Right lung");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Structure(u8);

/// A side of the patient's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The patient's left.
    Left,
    /// The patient's right.
    Right,
}

impl Structure {
    /// The heart (cardiac shadow).
    pub const HEART: Self = Self(4);
    /// The left lung.
    pub const LEFT_LUNG: Self = Self(11);
    /// The right lung.
    pub const RIGHT_LUNG: Self = Self(20);

    /// The structure with this index, 0 to 35; `None` for a larger index.
    pub fn new(index: usize) -> Option<Self> {
        (index < STRUCTURE_COUNT).then_some(Self(index as u8))
    }

    /// All structures in index order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..STRUCTURE_COUNT as u8).map(Self)
    }

    /// The structure with this name, compared without regard to case.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).and_then(Self::new)
    }

    /// Index, 0 to 35.
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// The name in prompts and sentences.
    pub fn name(self) -> &'static str {
        NAMES[self.index()]
    }

    /// The name in pictures and in compact prompts, of two or three words.
    pub(crate) fn short_name(self) -> &'static str {
        SHORT_NAMES[self.index()]
    }

    /// The same structure on the other side of the body; `None` for an unpaired structure.
    pub fn counterpart(self) -> Option<Self> {
        PAIRS.iter().find_map(|&(left, right)| match self.0 {
            x if x == left => Some(Self(right)),
            x if x == right => Some(Self(left)),
            _ => None,
        })
    }

    /// The side of a paired structure; `None` for an unpaired one.
    pub fn side(self) -> Option<Side> {
        PAIRS.iter().find_map(|&(left, right)| match self.0 {
            x if x == left => Some(Side::Left),
            x if x == right => Some(Side::Right),
            _ => None,
        })
    }
}

impl Serialize for Structure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One of the 14 CheXpert image labels, in the order of the model's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Label {
    Atelectasis,
    Cardiomegaly,
    Consolidation,
    Edema,
    #[serde(rename = "Enlarged Cardiomediastinum")]
    EnlargedCardiomediastinum,
    Fracture,
    #[serde(rename = "Lung Lesion")]
    LungLesion,
    #[serde(rename = "Lung Opacity")]
    LungOpacity,
    #[serde(rename = "No Finding")]
    NoFinding,
    #[serde(rename = "Pleural Effusion")]
    PleuralEffusion,
    #[serde(rename = "Pleural Other")]
    PleuralOther,
    Pneumonia,
    Pneumothorax,
    #[serde(rename = "Support Devices")]
    SupportDevices,
}

impl Label {
    /// All labels in index order.
    pub const ALL: [Self; LABEL_COUNT] = [
        Self::Atelectasis,
        Self::Cardiomegaly,
        Self::Consolidation,
        Self::Edema,
        Self::EnlargedCardiomediastinum,
        Self::Fracture,
        Self::LungLesion,
        Self::LungOpacity,
        Self::NoFinding,
        Self::PleuralEffusion,
        Self::PleuralOther,
        Self::Pneumonia,
        Self::Pneumothorax,
        Self::SupportDevices,
    ];

    /// The name as CheXpert writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Atelectasis => "Atelectasis",
            Self::Cardiomegaly => "Cardiomegaly",
            Self::Consolidation => "Consolidation",
            Self::Edema => "Edema",
            Self::EnlargedCardiomediastinum => "Enlarged Cardiomediastinum",
            Self::Fracture => "Fracture",
            Self::LungLesion => "Lung Lesion",
            Self::LungOpacity => "Lung Opacity",
            Self::NoFinding => "No Finding",
            Self::PleuralEffusion => "Pleural Effusion",
            Self::PleuralOther => "Pleural Other",
            Self::Pneumonia => "Pneumonia",
            Self::Pneumothorax => "Pneumothorax",
            Self::SupportDevices => "Support Devices",
        }
    }

    /// The label with this name, compared without regard to case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.name().eq_ignore_ascii_case(name))
    }

    /// Index, 0 to 13.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indices_agree() {
        for structure in Structure::all() {
            assert_eq!(Structure::from_name(structure.name()), Some(structure));
            if let Some(other) = structure.counterpart() {
                assert_eq!(other.counterpart(), Some(structure));
                assert_ne!(other.side(), structure.side());
            }
        }
        assert!(Structure::new(STRUCTURE_COUNT).is_none());
        for (index, label) in Label::ALL.into_iter().enumerate() {
            assert_eq!(label.index(), index);
            assert_eq!(serde_json::to_value(label).unwrap(), label.name());
        }
    }

    #[test]
    fn short_names_keep_the_side() {
        for structure in Structure::all() {
            let prefix = structure.side().map_or("", |side| if side == Side::Left { "Left " } else { "Right " });
            assert!(structure.short_name().starts_with(prefix), "{structure}: {}", structure.short_name());
        }
    }
}
