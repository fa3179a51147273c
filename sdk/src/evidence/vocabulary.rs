//! The words of statements: findings and devices with their synonyms, and everyday names of structures. All are lower-case words,
//! separated by spaces, in the singular.

use crate::anatomy::Label;

/// A finding or device that a sentence can assert or deny.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    /// Its terms. All mean the same here.
    pub terms: &'static [&'static str],
    /// The image label that it belongs to.
    pub label: Option<Label>,
    /// Whether this is a name for all findings of `label`, such as "support device".
    pub is_general: bool,
    /// Where it is seen if a sentence names no structure: indices of structures.
    pub home: &'static [u8],
}

const LUNGS: &[u8] = &[11, 20];
const HEART: &[u8] = &[4];
const MEDIASTINUM: &[u8] = &[14];
const CLAVICLES: &[u8] = &[8, 17];
const AIRWAY: &[u8] = &[29];

const fn finding(label: Label, home: &'static [u8], terms: &'static [&'static str]) -> Finding {
    Finding { terms, label: Some(label), is_general: false, home }
}

const fn general(label: Label, home: &'static [u8], terms: &'static [&'static str]) -> Finding {
    Finding { terms, label: Some(label), is_general: true, home }
}

const fn unlabelled(home: &'static [u8], terms: &'static [&'static str]) -> Finding {
    Finding { terms, label: None, is_general: false, home }
}

/// The enlarged heart, which "The heart size is normal" denies.
pub(super) const ENLARGED_HEART: usize = 0;
/// The wide mediastinum, which "The mediastinal contours are normal" denies.
pub(super) const WIDE_MEDIASTINUM: usize = 1;

/// Findings and devices: those of Chest ImaGenome's scene graphs, CheXpert's labels, and usual synonyms.
pub(super) const FINDINGS: &[Finding] = &[
    finding(
        Label::Cardiomegaly,
        HEART,
        &[
            "enlarged heart",
            "heart is enlarged",
            "enlarged cardiac silhouette",
            "cardiac silhouette is enlarged",
            "cardiomegaly",
            "cardiac enlargement",
        ],
    ),
    finding(
        Label::EnlargedCardiomediastinum,
        MEDIASTINUM,
        &[
            "widened mediastinum",
            "wide mediastinum",
            "mediastinum is widened",
            "mediastinal widening",
            "enlarged cardiomediastinum",
            "enlarged cardiomediastinal silhouette",
            "superior mediastinal enlargement",
            "mediastinal enlargement",
        ],
    ),
    finding(Label::Consolidation, LUNGS, &["consolidation", "airspace consolidation", "airspace disease"]),
    finding(Label::Pneumonia, LUNGS, &["pneumonia", "infectious process"]),
    finding(
        Label::Atelectasis,
        LUNGS,
        &["atelectasis", "atelectase", "linear atelectasis", "patchy atelectasis", "lobar collapse", "segmental collapse"],
    ),
    finding(
        Label::LungLesion,
        LUNGS,
        &[
            "lung lesion",
            "pulmonary lesion",
            "nodule",
            "lung nodule",
            "pulmonary nodule",
            "mass",
            "lung mass",
            "calcified nodule",
            "lung cancer",
        ],
    ),
    finding(Label::Edema, LUNGS, &["pulmonary edema", "edema", "interstitial edema", "fluid overload", "pulmonary oedema"]),
    general(
        Label::LungOpacity,
        LUNGS,
        &["lung opacity", "opacity", "airspace opacity", "hazy opacity", "infiltrate", "infiltration", "opacification"],
    ),
    finding(
        Label::PleuralEffusion,
        LUNGS,
        &["pleural effusion", "effusion", "pleural fluid", "costophrenic angle blunting", "blunting of the costophrenic angle"],
    ),
    finding(Label::Pneumothorax, LUNGS, &["pneumothorax", "pneumothorace", "hydropneumothorax"]),
    finding(Label::PleuralOther, LUNGS, &["pleural thickening", "pleural scarring", "pleural plaque", "pleural other"]),
    finding(
        Label::Fracture,
        CLAVICLES,
        &["fracture", "clavicle fracture", "clavicular fracture", "rib fracture", "spinal fracture", "fractured clavicle", "fractured rib"],
    ),
    finding(Label::SupportDevices, AIRWAY, &["endotracheal tube", "et tube", "tracheostomy tube"]),
    finding(
        Label::SupportDevices,
        MEDIASTINUM,
        &[
            "central venous catheter",
            "central line",
            "central venous line",
            "ij line",
            "picc",
            "picc line",
            "subclavian line",
            "port a cath",
        ],
    ),
    finding(
        Label::SupportDevices,
        MEDIASTINUM,
        &["enteric tube", "nasogastric tube", "ng tube", "orogastric tube", "feeding tube", "gastric tube"],
    ),
    finding(Label::SupportDevices, LUNGS, &["pacemaker", "cardiac pacer", "pacer", "cardiac pacer and wire", "defibrillator", "icd"]),
    finding(Label::SupportDevices, LUNGS, &["chest tube", "pleural drain", "pigtail catheter"]),
    general(Label::SupportDevices, &[14, 29, 11, 20], &["support device", "line or tube", "tube or line", "device"]),
    unlabelled(LUNGS, &["vascular congestion", "pulmonary vascular congestion", "congestion"]),
    unlabelled(LUNGS, &["emphysema", "hyperinflation", "hyperaeration", "copd"]),
    unlabelled(LUNGS, &["low lung volume", "low volume"]),
    unlabelled(LUNGS, &["interstitial lung disease", "interstitial marking", "fibrosis", "scarring"]),
    unlabelled(&[1, 5], &["tortuous aorta", "aortic tortuosity", "vascular calcification", "aortic calcification"]),
    unlabelled(&[30], &["scoliosis", "degenerative change", "spinal degenerative change"]),
    unlabelled(&[9, 18], &["elevated hemidiaphragm", "sub diaphragmatic air", "free air"]),
    unlabelled(&[14], &["hernia", "hiatal hernia"]),
];

/// Everyday names of structures. A pair is the patient's left and right structure; a name without a side means both.
pub(super) const SITES: &[(&str, &[u8])] = &[
    ("lung", &[11, 20]),
    ("pulmonary", &[11, 20]),
    ("hemithorax", &[11, 20]),
    ("upper lung zone", &[13, 22]),
    ("upper lung", &[13, 22]),
    ("upper lobe", &[13, 22]),
    ("upper zone", &[13, 22]),
    ("mid lung zone", &[12, 21]),
    ("mid lung", &[12, 21]),
    ("mid zone", &[12, 21]),
    ("middle lobe", &[12, 21]),
    ("lower lung zone", &[10, 19]),
    ("lower lung", &[10, 19]),
    ("lower lobe", &[10, 19]),
    ("lower zone", &[10, 19]),
    ("lung base", &[10, 19]),
    ("base", &[10, 19]),
    ("basilar", &[10, 19]),
    ("basal", &[10, 19]),
    ("apical zone", &[2, 3]),
    ("lung apex", &[2, 3]),
    ("apex", &[2, 3]),
    ("apical", &[2, 3]),
    ("hilar area", &[6, 7]),
    ("hilum", &[6, 7]),
    ("hila", &[6, 7]),
    ("hilar", &[6, 7]),
    ("perihilar", &[6, 7]),
    ("clavicle", &[8, 17]),
    ("hemidiaphragm", &[9, 18]),
    ("diaphragm", &[9, 18]),
    ("costodiaphragmatic recess", &[33, 35]),
    ("costophrenic angle", &[33, 35]),
    ("costophrenic sulcus", &[33, 35]),
    ("cardiophrenic sulcus", &[32, 34]),
    ("cardiophrenic angle", &[32, 34]),
    ("margin of heart", &[24, 16]),
    ("border of heart", &[24, 16]),
    ("heart border", &[24, 16]),
    ("upper quadrant", &[25, 26]),
    ("upper quadrant of abdomen", &[25, 26]),
    ("upper quadrant of the abdomen", &[25, 26]),
    ("heart", &[4]),
    ("cardiac shadow", &[4]),
    ("mediastinum", &[14]),
    ("mediastinal", &[14]),
    ("superior mediastinum", &[27]),
    ("aortic arch", &[1]),
    ("aortic knob", &[1]),
    ("descending aorta", &[5]),
    ("aorta", &[1, 5]),
    ("carina", &[23]),
    ("trachea", &[29]),
    ("bronchus", &[29]),
    ("superior vena cava", &[28]),
    ("svc", &[28]),
    ("right atrium", &[15]),
    ("cavoatrial", &[31]),
    ("spine", &[30]),
    ("vertebral column", &[30]),
    ("abdomen", &[0]),
    ("abdominal cavity", &[0]),
];

/// What is normal in a statement about more than a structure's whole: the finding that it denies.
pub(super) const NORMAL_ASPECTS: &[(&str, usize)] = &[
    ("heart size", ENLARGED_HEART),
    ("size of the heart", ENLARGED_HEART),
    ("cardiac size", ENLARGED_HEART),
    ("cardiac silhouette", ENLARGED_HEART),
    ("mediastinal contour", WIDE_MEDIASTINUM),
    ("mediastinal silhouette", WIDE_MEDIASTINUM),
];

/// Words that say that nothing is wrong with what the clause names.
pub(super) const NORMAL: &[&str] =
    &["normal", "clear", "healthy", "unremarkable", "within normal limit", "intact", "not enlarged", "not widened"];

/// Phrases that say that nothing is wrong at all.
pub(super) const NOTHING: &[&str] = &[
    "no finding",
    "no acute abnormality",
    "no abnormality",
    "no acute cardiopulmonary process",
    "no acute cardiopulmonary abnormality",
    "no acute finding",
    "no acute disease",
    "normal chest",
    "normal chest radiograph",
];

/// Words before a finding that deny it, up to the end of the clause.
pub(super) const DENIES_AFTER: &[&str] = &[
    "no",
    "without",
    "not",
    "never",
    "free of",
    "absence of",
    "negative for",
    "neither",
    "nor",
    "rather than",
    "no evidence of",
    "clear of",
];

/// Words after a finding that deny it.
pub(super) const DENIES_BEFORE: &[&str] = &[
    "is not seen",
    "are not seen",
    "not seen",
    "not identified",
    "not present",
    "not visible",
    "is absent",
    "are absent",
    "excluded",
    "has resolved",
    "have resolved",
    "resolved",
];

/// Words with which a finding is possible, and so neither asserted nor denied for certain: counted as asserted.
pub(super) const POSSIBLE: &[&str] =
    &["cannot be excluded", "cannot exclude", "not excluded", "can not be excluded", "may", "possible", "possibly", "suspected"];

/// Words at which a clause ends.
pub(super) const CLAUSE_ENDS: &[&str] = &["but", "however", "although", "though", "while", "whereas", "except", "yet", ";", ":"];

/// Verbs; `and` or a comma before words with a verb of their own begins another clause.
pub(super) const VERBS: &[&str] = &["is", "are", "was", "were", "has", "have", "show", "appear", "remain", "there"];

/// Words between a finding and where it is.
pub(super) const PREPOSITIONS: &[&str] = &["in", "of", "at", "on", "within", "over", "involving", "along", "near", "throughout"];

/// Words of degree, which are skipped.
pub(super) const DEGREES: &[&str] = &[
    "mildly",
    "moderately",
    "severely",
    "slightly",
    "markedly",
    "grossly",
    "minimally",
    "again",
    "now",
    "also",
    "mild",
    "moderate",
    "severe",
];
