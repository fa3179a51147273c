//! Short names of structures, and the choice of structures that are shown without a finding.

use crate::anatomy::{STRUCTURE_COUNT, Structure};

/// Short names in index order.
const SHORT: [&str; STRUCTURE_COUNT] = [
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

/// Lungs, heart, mediastinum, trachea, carina, aortic arch, clavicles, hemidiaphragms, costodiaphragmatic recesses.
const SHOWN: [usize; 13] = [11, 20, 4, 14, 29, 23, 1, 8, 17, 9, 18, 33, 35];

/// A structure's name in two or three words.
pub(super) fn short_name(structure: Structure) -> &'static str {
    SHORT.get(structure.index()).copied().unwrap_or_else(|| structure.name())
}

/// Whether an overlay shows the structure even without a finding. All 36 boxes at once would hide the radiograph.
pub(super) fn is_shown(structure: Structure) -> bool {
    SHOWN.contains(&structure.index())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anatomy::Side;

    #[test]
    fn short_names_keep_the_side() {
        for structure in Structure::all() {
            let expected = match structure.side() {
                Some(Side::Left) => Some("Left "),
                Some(Side::Right) => Some("Right "),
                None => None,
            };
            let short = short_name(structure);
            assert!(expected.is_none_or(|prefix| short.starts_with(prefix)), "{structure}: {short}");
            assert!(is_shown(structure) == structure.counterpart().map_or(is_shown(structure), is_shown), "{structure}");
        }
    }
}
