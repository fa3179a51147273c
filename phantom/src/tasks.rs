//! Instruction samples of the nine tasks. Questions have several wordings, answers have one.

use crate::findings::{Finding, Kind};
use crate::scene::Scene;
use crate::text;
use anatomix::parts::geometry::Letterbox;
use anatomix::{PixelBox, Side, Structure, Task};
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A question on a picture and its answer. Boxes in both texts are on the prompt's grid, 0..=1024 over the letterboxed square.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The task.
    pub task: Task,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The correct boxes, in pixels of the picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<PixelBox>,
}

const CLASSIFICATION: [&str; 5] = [
    "Which of the 14 labels apply to this chest radiograph?",
    "Classify this chest radiograph.",
    "Name the labels of this radiograph.",
    "Which labels describe the image?",
    "List the labels that apply.",
];
const REPORT: [&str; 5] = [
    "Write the findings and impression of this chest radiograph.",
    "Write a radiology report for this image.",
    "Describe this chest radiograph as a report.",
    "Give a full report.",
    "Report this chest radiograph.",
];
const DETECTION: [&str; 5] = [
    "Find the abnormalities in this chest radiograph.",
    "Which abnormalities are there, and where?",
    "Detect all abnormal findings.",
    "Locate every abnormality.",
    "Mark the abnormal findings in the image.",
];
const WHERE: [&str; 5] = ["Where is the {}?", "Locate the {}.", "Find the {} in the image.", "Show me the {}.", "Give the box of the {}."];
const DIAGNOSIS: [&str; 4] =
    ["What is the finding in {}?", "Name the abnormality in {}.", "Which diagnosis fits the region {}?", "What does the region {} show?"];
const CAPTION: [&str; 4] =
    ["Describe the region {}.", "Write a caption for {}.", "Describe what is seen in {}.", "Write a sentence about the region {}."];
const OPEN: [&str; 4] = ["What does the {} show?", "What is seen in the {}?", "Describe the {}.", "What is the state of the {}?"];

/// Writes a box as text of a question or an answer.
pub fn write_box(bounds: &PixelBox, letterbox: &Letterbox) -> String {
    let [x0, y0, x1, y1] = letterbox.normalize(bounds).to_grid();
    format!("<box>({x0},{y0}),({x1},{y1})</box>")
}

fn grounded(phrase: &str, boxes: &[PixelBox], letterbox: &Letterbox) -> String {
    let boxes: String = boxes.iter().map(|b| write_box(b, letterbox)).collect();
    format!("<ref>{phrase}</ref>{boxes}")
}

/// Samples of all nine tasks on a scene. The scene's seed and `round` determine the choice.
pub fn samples(scene: &Scene, round: u64) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(scene.seed.wrapping_mul(0x9e37_79b9).wrapping_add(round));
    let letterbox = Letterbox::new(scene.frame.width, scene.frame.height);
    let mut out = Vec::new();
    let mut push = |task, question: String, answer: String, boxes: Vec<PixelBox>| {
        out.push(Sample { task, question, answer, boxes });
    };
    let pick = |options: &[&'static str], rng: &mut ChaCha8Rng| options.choose(rng).copied().unwrap_or_default();

    push(Task::Report, pick(&REPORT, &mut rng).into(), text::report(scene), vec![]);
    push(Task::Classification, pick(&CLASSIFICATION, &mut rng).into(), text::labels(scene), vec![]);

    let abnormal: Vec<&Finding> = scene.findings.iter().filter(|f| !f.kind.is_device()).collect();
    let mut boxes = Vec::new();
    let mut parts = Vec::new();
    for finding in &abnormal {
        let found = finding.boxes(&scene.frame);
        parts.push(grounded(finding.kind.name(), &found, &letterbox));
        boxes.extend(found);
    }
    let answer = if parts.is_empty() { "No abnormality is seen.".into() } else { parts.join(" ") };
    push(Task::AbnormalityDetection, pick(&DETECTION, &mut rng).into(), answer, boxes);

    for finding in &scene.findings {
        let found = finding.boxes(&scene.frame);
        let phrase = finding.phrase();
        let question = pick(&WHERE, &mut rng).replace("{}", &phrase);
        push(Task::PhraseGrounding, question, grounded(&phrase, &found, &letterbox), found.clone());
        if let Some(bounds) = found.choose(&mut rng) {
            let place = write_box(bounds, &letterbox);
            let question = pick(&DIAGNOSIS, &mut rng).replace("{}", &place);
            push(Task::GroundedDiagnosis, question, text::capitalize(finding.kind.name()), vec![*bounds]);
            let question = pick(&CAPTION, &mut rng).replace("{}", &place);
            push(Task::GroundedCaptioning, question, format!("{}.", text::capitalize(&phrase)), vec![*bounds]);
        }
    }

    let visible: Vec<(Structure, PixelBox)> = Structure::all().filter_map(|s| scene.structure_box(s).map(|b| (s, b))).collect();
    for (structure, bounds) in visible.iter().sample(&mut rng, 3) {
        let sample = anatomy_question(*structure, &write_box(bounds, &letterbox), &mut rng);
        push(sample.task, sample.question, sample.answer, vec![*bounds]);
    }

    for structure in open_structures(scene, &visible, &mut rng) {
        let sample = open_question(structure, scene.sentence(structure), &mut rng);
        push(sample.task, sample.question, sample.answer, vec![]);
    }
    let devices: Vec<String> = scene.findings.iter().filter(|f| f.kind.is_device()).map(Finding::phrase).collect();
    if rng.random_bool(0.3) {
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        let answer = if devices.is_empty() { "None.".into() } else { format!("{}.", text::capitalize(&text::join(&devices))) };
        push(Task::OpenQuestion, "Which devices are there?".into(), answer, vec![]);
    }
    for (question, answer) in closed(scene, &abnormal, &visible, &mut rng) {
        push(Task::ClosedQuestion, question, answer.into(), vec![]);
    }
    out
}

/// A sample that asks where a structure is; `place` is its box from [`write_box`].
pub fn anatomy_question(structure: Structure, place: &str, rng: &mut impl Rng) -> Sample {
    let question = WHERE.choose(rng).copied().unwrap_or_default().replace("{}", &structure.name().to_lowercase());
    let answer = format!("<ref>{structure}</ref>{place}");
    Sample { task: Task::AnatomyGrounding, question, answer, boxes: vec![] }
}

/// A sample that asks what a structure shows; its sentence is the answer.
pub fn open_question(structure: Structure, sentence: String, rng: &mut impl Rng) -> Sample {
    let question = OPEN.choose(rng).copied().unwrap_or_default().replace("{}", &structure.name().to_lowercase());
    Sample { task: Task::OpenQuestion, question, answer: sentence, boxes: vec![] }
}

/// A sample that asks whether a structure is healthy.
pub fn health_question(structure: Structure, healthy: bool) -> Sample {
    let question = format!("Is the {} healthy?", structure.name().to_lowercase());
    let answer = if healthy { "Yes" } else { "No" }.into();
    Sample { task: Task::ClosedQuestion, question, answer, boxes: vec![] }
}

fn open_structures(scene: &Scene, visible: &[(Structure, PixelBox)], rng: &mut impl Rng) -> Vec<Structure> {
    let affected = visible.iter().map(|v| v.0).filter(|&s| !scene.attributes(s).is_empty());
    let mut chosen: Vec<Structure> = affected.sample(rng, 1);
    chosen.extend(visible.iter().map(|v| v.0).sample(rng, 2 - chosen.len()));
    chosen
}

/// Closed questions and answers: about as many with yes as with no, and one that asks for the side of a finding.
fn closed(scene: &Scene, abnormal: &[&Finding], visible: &[(Structure, PixelBox)], rng: &mut impl Rng) -> Vec<(String, &'static str)> {
    let mut out = Vec::new();
    let ask = |name: &str, rng: &mut dyn FnMut(usize) -> usize| match rng(3) {
        0 => format!("Is there {}?", with_article(name)),
        1 => format!("Does the image show {}?", with_article(name)),
        _ => format!("Can you see {}?", with_article(name)),
    };
    let mut draw = |n: usize| rng.random_range(0..n);
    let present = |kind: Kind| scene.findings.iter().any(|f| f.kind == kind);
    if !scene.findings.is_empty() {
        let finding = &scene.findings[draw(scene.findings.len())];
        out.push((ask(finding.kind.name(), &mut draw), "Yes"));
    }
    let absent: Vec<Kind> = Kind::FREQUENCIES.iter().map(|f| f.0).filter(|&k| !present(k)).collect();
    if !absent.is_empty() {
        let kind = absent[draw(absent.len())];
        out.push((ask(kind.name(), &mut draw), "No"));
    }
    if let Some(finding) = abnormal.iter().find(|f| f.side.is_some()) {
        let question = format!("Is the {} on the left or on the right?", finding.kind.name());
        out.push((question, if finding.side == Some(Side::Left) { "Left" } else { "Right" }));
    }
    match draw(2) {
        0 => out.push(("Is this image normal?".into(), if abnormal.is_empty() { "Yes" } else { "No" })),
        _ if !visible.is_empty() => {
            let affected: Vec<Structure> = visible.iter().map(|v| v.0).filter(|&s| !scene.attributes(s).is_empty()).collect();
            let structure =
                if !affected.is_empty() && draw(2) == 0 { affected[draw(affected.len())] } else { visible[draw(visible.len())].0 };
            let healthy = scene.attributes(structure).is_empty();
            out.push((health_question(structure, healthy).question, if healthy { "Yes" } else { "No" }));
        }
        _ => {}
    }
    out
}

fn with_article(name: &str) -> String {
    match name {
        "consolidation" | "pneumonia" | "atelectasis" | "pulmonary edema" | "pleural thickening" => name.to_string(),
        name if name.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {name}"),
        name => format!("a {name}"),
    }
}
