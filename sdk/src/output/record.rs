//! Results as JSON. These records are the only JSON form of a study and of an answer: the types of the results do not serialise.

use crate::{
    Answer, Finish, Flag, Grounding, LabelScore, PixelBox, Provenance, Relation, SentenceEvidence, StructureResult, Study, Support, Task,
    Timing,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// The JSON record of a study.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Study"))]
#[non_exhaustive]
pub struct PerceiveRecord {
    /// The radiograph's path, or the name that was given for its pixels.
    pub image: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The 36 structures in index order.
    #[cfg_attr(test, schemars(length(equal = 36)))]
    pub structures: Vec<StructureRecord>,
    /// Scores of the 14 image labels by name, 0..1, not calibrated.
    #[cfg_attr(test, schemars(schema_with = "crate::output::schema::labels"))]
    pub labels: BTreeMap<&'static str, f32>,
    /// Reasons not to trust the study.
    pub flags: Vec<Flag>,
    /// Versions, settings and hashes that the result depends on.
    pub provenance: Provenance,
    /// Wall-clock time of each step in milliseconds.
    pub timing_ms: Timing,
}

/// The JSON record of a structure.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Structure"))]
#[non_exhaustive]
pub struct StructureRecord {
    /// Index, 0 to 35.
    #[cfg_attr(test, schemars(range(max = 35)))]
    pub index: usize,
    /// Name.
    #[cfg_attr(test, schemars(schema_with = "crate::output::schema::structure"))]
    pub name: &'static str,
    /// Bounding box `x0, y0, x1, y1` in pixels of the original image.
    #[serde(rename = "box")]
    #[cfg_attr(test, schemars(inner(range(min = 0))))]
    pub bounds: [f32; 4],
    /// The retrieved sentence.
    pub sentence: String,
    /// Cosine similarity of the sentence's embedding and the structure's, -1..1, not calibrated.
    #[cfg_attr(test, schemars(range(min = -1.001, max = 1.001)))]
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub margin: f32,
}

/// The JSON record of an answer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Answer"))]
#[non_exhaustive]
pub struct AskRecord {
    /// The question as it was put to the model, with boxes in pixels.
    pub question: String,
    /// The question's task, if one was given.
    pub task: Option<Task>,
    /// The answer without tags and coordinates.
    pub text: String,
    /// The answer as the model wrote it, with tags, and with boxes on a grid of 0..=1024 over the letterboxed square.
    pub raw: String,
    /// Phrases of the answer with their boxes.
    pub groundings: Vec<GroundingRecord>,
    /// Where each sentence of the answer comes from; empty for an answer in JSON.
    pub evidence: Vec<EvidenceRecord>,
    /// Number of tokens that were prefilled for this answer.
    pub prefilled: usize,
    /// Number of tokens that were decoded.
    pub tokens: usize,
    /// Number of decoder runs for these tokens.
    pub runs: usize,
    /// Natural logarithm of each decoded token's probability under the model; omitted unless the question asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f32>,
    /// Why the answer ended.
    pub finish: Finish,
    /// Flags of the study.
    pub flags: Vec<Flag>,
    /// Versions, settings and hashes that the result depends on.
    pub provenance: Provenance,
    /// Wall-clock time of each step in milliseconds.
    pub timing_ms: Timing,
}

/// The JSON record of a sentence's evidence.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Evidence"))]
#[non_exhaustive]
pub struct EvidenceRecord {
    /// The sentence.
    pub sentence: String,
    /// Whether what was perceived says the same.
    pub support: Support,
    /// Structures whose retrieved sentences speak for or against it, in index order.
    pub structures: Vec<StructureEvidenceRecord>,
    /// Indices in `groundings` of the phrases that it grounds.
    pub groundings: Vec<usize>,
    /// Mean probability of its tokens under the model, 0..1, not calibrated; `null` if it lies within a token of an earlier sentence.
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub probability: Option<f32>,
}

/// The JSON record of a structure that speaks for or against a sentence.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "StructureEvidence"))]
#[non_exhaustive]
pub struct StructureEvidenceRecord {
    /// Index of the structure, 0 to 35.
    #[cfg_attr(test, schemars(range(min = 0, max = 35)))]
    pub index: usize,
    /// Its name.
    #[cfg_attr(test, schemars(schema_with = "crate::output::schema::structure"))]
    pub name: &'static str,
    /// What its retrieved sentence says of the answer's sentence.
    pub relation: Relation,
    /// Cosine similarity of its retrieved sentence, -1..1, not calibrated.
    #[cfg_attr(test, schemars(range(min = -1.001, max = 1.001)))]
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    pub margin: f32,
    /// Its bounding box `x0, y0, x1, y1` in pixels of the original image.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
}

/// The JSON record of a grounding.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Grounding"))]
#[non_exhaustive]
pub struct GroundingRecord {
    /// The phrase; empty for boxes without a phrase.
    pub phrase: String,
    /// Boxes `x0, y0, x1, y1` in pixels of the original image.
    #[cfg_attr(test, schemars(inner(inner(range(min = 0)))))]
    pub boxes: Vec<[f32; 4]>,
}

impl PerceiveRecord {
    /// The record as JSON, without line breaks, as `anatomix perceive --json` prints it.
    pub fn to_json(&self) -> String {
        json(self)
    }
}

impl AskRecord {
    /// The record as JSON, without line breaks, as `anatomix ask --json` prints it.
    pub fn to_json(&self) -> String {
        json(self)
    }
}

/// Serialising a record cannot fail: it has neither maps with other keys than text, nor types that refuse.
fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).unwrap_or_else(|_| unreachable!("a record has text as keys only"))
}

impl From<&Study> for PerceiveRecord {
    fn from(study: &Study) -> Self {
        Self {
            image: study.name().into(),
            width: study.width(),
            height: study.height(),
            structures: study.structures().iter().map(StructureRecord::from).collect(),
            labels: labels(study.labels()),
            flags: study.flags().to_vec(),
            provenance: study.provenance().clone(),
            timing_ms: timing(study.timing()),
        }
    }
}

impl From<&StructureResult> for StructureRecord {
    fn from(found: &StructureResult) -> Self {
        Self {
            index: found.structure.index(),
            name: found.structure.name(),
            bounds: pixels(&found.bounds),
            sentence: found.sentence.text.clone(),
            similarity: score(found.sentence.similarity),
            margin: score(found.sentence.margin),
        }
    }
}

impl From<&Answer> for AskRecord {
    fn from(answer: &Answer) -> Self {
        Self {
            question: answer.question.clone(),
            task: answer.task,
            text: answer.text.clone(),
            raw: answer.raw.clone(),
            groundings: answer.groundings.iter().map(GroundingRecord::from).collect(),
            evidence: answer.evidence.iter().map(|evidence| EvidenceRecord::new(evidence, &answer.text)).collect(),
            prefilled: answer.prefilled,
            tokens: answer.tokens,
            runs: answer.runs,
            log_probabilities: answer.log_probabilities.iter().map(|&value| score(value)).collect(),
            finish: answer.finish,
            flags: answer.flags.clone(),
            provenance: answer.provenance.clone(),
            timing_ms: timing(&answer.timing),
        }
    }
}

impl EvidenceRecord {
    fn new(evidence: &SentenceEvidence, text: &str) -> Self {
        let structures = evidence.structures.iter().map(|found| StructureEvidenceRecord {
            index: found.structure.index(),
            name: found.structure.name(),
            relation: found.relation,
            similarity: score(found.similarity),
            margin: score(found.margin),
            bounds: pixels(&found.bounds),
        });
        Self {
            sentence: text.get(evidence.range.clone()).unwrap_or_default().into(),
            support: evidence.support,
            structures: structures.collect(),
            groundings: evidence.groundings.clone(),
            probability: evidence.probability.map(score),
        }
    }
}

impl From<&Grounding> for GroundingRecord {
    fn from(grounding: &Grounding) -> Self {
        Self { phrase: grounding.phrase.clone(), boxes: grounding.boxes.iter().map(pixels).collect() }
    }
}

/// Scores by label name. Alphabetical order is also the labels' index order.
fn labels(scores: &[LabelScore]) -> BTreeMap<&'static str, f32> {
    scores.iter().map(|one| (one.label.name(), score(one.score))).collect()
}

/// Rounded to a hundredth of a pixel, which is finer than any model's precision.
pub(super) fn pixels(bounds: &PixelBox) -> [f32; 4] {
    <[f32; 4]>::from(*bounds).map(|v| (v * 100.0).round() / 100.0)
}

pub(super) fn score(value: f32) -> f32 {
    (value * 1e4).round() / 1e4
}

fn timing(steps: &Timing) -> Timing {
    steps.map(|milliseconds| (milliseconds * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Label, Retrieved, Structure};
    use serde_json::{Value, json};

    fn provenance() -> Provenance {
        let text = || String::from("x");
        Provenance {
            sdk: text(),
            bundle: text(),
            bundle_sha256: text(),
            provider: text(),
            precision: text(),
            input_sha256: text(),
            decoding: text(),
            scores: text(),
            intended_use: text(),
            onnx_runtime: text(),
            pixels: Default::default(),
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_structure_and_the_labels_have_their_fields() {
        let found = StructureResult {
            structure: Structure::LEFT_LUNG,
            bounds: PixelBox::new(1.04, 2.06, 300.123, 4.0),
            sentence: Retrieved { text: "Left lung is healthy.".into(), similarity: 0.987_654, margin: 0.1 },
        };
        let value = serde_json::to_string(&StructureRecord::from(&found)).unwrap();
        let expected = [
            r#"{"index":11,"name":"Left lung","box":[1.04,2.06,300.12,4.0],"#,
            r#""sentence":"Left lung is healthy.","similarity":0.9877,"margin":0.1}"#,
        ];
        assert_eq!(value, expected.concat());
        let scores: Vec<LabelScore> = Label::ALL.into_iter().map(|label| LabelScore { label, score: 0.25 }).collect();
        let names: Vec<&str> = labels(&scores).into_keys().collect();
        assert_eq!(names, Label::ALL.map(Label::name));
    }

    #[test]
    fn an_answer_has_its_fields() {
        let answer = Answer {
            question: "Where is the nodule?".into(),
            task: Some(Task::PhraseGrounding),
            text: "nodule".into(),
            raw: String::new(),
            groundings: vec![Grounding { phrase: "nodule".into(), boxes: vec![PixelBox::new(1.0, 2.0, 3.0, 4.0)] }],
            evidence: vec![],
            prefilled: 20,
            tokens: 9,
            runs: 4,
            log_probabilities: vec![],
            finish: Finish::EndOfTurn,
            flags: vec![],
            provenance: provenance(),
            timing: Timing { total: Some(1.23456), ..Timing::default() },
        };
        let value = serde_json::to_value(AskRecord::from(&answer)).unwrap();
        let expected = [
            "evidence",
            "finish",
            "flags",
            "groundings",
            "prefilled",
            "provenance",
            "question",
            "raw",
            "runs",
            "task",
            "text",
            "timing_ms",
            "tokens",
        ];
        let mut found = keys(&value);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(value["groundings"], json!([{ "phrase": "nodule", "boxes": [[1.0, 2.0, 3.0, 4.0]] }]));
        assert_eq!((&value["finish"], &value["task"]), (&json!("end_of_turn"), &json!("phrase_grounding")));
        assert_eq!(value["timing_ms"], json!({ "total": 1.23 }));
    }
}
