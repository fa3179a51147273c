//! Answers, sorted by what the tables tell apart, and scored.

use super::journal::Record;
use crate::data::samples::record::{Sample, Source};
use crate::evaluation::Case;
use crate::evaluation::answers::labels_in;
use crate::evaluation::image::Frame;
use crate::predictions::judges::Judges;
use crate::predictions::scores::{Figures, Prediction, figures};
use anatomix::{LABEL_COUNT, PixelBox, Structure, Task};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// How the images were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// As they are.
    Upright,
    /// Mirrored.
    Mirrored,
    /// Without markers and other text.
    Unmarked,
}

impl Condition {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upright => "upright",
            Self::Mirrored => "mirrored",
            Self::Unmarked => "unmarked",
        }
    }
}

/// The group of all boxes of the perception module, and the first part of the name of each structure's.
pub const PERCEPTION: &str = "perception";
/// The same of retrieved sentences.
pub const RETRIEVAL: &str = "retrieval";

/// A model's answer to a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The words.
    pub text: String,
    /// The boxes in pixels of the image that was shown.
    pub boxes: Vec<PixelBox>,
    /// Number of boxes that could not be read.
    pub unread: usize,
}

/// What a model answered under one condition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Figures of each group of questions.
    pub groups: BTreeMap<String, Figures>,
    /// Number of questions.
    pub questions: usize,
    /// Number of questions without an answer, which count as empty answers.
    pub unanswered: usize,
    /// Number of boxes that could not be read.
    pub unread: usize,
}

impl Measured {
    /// Scores answers to the questions of all cases. `given` returns a model's answer to a sample.
    ///
    /// # Errors
    /// If a judge cannot read a text.
    pub fn answers(
        cases: &[Case],
        mirrored: bool,
        given: impl Fn(&Sample, &Case) -> Option<Given>,
        judges: &Judges,
        seed: u64,
    ) -> Result<Self> {
        let (mut sorted, mut measured) = (Sorted::default(), Self::default());
        for case in cases {
            let frame = Frame { width: case.image.width as f32, flip: mirrored };
            for sample in &case.samples {
                measured.questions += 1;
                let given = given(sample, case).unwrap_or_else(|| {
                    measured.unanswered += 1;
                    Given::default()
                });
                measured.unread += given.unread;
                let mut prediction = Prediction { patient: sample.patient.clone(), ..Prediction::default() };
                match sample.task {
                    Task::AnatomyGrounding | Task::PhraseGrounding | Task::AbnormalityDetection => {
                        prediction.boxes = Some((given.boxes, frame.boxes(sample)));
                    }
                    task => {
                        if task == Task::Classification {
                            prediction.labels = Some((labels_in(&sample.answer), labels_in(&given.text)));
                        }
                        prediction.texts = Some((sample.answer.clone(), given.text));
                    }
                }
                sorted.add(prediction, groups(sample, case.image.source));
            }
        }
        measured.groups = sorted.figures(judges, seed)?;
        Ok(measured)
    }

    /// Adds the figures of the perception module's boxes and of retrieved sentences.
    ///
    /// # Errors
    /// As [`Measured::answers`].
    pub fn add_perceived(&mut self, cases: &[Case], records: &[Record], mirrored: bool, judges: &Judges, seed: u64) -> Result<()> {
        let mut sorted = Sorted::default();
        for (case, record) in cases.iter().zip(records) {
            let image = &case.image;
            let frame = Frame { width: image.width as f32, flip: mirrored };
            let patient = || Prediction { patient: image.patient.clone(), ..Prediction::default() };
            let found = record.boxes.iter().zip(&record.sentences);
            for ((structure, (bounds, sentence)), (expected, expected_sentence)) in
                Structure::all().zip(found).zip(image.boxes.iter().zip(&image.sentences))
            {
                let Some(expected) = expected else { continue };
                let names = |kind: &str| vec![kind.to_owned(), format!("{kind}/{structure}")];
                let boxes = Some((vec![*bounds], vec![frame.bounds(expected)]));
                sorted.add(Prediction { boxes, ..patient() }, names(PERCEPTION));
                if let Some(expected) = expected_sentence {
                    let texts = Some((expected.clone(), sentence.clone()));
                    sorted.add(Prediction { texts, ..patient() }, names(RETRIEVAL));
                }
            }
        }
        self.groups.extend(sorted.figures(judges, seed)?);
        Ok(())
    }
}

/// Predictions with their groups.
#[derive(Default)]
struct Sorted {
    predictions: Vec<Prediction>,
    groups: BTreeMap<String, Vec<usize>>,
}

impl Sorted {
    fn add(&mut self, prediction: Prediction, groups: Vec<String>) {
        for group in groups {
            self.groups.entry(group).or_default().push(self.predictions.len());
        }
        self.predictions.push(prediction);
    }

    fn figures(mut self, judges: &Judges, seed: u64) -> Result<BTreeMap<String, Figures>> {
        let scores = judges.score(&mut self.predictions)?;
        // What no table shows is not resampled a thousand times.
        let wanted = |name: &str| !["rouge2", "rouge_l", "bleu", "accuracy"].contains(&name);
        let of = |(group, cases): (String, Vec<usize>)| (group, figures(&self.predictions, &scores, &cases, seed, wanted));
        Ok(self.groups.into_iter().map(of).collect())
    }
}

/// The groups of a sample: its task; of grounding tasks also task and data set, or task and structure.
fn groups(sample: &Sample, source: Source) -> Vec<String> {
    let mut groups = vec![sample.task.name().to_owned()];
    match sample.task {
        Task::PhraseGrounding | Task::GroundedDiagnosis | Task::GroundedCaptioning => {
            groups.push(format!("{}/{}", sample.task, data_set(source)));
        }
        Task::AnatomyGrounding => groups.extend(structure(sample).map(|structure| format!("{}/{structure}", sample.task))),
        _ => {}
    }
    if !sample.history.is_empty() {
        groups.push(format!("{}/follow_up", sample.task));
    }
    groups
}

/// The data set of grounding questions on images of a source, as the paper's tables name it.
pub fn data_set(source: Source) -> &'static str {
    match source {
        Source::MimicCxrJpg => "MS-CXR",
        Source::VindrCxr => "VinDr-CXR",
        Source::PadchestGr => "PadChest-GR",
        Source::Slake => "SLAKE",
        Source::Phantom => "phantoms",
    }
}

/// The structure that a question of anatomy grounding names: the longest name in its texts, because `left lung` is also in the names of
/// zones.
fn structure(sample: &Sample) -> Option<Structure> {
    let text = format!("{} {}", sample.question, sample.answer).to_lowercase();
    Structure::all().filter(|structure| text.contains(&structure.name().to_lowercase())).max_by_key(|structure| structure.name().len())
}

/// Whether the labels of an image that has some apply, and their scores, for AUROC and calibration.
pub fn label_scores(cases: &[Case], records: &[Record]) -> Vec<Prediction> {
    let known = cases.iter().zip(records).filter_map(|(case, record)| Some((case, record, case.image.labels.as_ref()?)));
    known
        .map(|(case, record, labels)| {
            let applies = labels.map(|label| label == Some(1));
            let mut scores = [f64::NAN; LABEL_COUNT];
            for (index, score) in scores.iter_mut().enumerate().filter(|(index, _)| labels[*index].is_some_and(|label| label >= 0)) {
                *score = f64::from(record.labels[index]);
            }
            Prediction { patient: case.image.patient.clone(), scores: Some((applies, scores)), ..Prediction::default() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::samples::record::Image;
    use crate::data::sources::split::Split;

    fn case(samples: &[(Task, &str, &str, &[PixelBox])]) -> Case {
        let name = || "phantom/a".to_string();
        let mut image = Image::new(Source::Phantom, "a", "a.png".into(), (100, 100), name(), name(), Some(Split::Test));
        let samples = samples.iter().map(|&(task, question, answer, boxes)| Sample {
            boxes: boxes.into(),
            ..Sample::new(&image, Split::Test, task, question.into(), answer.into())
        });
        let samples = samples.collect();
        image.boxes = Structure::all().map(|s| (s == Structure::LEFT_LUNG).then(|| PixelBox::new(0.0, 0.0, 50.0, 100.0))).collect();
        image.sentences = Structure::all().map(|s| Some(format!("{s} is healthy."))).collect();
        Case { image, path: "a.png".into(), samples }
    }

    #[test]
    fn answers_are_grouped_by_what_tables_tell_apart() {
        let bounds = [PixelBox::new(0.0, 0.0, 50.0, 100.0)];
        let cases = [case(&[
            (Task::AnatomyGrounding, "Where is the left lung?", "", &bounds),
            (Task::AnatomyGrounding, "Where is the apical zone of left lung?", "", &bounds),
            (Task::PhraseGrounding, "Where is the edema?", "", &bounds),
            (Task::Report, "Report.", "Clear lungs.", &[]),
            (Task::Classification, "Labels?", "Edema", &[]),
        ])];
        let given = |sample: &Sample, _: &Case| {
            let boxes = if sample.question.contains("apical") { vec![] } else { bounds.to_vec() };
            let text = if sample.task == Task::Classification { "Edema, Fracture" } else { "Clear lungs." };
            (sample.task != Task::PhraseGrounding).then(|| Given { text: text.into(), boxes, unread: 1 })
        };
        let measured = Measured::answers(&cases, false, given, &Judges::default(), 1).unwrap();
        let value = |group: &str, name: &str| measured.groups[group].get(name).map(|figure| figure.value);
        assert_eq!((measured.questions, measured.unanswered, measured.unread), (5, 1, 4));
        assert_eq!((value("anatomy_grounding", "iou"), value("anatomy_grounding", "iou_all")), (Some(1.0), Some(0.5)));
        assert_eq!(value("anatomy_grounding/Left lung", "iou"), Some(1.0));
        assert_eq!(value("anatomy_grounding/Apical zone of left lung", "iou_all"), Some(0.0));
        // An unanswered question counts only in the corrected protocol.
        assert_eq!((value("phrase_grounding/phantoms", "iou"), value("phrase_grounding/phantoms", "iou_all")), (None, Some(0.0)));
        assert_eq!((value("report", "rouge1"), value("report", "meteor"), value("report", "iou")), (Some(1.0), None, None));
        assert_eq!(value("classification", "f1_weighted"), Some(1.0));
        // The mirrored left lung is elsewhere.
        let mirrored = Measured::answers(&cases, true, given, &Judges::default(), 1).unwrap();
        assert_eq!(mirrored.groups["anatomy_grounding/Left lung"]["iou"].value, 0.0);
    }

    #[test]
    fn perceived_boxes_and_sentences_are_grouped_by_structure() {
        let cases = [case(&[])];
        let records = [Record {
            image: "phantom/a".into(),
            boxes: vec![PixelBox::new(0.0, 0.0, 50.0, 50.0); 36],
            sentences: Structure::all().map(|s| format!("{s} is healthy.")).collect(),
            labels: [0.5; LABEL_COUNT],
            flags: vec![],
            answers: vec![],
            milliseconds: 1.0,
        }];
        let mut measured = Measured::default();
        measured.add_perceived(&cases, &records, false, &Judges::default(), 1).unwrap();
        assert_eq!(measured.groups["perception/Left lung"]["iou"].value, 0.5);
        assert_eq!((measured.groups["retrieval"]["rouge1"].value, measured.groups["retrieval"]["rouge1"].count), (1.0, 1));
        assert!(!measured.groups.contains_key("perception/Right lung"), "a structure without annotation is left out");
        let mut labelled = case(&[]);
        assert!(label_scores(&cases, &records).is_empty());
        labelled.image.labels = Some([Some(1); LABEL_COUNT]);
        assert_eq!(label_scores(&[labelled], &records).len(), 1);
    }
}
