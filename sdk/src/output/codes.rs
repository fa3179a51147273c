//! Coded concepts: those of DICOM (PS3.16), of SNOMED CT if DICOM has a code for the structure or finding, else of a private scheme.

use crate::anatomy::{Label, Side, Structure};

/// A coded concept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Code {
    pub value: &'static str,
    pub scheme: &'static str,
    pub meaning: &'static str,
}

/// The designator of the private coding scheme. Its codes keep their meaning.
pub(super) const PRIVATE_SCHEME: &str = "99ANATOMIX";

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "DCM", meaning }
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "SCT", meaning }
}

const fn private(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: PRIVATE_SCHEME, meaning }
}

pub(super) const REPORT: Code = dcm("126000", "Imaging Measurement Report");
pub(super) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
pub(super) const ENGLISH: Code = Code { value: "en", scheme: "RFC5646", meaning: "English" };
pub(super) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
pub(super) const DEVICE: Code = dcm("121007", "Device");
pub(super) const DEVICE_UID: Code = dcm("121012", "Device Observer UID");
pub(super) const DEVICE_NAME: Code = dcm("121013", "Device Observer Name");
pub(super) const DEVICE_MANUFACTURER: Code = dcm("121014", "Device Observer Manufacturer");
pub(super) const DEVICE_MODEL: Code = dcm("121015", "Device Observer Model Name");
pub(super) const DEVICE_SERIAL_NUMBER: Code = dcm("121016", "Device Observer Serial Number");
pub(super) const PROCEDURE_REPORTED: Code = dcm("121058", "Procedure reported");
/// Radiography has no code of its own in all versions of context group 100.
pub(super) const IMAGING_PROCEDURE: Code = sct("363679005", "Imaging procedure");
pub(super) const IMAGE_LIBRARY: Code = dcm("111028", "Image Library");
pub(super) const IMAGE_LIBRARY_GROUP: Code = dcm("126200", "Image Library Group");
pub(super) const MODALITY: Code = dcm("121139", "Modality");
pub(super) const PIXEL_ROWS: Code = dcm("110910", "Pixel Data Rows");
pub(super) const PIXEL_COLUMNS: Code = dcm("110911", "Pixel Data Columns");
pub(super) const MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
pub(super) const MEASUREMENT_GROUP: Code = dcm("125007", "Measurement Group");
pub(super) const TRACKING_IDENTIFIER: Code = dcm("112039", "Tracking Identifier");
pub(super) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
pub(super) const FINDING: Code = dcm("121071", "Finding");
pub(super) const FINDING_SITE: Code = sct("363698007", "Finding Site");
pub(super) const LATERALITY: Code = sct("272741003", "Laterality");
pub(super) const LEFT: Code = sct("7771000", "Left");
pub(super) const RIGHT: Code = sct("24028007", "Right");
/// DICOM CP-1852: what a region says of the finding, here that it is the finding's bounding box and not its outline.
pub(super) const PURPOSE_OF_REGION: Code = dcm("130400", "Geometric purpose of region");
pub(super) const BOUNDED_BY: Code = sct("75958009", "Bounded by");
pub(super) const IMAGE_REGION: Code = dcm("111030", "Image Region");
pub(super) const SOURCE: Code = sct("260753009", "Source");
pub(super) const SOURCE_IMAGE: Code = dcm("121322", "Source image for image processing operation");
pub(super) const ALGORITHM_NAME: Code = dcm("111001", "Algorithm Name");
pub(super) const ALGORITHM_VERSION: Code = dcm("111003", "Algorithm Version");
pub(super) const ALGORITHM_PARAMETERS: Code = dcm("111002", "Algorithm Parameters");
pub(super) const EVALUATIONS: Code = Code { value: "C0034375", scheme: "UMLS", meaning: "Qualitative Evaluations" };
pub(super) const ANATOMICAL_STRUCTURE: Code = sct("91723000", "Anatomical structure");
pub(super) const CHEST: Code = sct("51185008", "Chest");
pub(super) const NO_UNITS: Code = Code { value: "1", scheme: "UCUM", meaning: "no units" };
pub(super) const PIXELS: Code = Code { value: "{pixels}", scheme: "UCUM", meaning: "Pixels" };

pub(super) const BOX_LEFT: Code = private("BOX_LEFT", "Left edge of the bounding box");
pub(super) const BOX_TOP: Code = private("BOX_TOP", "Top edge of the bounding box");
pub(super) const BOX_RIGHT: Code = private("BOX_RIGHT", "Right edge of the bounding box");
pub(super) const BOX_BOTTOM: Code = private("BOX_BOTTOM", "Bottom edge of the bounding box");
pub(super) const SENTENCE: Code = private("SENTENCE", "Most similar sentence of the database");
pub(super) const SIMILARITY: Code = private("SIMILARITY", "Cosine similarity of the sentence, uncalibrated");
pub(super) const MARGIN: Code = private("MARGIN", "Margin over the second-best sentence, uncalibrated");
pub(super) const GROUNDED_PHRASE: Code = private("GROUNDED_PHRASE", "Phrase of an answer");
pub(super) const ANSWER: Code = private("ANSWER", "Answer of the language model");
pub(super) const QUESTION: Code = private("QUESTION", "Question");
pub(super) const DECODING: Code = private("DECODING", "How tokens were chosen");
pub(super) const FINISH: Code = private("FINISH", "Why the answer ended");
pub(super) const SUPPORT: Code = private("SUPPORT", "What was perceived says of this sentence");
pub(super) const SENTENCE_OF_ANSWER: Code = private("ANSWER_SENTENCE", "Sentence of an answer");
pub(super) const EVIDENCE: Code = private("EVIDENCE", "Structure that speaks for or against it");
pub(super) const PROBABILITY: Code = private("PROBABILITY", "Mean probability of its tokens, uncalibrated");
pub(super) const FLAG: Code = private("FLAG", "Reason not to trust the results");
pub(super) const INTENDED_USE: Code = private("INTENDED_USE", "Intended use");
pub(super) const CALIBRATION: Code = private("CALIBRATION", "Calibration of scores");
pub(super) const IMAGE_LABELS: Code = private("IMAGE_LABELS", "Scores of image labels, uncalibrated");

/// The modality of an image (PS3.16, context group 29), as far as its images may be radiographs.
pub(super) fn modality(term: &str) -> Code {
    match term {
        "CR" => dcm("CR", "Computed Radiography"),
        "DX" => dcm("DX", "Digital Radiography"),
        "RF" => dcm("RF", "Radiofluoroscopy"),
        "XA" => dcm("XA", "X-Ray Angiography"),
        _ => dcm("OT", "Other"),
    }
}

/// Where a structure is: its code, and a side if the code does not say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Site {
    pub code: Code,
    pub side: Option<Side>,
}

impl Site {
    /// The site of anything in a chest radiograph.
    pub const CHEST: Self = Self { code: CHEST, side: None };

    /// The site of a structure.
    pub fn of(structure: Structure) -> Self {
        let code = match structure.index() {
            0 => sct("52731004", "Abdominal cavity"),
            1 => sct("57034009", "Aortic arch"),
            2 | 3 => sct("86598002", "Apex of lung"),
            4 => sct("80891009", "Heart"),
            5 => sct("281130003", "Descending aorta"),
            6 | 7 => sct("46750007", "Hilum of lung"),
            8 | 17 => sct("51299004", "Clavicle"),
            9 | 18 => sct("5798000", "Diaphragm"),
            10 | 19 => private("LOWER_LUNG_ZONE", "Lower lung zone"),
            11 | 20 => sct("39607008", "Lung"),
            12 | 21 => private("MID_LUNG_ZONE", "Mid lung zone"),
            13 | 22 => private("UPPER_LUNG_ZONE", "Upper lung zone"),
            14 => sct("72410000", "Mediastinum"),
            15 => sct("73829009", "Right atrium"),
            16 | 24 => private("HEART_BORDER", "Border of heart"),
            23 => sct("28700002", "Carina"),
            25 => sct("86367003", "Left upper quadrant of abdomen"),
            26 => sct("50519007", "Right upper quadrant of abdomen"),
            27 => private("SUP_MEDIASTINUM", "Superior mediastinum"),
            28 => sct("48345005", "Superior vena cava"),
            29 => private("TRACHEA_BRONCHI", "Trachea and main bronchus"),
            30 => sct("421060004", "Spine"),
            31 => private("CAVOATRIAL", "Cavoatrial junction"),
            32 | 34 => private("CARDIOPHRENIC", "Cardiophrenic sulcus"),
            _ => private("COSTOPHRENIC", "Costodiaphragmatic recess"),
        };
        let says_side = matches!(code.value, "86367003" | "50519007");
        Self { code, side: structure.side().filter(|_| !says_side) }
    }
}

/// The code of an image label.
pub(super) fn label(label: Label) -> Code {
    match label {
        Label::Atelectasis => private("ATELECTASIS", "Atelectasis"),
        Label::Cardiomegaly => private("CARDIOMEGALY", "Cardiomegaly"),
        Label::Consolidation => private("CONSOLIDATION", "Consolidation"),
        Label::Edema => sct("19242006", "Pulmonary edema"),
        Label::EnlargedCardiomediastinum => private("WIDE_MEDIASTINUM", "Enlarged cardiomediastinum"),
        Label::Fracture => private("FRACTURE", "Fracture"),
        Label::LungLesion => private("LUNG_LESION", "Lung lesion"),
        Label::LungOpacity => private("LUNG_OPACITY", "Lung opacity"),
        Label::NoFinding => private("NO_FINDING", "No finding"),
        Label::PleuralEffusion => sct("60046008", "Pleural effusion"),
        Label::PleuralOther => private("PLEURAL_OTHER", "Other pleural finding"),
        Label::Pneumonia => private("PNEUMONIA", "Pneumonia"),
        Label::Pneumothorax => sct("36118008", "Pneumothorax"),
        Label::SupportDevices => private("SUPPORT_DEVICES", "Support devices"),
    }
}

/// What a phrase of an answer is, and where: a structure or a label if the phrase is its name.
pub(super) fn phrase(text: &str) -> (Code, Site) {
    match (Structure::from_name(text), Label::from_name(text)) {
        (Some(structure), _) => (ANATOMICAL_STRUCTURE, Site::of(structure)),
        (None, Some(found)) => (label(found), Site::CHEST),
        (None, None) => (GROUNDED_PHRASE, Site::CHEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn structures_and_labels_have_codes_that_fit_and_mean_one_thing() {
        let sites: Vec<Site> = Structure::all().map(Site::of).collect();
        let own = [
            BOX_LEFT,
            BOX_TOP,
            BOX_RIGHT,
            BOX_BOTTOM,
            SENTENCE,
            SIMILARITY,
            MARGIN,
            GROUNDED_PHRASE,
            ANSWER,
            QUESTION,
            DECODING,
            FINISH,
            SUPPORT,
            SENTENCE_OF_ANSWER,
            EVIDENCE,
            PROBABILITY,
            FLAG,
            INTENDED_USE,
            CALIBRATION,
            IMAGE_LABELS,
        ];
        let mut meanings = BTreeMap::new();
        for code in sites.iter().map(|site| site.code).chain(Label::ALL.map(label)).chain(own) {
            assert!(code.value.len() <= 16 && code.meaning.len() <= 64 && !code.meaning.is_empty(), "{code:?}");
            assert_eq!(meanings.insert((code.scheme, code.value), code.meaning).unwrap_or(code.meaning), code.meaning);
        }
        // No two structures are the same site.
        for (index, site) in sites.iter().enumerate() {
            assert!(!sites[..index].contains(site), "{site:?}");
        }
    }

    #[test]
    fn a_phrase_is_coded_if_it_is_a_name() {
        let left = Site { code: sct("39607008", "Lung"), side: Some(Side::Left) };
        assert_eq!(phrase("left lung"), (ANATOMICAL_STRUCTURE, left));
        assert_eq!(phrase("pleural effusion"), (sct("60046008", "Pleural effusion"), Site::CHEST));
        assert_eq!(phrase("a thing"), (GROUNDED_PHRASE, Site::CHEST));
    }
}
