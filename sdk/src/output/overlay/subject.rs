//! Overlays of studies and of answers.

use super::{LabelledBox, Overlay};
use crate::anatomy::{Side, Structure};
use crate::radiograph::RadiographError;
use crate::retrieval::{is_finding, noted};
use crate::{Answer, Radiograph, StructureResult, Study};

/// Structures that are shown even without a finding: lungs, heart, mediastinum, trachea, carina, aortic arch, clavicles, hemidiaphragms,
/// costodiaphragmatic recesses. All 36 boxes at once would hide the radiograph.
const SHOWN: [usize; 13] = [11, 20, 4, 14, 29, 23, 1, 8, 17, 9, 18, 33, 35];

impl Overlay {
    /// Shows the structures with a finding and the main ones of the others.
    ///
    /// # Errors
    /// As [`Overlay::new`].
    pub fn of_study(study: &Study, radiograph: &Radiograph) -> Result<Self, RadiographError> {
        let structures = study.structures();
        let shown = structures.iter().filter_map(structure_box).collect();
        let count = structures.iter().filter(|found| is_finding(&found.sentence.text)).count();
        let subtitle = match count {
            0 => format!("no finding in {} structures", structures.len()),
            _ => format!("findings in {count} of {} structures", structures.len()),
        };
        Ok(Self::new(radiograph, shown)?.subtitle(subtitle).with_provenance(study.provenance()))
    }

    /// Shows the boxes of an answer, each labelled with its phrase.
    ///
    /// # Errors
    /// As [`Overlay::new`].
    pub fn of_answer(answer: &Answer, radiograph: &Radiograph) -> Result<Self, RadiographError> {
        let boxes = answer.groundings.iter().flat_map(|grounding| {
            let phrase = if grounding.phrase.is_empty() { "region" } else { &grounding.phrase };
            grounding.boxes.iter().map(move |&bounds| LabelledBox {
                bounds,
                label: sentence_case(phrase),
                note: String::new(),
                side: side_of(phrase),
                emphasised: true,
            })
        });
        Ok(Self::new(radiograph, boxes.collect())?.subtitle(&answer.question).with_provenance(&answer.provenance))
    }
}

fn is_shown(structure: Structure) -> bool {
    SHOWN.contains(&structure.index())
}

fn structure_box(found: &StructureResult) -> Option<LabelledBox> {
    let sentence = &found.sentence.text;
    let emphasised = is_finding(sentence);
    (emphasised || is_shown(found.structure)).then(|| LabelledBox {
        bounds: found.bounds,
        label: found.structure.short_name().into(),
        note: if emphasised { noted(found.structure, sentence).into() } else { String::new() },
        side: found.structure.side(),
        emphasised,
    })
}

/// The side that a phrase names; `None` if it names both or neither.
fn side_of(phrase: &str) -> Option<Side> {
    let names = |side: &str| phrase.split(|c: char| !c.is_alphabetic()).any(|word| word.eq_ignore_ascii_case(side));
    match (names("left"), names("right")) {
        (true, false) => Some(Side::Left),
        (false, true) => Some(Side::Right),
        _ => None,
    }
}

fn sentence_case(phrase: &str) -> String {
    let mut letters = phrase.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PixelBox, Retrieved};

    fn found(structure: Structure, text: &str) -> StructureResult {
        let sentence = Retrieved { text: text.into(), similarity: 0.9, margin: 0.1 };
        StructureResult { structure, bounds: PixelBox::new(1.0, 2.0, 3.0, 4.0), sentence }
    }

    #[test]
    fn findings_have_notes_and_only_main_structures_are_shown_without() {
        let lung = structure_box(&found(Structure::LEFT_LUNG, "Left lung shows edema and nodule.")).unwrap();
        assert_eq!((lung.label.as_str(), lung.note.as_str(), lung.emphasised), ("Left lung", "edema and nodule", true));
        assert_eq!(lung.side, Some(Side::Left));
        let healthy = structure_box(&found(Structure::LEFT_LUNG, "Left lung is healthy.")).unwrap();
        assert!(healthy.note.is_empty() && !healthy.emphasised);
        let spine = Structure::from_name("Vertebral column").unwrap();
        assert!(structure_box(&found(spine, "Vertebral column is healthy.")).is_none());
        assert!(structure_box(&found(spine, "Scoliosis is seen.")).is_some_and(|b| b.note == "Scoliosis is seen"));
    }

    #[test]
    fn both_sides_are_shown_or_none() {
        for structure in Structure::all() {
            assert!(structure.counterpart().is_none_or(|other| is_shown(other) == is_shown(structure)), "{structure}");
        }
    }

    #[test]
    fn a_phrase_has_the_side_that_it_names() {
        assert_eq!(side_of("left lower lung consolidation"), Some(Side::Left));
        assert_eq!(side_of("Right-sided effusion"), Some(Side::Right));
        assert_eq!(side_of("bilateral edema, left and right"), None);
        assert_eq!(side_of("bright spot"), None);
        assert_eq!(sentence_case("éa"), "Éa");
    }
}
