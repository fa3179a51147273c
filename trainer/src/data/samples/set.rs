//! The nine sample sets of table S1, and that of phantoms.

use crate::data::sources::split::Split;
use serde::{Deserialize, Serialize};

/// A sample set: one of the paper, or that of phantoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// Open and closed questions of MIMIC-CXR-VQA.
    MimicVqa,
    /// Open and closed questions of RaDialog-Instruct.
    RadialogInstruct,
    /// Open and closed questions of SLAKE.
    Slake,
    /// The place of one structure of each image of Chest ImaGenome.
    AnatomyGrounding,
    /// Phrase grounding, grounded captioning and grounded diagnosis on MS-CXR.
    Mscxr,
    /// Abnormality detection, phrase grounding and grounded diagnosis on VinDr-CXR.
    VindrInstruct,
    /// Phrase grounding on PadChest-GR.
    PadchestGr,
    /// The labels of MIMIC-CXR.
    MimicCxrClassification,
    /// The reports of MIMIC-CXR.
    MimicReportGen,
    /// All tasks on phantoms; the paper does not have it.
    Phantom,
}

impl Set {
    /// All sets in the order of table S1.
    pub const ALL: [Self; 9] = [
        Self::MimicVqa,
        Self::RadialogInstruct,
        Self::Slake,
        Self::AnatomyGrounding,
        Self::Mscxr,
        Self::VindrInstruct,
        Self::PadchestGr,
        Self::MimicCxrClassification,
        Self::MimicReportGen,
    ];

    /// The sets of table S1, and that of phantoms.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain([Self::Phantom])
    }

    /// The name in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::MimicVqa => "mimic_vqa",
            Self::RadialogInstruct => "radialog_instruct",
            Self::Slake => "slake",
            Self::AnatomyGrounding => "anatomy_grounding",
            Self::Mscxr => "mscxr",
            Self::VindrInstruct => "vindr_instruct",
            Self::PadchestGr => "padchest_gr",
            Self::MimicCxrClassification => "mimic_cxr_classification",
            Self::MimicReportGen => "mimic_report_gen",
            Self::Phantom => "phantom",
        }
    }

    /// The number of samples in the paper (table S1), 0 for phantoms.
    pub fn paper(self, split: Split) -> u64 {
        let [test, train, validate] = match self {
            Self::MimicVqa => [5_497, 101_963, 4_926],
            Self::RadialogInstruct => [799, 6_274, 822],
            Self::Slake => [298, 1_175, 285],
            Self::AnatomyGrounding => [3_403, 237_938, 1_959],
            Self::Mscxr => [528, 2_445, 507],
            Self::VindrInstruct => [6_166, 38_122, 4_099],
            Self::PadchestGr => [1_121, 3_920, 558],
            Self::MimicCxrClassification => [2_957, 182_425, 1_666],
            Self::MimicReportGen => [1_722, 135_049, 1_078],
            Self::Phantom => [0; 3],
        };
        match split {
            Split::Train => train,
            Split::Validate => validate,
            Split::Test => test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_table_s1() {
        let total = |split| Set::ALL.iter().map(|set| set.paper(split)).sum::<u64>();
        // The table's own totals: 22,491, 709,311 and 15,900.
        assert_eq!([Split::Test, Split::Train, Split::Validate].map(total), [22_491, 709_311, 15_900]);
    }
}
