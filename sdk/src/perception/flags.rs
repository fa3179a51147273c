//! Flags: reasons not to trust a study.

use crate::anatomy::{STRUCTURE_COUNT, Side, Structure};
use crate::geometry::NormalizedBox;
use crate::radiograph::{Orientation, Radiograph};
use serde::{Deserialize, Serialize};

/// The kind of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlagCode {
    /// The picture is mirrored: left and right are swapped, compared with the header or the standard display.
    Mirrored,
    /// The image is nearly constant.
    NearConstant,
    /// Some boxes have almost no area.
    DegenerateBoxes,
    /// For some structures, another sentence is nearly as similar as the retrieved one.
    LowMargin,
    /// The header says that the projection is not frontal, or that the picture is not upright.
    NotFrontal,
    /// The header says that the image is of another body part, modality or kind.
    NotChest,
    /// The header says that the pixels are not meant for display.
    ForProcessing,
    /// The picture is a colour photograph or has coloured parts.
    Colour,
    /// The compressed picture is complete, but other bytes stand between or after its data, or its last refinement scans are missing.
    DamagedPixels,
}

impl FlagCode {
    /// The name in JSON and C.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mirrored => "mirrored",
            Self::NearConstant => "near_constant",
            Self::DegenerateBoxes => "degenerate_boxes",
            Self::LowMargin => "low_margin",
            Self::NotFrontal => "not_frontal",
            Self::NotChest => "not_chest",
            Self::ForProcessing => "for_processing",
            Self::Colour => "colour",
            Self::DamagedPixels => "damaged_pixels",
        }
    }

    /// Whether questions on a radiograph with this flag are refused unless they accept its flags
    /// ([`Question::accept_flags`](crate::Question::accept_flags)), because the model was not made for such an image.
    pub fn must_be_accepted(self) -> bool {
        matches!(self, Self::NotFrontal | Self::NotChest | Self::ForProcessing)
    }
}

/// A question was refused, because the radiograph is flagged as one that the model was not made for and the question does not accept its
/// flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is flagged {}: {}; look at the image, and accept its flags to ask anyway (--accept-flags, accept_flags)",
    flag.code.name(), flag.message
)]
#[non_exhaustive]
pub struct FlaggedError {
    /// The radiograph's path, or the name that was given for its bytes.
    pub name: String,
    /// The first flag that has to be accepted.
    pub flag: Flag,
}

/// The severity of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Results can be used; the flag is a hint.
    Info,
    /// Results should not be used before a person has looked at the image.
    Warning,
}

impl Severity {
    /// The name in JSON and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

/// A reason not to trust a study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Flag {
    /// The kind of the flag.
    pub code: FlagCode,
    /// The severity.
    pub severity: Severity,
    /// The reason in a sentence, for people.
    pub message: String,
}

/// An image is nearly constant if the 1st and 99th percentile of its intensities differ by less than this.
const MIN_SPREAD: f32 = 0.01;
/// An image is coloured if at least this share of its pixels is. A few coloured marks are fewer.
const MIN_COLOUR: f32 = 0.01;
/// A box is nearly empty if its width or height is less than this share of the square's side.
const MIN_SIDE: f32 = 0.004;
/// A retrieval is flagged if its margin is smaller than this.
const MIN_MARGIN: f32 = 0.01;
/// An image is mirrored if at least this many of the twelve pairs of structures are swapped.
const MIN_SWAPPED_PAIRS: usize = 9;

fn warning(code: FlagCode, message: String) -> Flag {
    Flag { code, severity: Severity::Warning, message }
}

/// The flags that follow from a radiograph's header and pixels.
pub fn of_radiograph(radiograph: &Radiograph) -> Vec<Flag> {
    let mut flags = Vec::new();
    let (low, high) = radiograph.percentiles(0.01);
    let spread = high - low;
    if spread < MIN_SPREAD {
        flags.push(warning(
            FlagCode::NearConstant,
            format!("the image is nearly constant: its intensities cover {:.2} % of the range", spread * 100.0),
        ));
    }
    let noticed = radiograph.noticed();
    if let Some(damage) = &noticed.damage {
        flags.push(warning(FlagCode::DamagedPixels, format!("part of the image may be damaged: {damage}")));
    }
    if noticed.colour >= MIN_COLOUR {
        let message = format!("{:.0} % of the image is coloured, but only greyscale radiographs are supported", noticed.colour * 100.0);
        flags.push(warning(FlagCode::Colour, message));
    }
    let header = radiograph.header();
    if let Some(view) = header.view_position.as_deref().filter(|v| !is_frontal(v)) {
        flags.push(warning(
            FlagCode::NotFrontal,
            format!("the header gives the view position {view}, but only frontal radiographs are supported"),
        ));
    }
    if header.orientation == Some(Orientation::Other) {
        let given = header.patient_orientation.as_deref().unwrap_or("of another view");
        flags.push(warning(
            FlagCode::NotFrontal,
            format!("the header gives the orientation {given}, but only upright frontal radiographs are supported"),
        ));
    }
    let other = |value: &Option<String>, is_known: fn(&str) -> bool| value.clone().filter(|value| !is_known(value));
    if let Some(modality) = other(&header.modality, is_radiography) {
        flags.push(warning(FlagCode::NotChest, format!("the header gives the modality {modality}, which is not radiography")));
    } else if let Some(class) = &header.other_sop_class {
        flags.push(warning(FlagCode::NotChest, format!("the header gives the SOP class {class}, which is not for radiographs")));
    }
    if let Some(part) = other(&header.body_part, is_chest) {
        let message = format!("the header gives the body part {part}, but only chest radiographs are supported");
        flags.push(warning(FlagCode::NotChest, message));
    }
    if header.for_processing {
        flags.push(warning(FlagCode::ForProcessing, "the header says that these are raw detector values, not meant for display".into()));
    }
    flags
}

/// The flags that follow from boxes and retrieved sentences. `margins` has one value for each structure.
pub fn of_perception(boxes: &[NormalizedBox], margins: &[f32], orientation: Option<Orientation>) -> Vec<Flag> {
    let mut flags = Vec::new();
    flags.extend(mirrored(boxes, orientation));
    let names = |chosen: &dyn Fn(usize) -> bool| {
        let names: Vec<&str> = Structure::all().filter(|s| chosen(s.index())).map(Structure::name).collect();
        (names.len(), shorten(&names))
    };
    let (count, listed) = names(&|i| boxes.get(i).is_some_and(|b| b.x1 - b.x0 < MIN_SIDE || b.y1 - b.y0 < MIN_SIDE));
    if count > 0 {
        flags.push(warning(FlagCode::DegenerateBoxes, format!("{count} of {STRUCTURE_COUNT} boxes are nearly empty: {listed}")));
    }
    let (count, listed) = names(&|i| margins.get(i).is_some_and(|&m| m < MIN_MARGIN));
    if count > 0 {
        let message = format!("for {count} of {STRUCTURE_COUNT} structures another sentence is nearly as similar: {listed}");
        flags.push(Flag { code: FlagCode::LowMargin, severity: Severity::Info, message });
    }
    flags
}

/// Checks on which side of the picture the patient's left structures are.
fn mirrored(boxes: &[NormalizedBox], orientation: Option<Orientation>) -> Option<Flag> {
    let center = |s: Structure| boxes.get(s.index()).map_or(0.0, |b| b.x0 + b.x1);
    let swapped = Structure::all()
        .filter(|s| s.side() == Some(Side::Left))
        .filter_map(|left| Some((left, left.counterpart()?)))
        .filter(|&(left, right)| center(left) < center(right))
        .count();
    let message = match (swapped >= MIN_SWAPPED_PAIRS, orientation) {
        (true, Some(Orientation::Standard)) => {
            "the patient's left structures lie on the left of the picture, against the header: a mirrored image or situs inversus"
        }
        (true, Some(Orientation::Mirrored)) => "the image is mirrored, as its header says",
        (true, _) => "the patient's left structures lie on the left of the picture: a mirrored image or situs inversus",
        (false, Some(Orientation::Mirrored)) => {
            "the header says that the image is mirrored, but the structures lie as in the standard display"
        }
        (false, _) => return None,
    };
    Some(warning(FlagCode::Mirrored, message.into()))
}

fn is_frontal(view: &str) -> bool {
    matches!(view.trim().to_ascii_uppercase().as_str(), "" | "PA" | "AP" | "AP AXIAL" | "FRONTAL")
}

fn is_radiography(modality: &str) -> bool {
    matches!(modality, "CR" | "DX" | "RG" | "XA" | "RF" | "OT")
}

/// Whether a body part is the chest or lies in it. Whole words are compared, so that SCRIBE is not a rib.
fn is_chest(part: &str) -> bool {
    const KNOWN: [&str; 11] =
        ["CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "THORAX", "TORAX", "TÓRAX", "LUNG", "LUNGS", "RIB", "RIBS", "HEART"];
    let part = part.to_uppercase();
    let mut words = part.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    words.peek().is_none() || words.any(|word| KNOWN.contains(&word))
}

fn shorten(names: &[&str]) -> String {
    let shown = names.iter().take(4).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 4 { format!("{shown} and {} more", names.len() - 4) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(mirrored: bool) -> Vec<NormalizedBox> {
        Structure::all()
            .map(|s| {
                let x = match s.side() {
                    Some(Side::Left) => 0.7,
                    Some(Side::Right) => 0.1,
                    None => 0.4,
                };
                let x = if mirrored { 0.8 - x } else { x };
                NormalizedBox::new(x, 0.2, x + 0.2, 0.6)
            })
            .collect()
    }

    #[test]
    fn sides_are_compared_with_the_header() {
        let codes = |mirrored, orientation| {
            of_perception(&boxes(mirrored), &[1.0; STRUCTURE_COUNT], orientation).iter().map(|f| f.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(false, None), []);
        assert_eq!(codes(false, Some(Orientation::Standard)), []);
        assert_eq!(codes(true, None), [FlagCode::Mirrored]);
        assert_eq!(codes(true, Some(Orientation::Standard)), [FlagCode::Mirrored]);
        assert_eq!(codes(false, Some(Orientation::Mirrored)), [FlagCode::Mirrored]);
    }

    #[test]
    fn empty_boxes_and_undecided_sentences_are_named() {
        let mut boxes = boxes(false);
        boxes[4].x1 = boxes[4].x0;
        let mut margins = [1.0; STRUCTURE_COUNT];
        margins[0] = 0.0;
        let flags = of_perception(&boxes, &margins, None);
        assert_eq!(flags.iter().map(|f| f.code).collect::<Vec<_>>(), [FlagCode::DegenerateBoxes, FlagCode::LowMargin]);
        assert!(flags[0].message.contains(Structure::HEART.name()));
    }

    #[test]
    fn body_parts_are_compared_as_words() {
        for part in ["CHEST", "chest", "CHEST PA", "PORT_CHEST", "RIBS", "Thorax", "LUNG^LEFT", "tórax", "", " "] {
            assert!(is_chest(part), "{part}");
        }
        for part in ["SCRIBE", "HAND", "TSPINE", "THORACIC SPINE", "PLUNGE", "FOOT", "ABDOMEN"] {
            assert!(!is_chest(part), "{part}");
        }
    }

    #[test]
    fn constant_images_are_flagged() {
        let flat = Radiograph::from_pixels_u8(64, 64, &[77; 64 * 64]).unwrap();
        assert_eq!(of_radiograph(&flat)[0].code, FlagCode::NearConstant);
        let ramp: Vec<u8> = (0..64 * 64).map(|i| (i % 256) as u8).collect();
        assert!(of_radiograph(&Radiograph::from_pixels_u8(64, 64, &ramp).unwrap()).is_empty());
    }
}
