//! Figures of all images together, which are printed as JSON.

use super::image::{Answered, ImageResult, Localised, Outcome};
use crate::metrics::labels::{F1, f1};
use crate::metrics::summary::{mean, median};
use anatomix::{LABEL_COUNT, Label, Structure, Task};
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures of a bundle on a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Name of the bundle.
    pub bundle: String,
    /// SHA-256 of the bundle's manifest.
    pub bundle_sha256: String,
    /// Execution provider.
    pub provider: String,
    /// Number of images.
    pub images: usize,
    /// Whether the images were mirrored.
    pub flip: bool,
    /// Figures of the perception module.
    pub apm: Apm,
    /// Figures of retrieval.
    pub retrieval: Retrieval,
    /// Figures of the language model for each task.
    pub tasks: BTreeMap<&'static str, TaskFigures>,
    /// Sentences of reports by what was perceived says of them.
    pub evidence: BTreeMap<&'static str, Evidence>,
    /// Median times in milliseconds.
    pub timing_ms: Timings,
}

/// Figures of the perception module.
#[derive(Clone, Debug, Serialize)]
pub struct Apm {
    /// Mean IoU over all boxes.
    pub iou: Option<f64>,
    /// Smallest mean IoU of a structure.
    pub worst: Option<f64>,
    /// The structure with the smallest mean IoU.
    pub worst_structure: Option<Structure>,
    /// Mean IoU of each structure.
    pub per_structure: BTreeMap<&'static str, f64>,
    /// Number of images that show each structure.
    pub counts: BTreeMap<&'static str, usize>,
    /// Number of boxes.
    pub count: usize,
    /// Figures of the image labels; a score of at least 0.5 counts as given.
    pub labels: LabelFigures,
}

/// F1 of the 14 labels.
#[derive(Clone, Debug, Serialize)]
pub struct LabelFigures {
    /// Mean F1 over the labels that occur.
    pub macro_f1: Option<f64>,
    /// F1 from the counts of all labels together.
    pub micro_f1: Option<f64>,
    /// F1 of each label that occurs.
    pub per_label: BTreeMap<&'static str, f64>,
}

/// Fractions of structures whose retrieved sentence is the expected one.
#[derive(Clone, Debug, Serialize)]
pub struct Retrieval {
    /// Fraction of all structures.
    pub exact: Option<f64>,
    /// Fraction of the structures with a finding.
    pub exact_with_finding: Option<f64>,
    /// Number of structures.
    pub count: usize,
    /// Number of structures with a finding.
    pub count_with_finding: usize,
}

/// Figures of a task; those that do not apply to it are `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskFigures {
    /// Number of questions.
    pub count: usize,
    /// Mean of [`mean_best_iou`](crate::metrics::boxes::mean_best_iou) over questions that expect boxes; an answer without boxes counts 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou: Option<f64>,
    /// The same without answers that have no boxes, as in the paper's protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou_answered: Option<f64>,
    /// Number of questions that expect boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_with_boxes: Option<usize>,
    /// Number of questions that expect boxes and whose answer has boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_answered: Option<usize>,
    /// Fraction of questions on normal images whose answer is that there is no abnormality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_exact: Option<f64>,
    /// Fraction of correct answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean ROUGE-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rouge1: Option<f64>,
    /// Fraction of answers that equal the expected one, see [`Outcome::Words`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
    /// Figures of the 14 labels in the answers.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelFigures>,
    /// Median time of an answer in milliseconds.
    pub milliseconds: Option<f64>,
    /// Median number of tokens of an answer.
    pub tokens: Option<f64>,
}

/// Sentences of reports that have the same support.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    /// Number of sentences.
    pub count: usize,
    /// Fraction that the expected reports do not have; see [`JudgedSentence::expected`](super::JudgedSentence::expected).
    pub wrong: Option<f64>,
}

/// Median times.
#[derive(Clone, Debug, Serialize)]
pub struct Timings {
    /// Number of images in parallel.
    pub workers: usize,
    /// Number of threads of the engine.
    pub threads: usize,
    /// Median milliseconds of each step of a study.
    pub study: BTreeMap<&'static str, f64>,
}

impl From<F1> for LabelFigures {
    fn from(f1: F1) -> Self {
        let per_label = Label::ALL.iter().zip(f1.per_label).filter_map(|(label, value)| Some((label.name(), value?))).collect();
        Self { macro_f1: f1.macro_f1, micro_f1: f1.micro_f1, per_label }
    }
}

impl Apm {
    /// Computes the figures of all images.
    pub fn of(results: &[ImageResult]) -> Self {
        let ious = |structure: Structure| localised(results).filter(move |l| l.0 == structure).map(|l| l.1.iou);
        let means: Vec<(Structure, f64)> = Structure::all().filter_map(|s| Some((s, mean(ious(s))?))).collect();
        let worst = means.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        Self {
            iou: mean(localised(results).map(|l| l.1.iou)),
            worst: worst.map(|w| w.1),
            worst_structure: worst.map(|w| w.0),
            per_structure: means.iter().map(|&(s, value)| (s.name(), value)).collect(),
            counts: Structure::all().map(|s| (s.name(), ious(s).count())).collect(),
            count: localised(results).count(),
            labels: f1(results.iter().filter_map(|o| Some((o.expected_labels.as_ref()?, &o.labels)))).into(),
        }
    }
}

impl Retrieval {
    /// Computes the figures of all images.
    pub fn of(results: &[ImageResult]) -> Self {
        let all = || localised(results).map(|l| l.1);
        let with_finding = || all().filter(|l| l.finding);
        Self {
            exact: share(all().map(|l| l.exact)),
            exact_with_finding: share(with_finding().map(|l| l.exact)),
            count: all().count(),
            count_with_finding: with_finding().count(),
        }
    }
}

impl TaskFigures {
    /// Computes the figures of all answers to one task's questions.
    pub fn of(answers: &[&Answered]) -> Self {
        let outcomes = || answers.iter().map(|a| &a.outcome);
        let choose = |pick: fn(&Outcome) -> Option<bool>| share(outcomes().filter_map(pick));
        let boxes: Vec<Option<f64>> = outcomes().filter_map(|o| if let Outcome::Boxes(iou) = o { Some(*iou) } else { None }).collect();
        let labels: Vec<&([bool; LABEL_COUNT], [bool; LABEL_COUNT])> =
            outcomes().filter_map(|o| if let Outcome::Labels(pair) = o { Some(&**pair) } else { None }).collect();
        let counted = |count: usize| (!boxes.is_empty()).then_some(count);
        Self {
            count: answers.len(),
            iou: mean(boxes.iter().map(|iou| iou.unwrap_or_default())),
            iou_answered: mean(boxes.iter().flatten().copied()),
            count_with_boxes: counted(boxes.len()),
            count_answered: counted(boxes.iter().flatten().count()),
            normal_exact: choose(|o| if let Outcome::Normal(right) = o { Some(*right) } else { None }),
            accuracy: choose(|o| if let Outcome::Choice(right) = o { Some(*right) } else { None }),
            rouge1: mean(outcomes().filter_map(|o| if let Outcome::Words { rouge1, .. } = o { Some(*rouge1) } else { None })),
            exact: choose(|o| if let Outcome::Words { exact, .. } = o { Some(*exact) } else { None }),
            labels: (!labels.is_empty()).then(|| f1(labels.iter().map(|pair| (&pair.0, &pair.1))).into()),
            milliseconds: median(answers.iter().map(|a| a.milliseconds).collect()),
            tokens: median(answers.iter().map(|a| a.tokens as f64).collect()),
        }
    }

    /// Computes the figures of each task with answers.
    pub fn by_task(results: &[ImageResult]) -> BTreeMap<&'static str, Self> {
        let of = |task: Task| results.iter().flat_map(|o| &o.answers).filter(|a| a.task == task).collect::<Vec<_>>();
        let asked = Task::ALL.into_iter().map(|task| (task.name(), of(task))).filter(|(_, answers)| !answers.is_empty());
        asked.map(|(name, answers)| (name, Self::of(&answers))).collect()
    }
}

impl Evidence {
    /// Computes the figures of all reports, by the name of their sentences' support.
    pub fn by_support(results: &[ImageResult]) -> BTreeMap<&'static str, Self> {
        let mut wrong: BTreeMap<&'static str, Vec<bool>> = BTreeMap::new();
        for sentence in results.iter().flat_map(|result| &result.answers).flat_map(|answer| &answer.sentences) {
            wrong.entry(sentence.support.name()).or_default().push(!sentence.expected);
        }
        wrong.into_iter().map(|(support, wrong)| (support, Self { count: wrong.len(), wrong: share(wrong.into_iter()) })).collect()
    }
}

impl Timings {
    /// Computes the medians over all images.
    pub fn of(results: &[ImageResult], workers: usize, threads: usize) -> Self {
        let mut steps: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for (step, milliseconds) in results.iter().flat_map(|o| o.timing.steps()) {
            steps.entry(step).or_default().push(milliseconds);
        }
        let study = steps.into_iter().filter_map(|(step, values)| Some((step, median(values)?))).collect();
        Self { workers, threads, study }
    }
}

fn localised(results: &[ImageResult]) -> impl Iterator<Item = (Structure, Localised)> {
    results.iter().flat_map(|o| Structure::all().zip(o.structures).filter_map(|(s, found)| Some((s, found?))))
}

fn share(flags: impl Iterator<Item = bool>) -> Option<f64> {
    mean(flags.map(|flag| f64::from(u8::from(flag))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anatomix::STRUCTURE_COUNT;
    use anatomix::Timing;

    fn image(heart: Option<(f64, bool, bool)>, lung: f64, answers: Vec<Answered>) -> ImageResult {
        let mut structures = [None; STRUCTURE_COUNT];
        structures[Structure::HEART.index()] = heart.map(|(iou, finding, exact)| Localised { iou, finding, exact });
        structures[Structure::LEFT_LUNG.index()] = Some(Localised { iou: lung, finding: false, exact: true });
        let mut timing = Timing::default();
        timing.perceive = Some(lung * 100.0);
        ImageResult { structures, expected_labels: Some([true; LABEL_COUNT]), labels: [true; LABEL_COUNT], timing, answers }
    }

    fn answered(task: Task, outcome: Outcome) -> Answered {
        Answered { task, outcome, milliseconds: 5.0, tokens: 7, sentences: vec![] }
    }

    #[test]
    fn figures_of_perception() {
        let seen = [image(Some((0.5, true, false)), 0.9, vec![]), image(Some((0.7, true, true)), 0.7, vec![]), image(None, 0.8, vec![])];
        let apm = Apm::of(&seen);
        assert!((apm.iou.unwrap() - 3.6 / 5.0).abs() < 1e-12);
        assert_eq!(apm.worst_structure, Some(Structure::HEART));
        assert!((apm.worst.unwrap() - 0.6).abs() < 1e-12);
        assert!((apm.per_structure["Left lung"] - 0.8).abs() < 1e-12);
        assert_eq!((apm.per_structure.len(), apm.counts[Structure::HEART.name()], apm.counts["Trachea and Main Bronchus"]), (2, 2, 0));
        assert_eq!(apm.labels.macro_f1, Some(1.0));
        let retrieval = Retrieval::of(&seen);
        assert_eq!((retrieval.exact, retrieval.count), (Some(0.8), 5));
        assert_eq!((retrieval.exact_with_finding, retrieval.count_with_finding), (Some(0.5), 2));
        assert!((Timings::of(&seen, 1, 2).study["perceive"] - 80.0).abs() < 1e-9);
        assert_eq!(Apm::of(&[]).iou, None);
    }

    #[test]
    fn figures_of_tasks() {
        let answers = vec![
            answered(Task::AbnormalityDetection, Outcome::Boxes(Some(0.8))),
            answered(Task::AbnormalityDetection, Outcome::Boxes(None)),
            answered(Task::AbnormalityDetection, Outcome::Normal(true)),
            answered(Task::ClosedQuestion, Outcome::Choice(true)),
            answered(Task::ClosedQuestion, Outcome::Choice(false)),
            answered(Task::Report, Outcome::Words { rouge1: 0.6, exact: false }),
        ];
        let tasks = TaskFigures::by_task(&[image(None, 1.0, answers)]);
        assert_eq!(tasks.keys().copied().collect::<Vec<_>>(), ["abnormality_detection", "closed_question", "report"]);
        let detection = &tasks["abnormality_detection"];
        assert_eq!((detection.count, detection.iou, detection.iou_answered), (3, Some(0.4), Some(0.8)));
        assert_eq!((detection.count_with_boxes, detection.count_answered, detection.normal_exact), (Some(2), Some(1), Some(1.0)));
        assert_eq!(tasks["closed_question"].accuracy, Some(0.5));
        let report = serde_json::to_value(&tasks["report"]).unwrap();
        assert_eq!(report, serde_json::json!({"count": 1, "rouge1": 0.6, "exact": 0.0, "milliseconds": 5.0, "tokens": 7.0}));
    }
}
