//! Results as JSON: what the command line prints, a line each, and what other languages read.

use crate::{Answer, Finish, Flag, Grounding, LabelScore, PixelBox, Provenance, StructureFinding, Study, Task, Timing};
use serde::Serialize;
use std::collections::BTreeMap;

/// What was perceived in one radiograph.
#[derive(Clone, Debug, Serialize)]
pub struct PerceiveRecord {
    /// The radiograph's path, or what stands for it.
    pub image: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The 36 structures in index order.
    pub structures: Vec<StructureRecord>,
    /// Scores of the 14 image labels, 0..1, not calibrated.
    pub labels: BTreeMap<&'static str, f32>,
    /// What speaks against trusting it.
    pub flags: Vec<Flag>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Milliseconds by step.
    pub timing_ms: Timing,
}

/// A structure.
#[derive(Clone, Debug, Serialize)]
pub struct StructureRecord {
    /// Index, 0 to 35.
    pub index: usize,
    /// Name.
    pub name: &'static str,
    /// `x0, y0, x1, y1` in pixels of the original image.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
    /// The retrieved sentence.
    pub sentence: String,
    /// Its similarity, -1..1, not calibrated.
    pub similarity: f32,
    /// How much less similar the next sentence is.
    pub margin: f32,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
pub struct AskRecord {
    /// The question as the model was asked it.
    pub question: String,
    /// Its task, where it was named.
    pub task: Option<Task>,
    /// The answer, without tags and coordinates.
    pub text: String,
    /// The answer as the model wrote it, boxes on a grid of 1024 over the padded square.
    pub raw: String,
    /// Its phrases with their places.
    pub groundings: Vec<GroundingRecord>,
    /// How many tokens were computed before the answer's first one.
    pub prefilled: usize,
    /// How many tokens were decoded.
    pub tokens: usize,
    /// How many runs of the decoder that took.
    pub runs: usize,
    /// Natural logarithm of each token's probability by the model; left out unless asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// The study's flags.
    pub flags: Vec<Flag>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Milliseconds by step.
    pub timing_ms: Timing,
}

/// A phrase with its places.
#[derive(Clone, Debug, Serialize)]
pub struct GroundingRecord {
    /// The phrase; empty where there are boxes without one.
    pub phrase: String,
    /// Each `x0, y0, x1, y1` in pixels of the original image.
    pub boxes: Vec<[f32; 4]>,
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

impl From<&StructureFinding> for StructureRecord {
    fn from(found: &StructureFinding) -> Self {
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

impl From<&Grounding> for GroundingRecord {
    fn from(grounding: &Grounding) -> Self {
        Self { phrase: grounding.phrase.clone(), boxes: grounding.boxes.iter().map(pixels).collect() }
    }
}

/// By name; that the names are in alphabetical order is also their index order.
fn labels(scores: &[LabelScore]) -> BTreeMap<&'static str, f32> {
    scores.iter().map(|one| (one.label.name(), score(one.score))).collect()
}

/// A hundredth of a pixel is more than any model knows.
fn pixels(bounds: &PixelBox) -> [f32; 4] {
    <[f32; 4]>::from(*bounds).map(|v| (v * 100.0).round() / 100.0)
}

fn score(value: f32) -> f32 {
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
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_structure_and_the_labels_have_their_fields() {
        let found = StructureFinding {
            structure: Structure::LEFT_LUNG,
            bounds: PixelBox::new(1.04, 2.06, 300.123, 4.0),
            sentence: Retrieved { text: "Left lung is healthy.".into(), similarity: 0.987_654, margin: 0.1 },
        };
        let value = serde_json::to_string(&StructureRecord::from(&found)).unwrap();
        let expected = r#"{"index":11,"name":"Left lung","box":[1.04,2.06,300.12,4.0],"sentence":"Left lung is healthy.","similarity":0.9877,"margin":0.1}"#;
        assert_eq!(value, expected);
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
        let expected =
            ["finish", "flags", "groundings", "prefilled", "provenance", "question", "raw", "runs", "task", "text", "timing_ms", "tokens"];
        let mut found = keys(&value);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(value["groundings"], json!([{ "phrase": "nodule", "boxes": [[1.0, 2.0, 3.0, 4.0]] }]));
        assert_eq!((&value["finish"], &value["task"]), (&json!("end_of_turn"), &json!("phrase_grounding")));
        assert_eq!(value["timing_ms"], json!({ "total": 1.23 }));
    }
}
