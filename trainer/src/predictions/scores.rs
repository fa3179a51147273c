//! Scores of predictions that are given as text and boxes, whatever made them.

use super::lines;
use crate::metrics::bleu::Counts;
use crate::metrics::bootstrap::Patients;
use crate::metrics::boxes::{Hits, map, mean_best_iou};
use crate::metrics::calibration::expected_calibration_error;
use crate::metrics::labels::{auroc, f1};
use crate::metrics::meteor::meteor;
use crate::metrics::rouge::{rouge_l, rouge1, rouge2};
use crate::metrics::summary::mean;
use crate::metrics::wordnet::WordNet;
use anatomix::{LABEL_COUNT, Label, PixelBox};
use anyhow::{Result, bail, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A line of a file of predictions. What is absent is not scored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    /// The patient, for confidence intervals. Lines without one are patients of their own.
    patient: Option<String>,
    /// Lines of the same task are scored together.
    task: Option<String>,
    /// The expected text, and the predicted one.
    expected: Option<String>,
    predicted: Option<String>,
    /// Boxes as x0, y0, x1, y1, in the same unit on both sides.
    expected_boxes: Option<Vec<[f32; 4]>>,
    predicted_boxes: Option<Vec<[f32; 4]>>,
    /// Names of labels.
    expected_labels: Option<Vec<String>>,
    predicted_labels: Option<Vec<String>>,
    /// Probability of each label.
    label_scores: Option<BTreeMap<String, f64>>,
}

/// Whether each label applies.
pub type Labels = [bool; LABEL_COUNT];

/// What is compared of a prediction.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// The patient.
    pub patient: String,
    /// Predictions of the same task are scored together.
    pub task: String,
    /// The expected text and the predicted one.
    pub texts: Option<(String, String)>,
    /// The predicted boxes and the expected ones.
    pub boxes: Option<(Vec<PixelBox>, Vec<PixelBox>)>,
    /// Whether each label applies, and whether it was predicted.
    pub labels: Option<(Labels, Labels)>,
    /// Whether each label applies, and its probability; NaN if none is given.
    pub scores: Option<(Labels, [f64; LABEL_COUNT])>,
    /// The labels that CheXbert finds in the expected text and in the predicted one.
    pub found: Option<(Labels, Labels)>,
}

/// Scores of one prediction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scores {
    /// F-measure of unigrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rouge1: Option<f64>,
    /// F-measure of bigrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rouge2: Option<f64>,
    /// F-measure of the longest common subsequence of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rouge_l: Option<f64>,
    /// BLEU of the text alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bleu: Option<f64>,
    /// METEOR, if there is a WordNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meteor: Option<f64>,
    /// The mean of the predicted boxes' best IoU, without predicted boxes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou: Option<f64>,
    /// Mean average precision of the sample alone, without expected boxes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<f64>,
    /// BERTScore, if there is a model for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bert_score: Option<f64>,
    /// F1 of RadGraph's entities, if there is a model for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radgraph: Option<f64>,
    #[serde(skip)]
    grams: Option<Counts>,
    #[serde(skip)]
    hits: Option<Hits>,
}

/// A figure with its 95 % interval, which comes from resampling patients; there is none for fewer than two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The figure over all predictions.
    pub value: f64,
    /// Lower and upper end of the interval.
    pub interval: Option<[f64; 2]>,
    /// Number of predictions with what it needs.
    pub count: usize,
}

/// Figures by name.
pub type Figures = BTreeMap<&'static str, Figure>;
/// Figures by task and name.
pub type Table = BTreeMap<String, Figures>;

/// Reads a file with one JSON object a line.
///
/// # Errors
/// If it cannot be read, or a line is not a prediction; the error names file and line.
pub fn read(path: &Path) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::new();
    lines::read(path, |line, number| {
        predictions.push(prediction(line, number)?);
        Ok(())
    })?;
    Ok(predictions)
}

fn prediction(line: Line, number: usize) -> Result<Prediction> {
    let pair = |what: &str, expected: bool, predicted: bool| {
        ensure!(
            expected == predicted,
            "{what} are given on one side only; what is missing there is empty, such as \"predicted_boxes\": []"
        );
        Ok(())
    };
    pair("texts", line.expected.is_some(), line.predicted.is_some())?;
    pair("boxes", line.expected_boxes.is_some(), line.predicted_boxes.is_some())?;
    let given = line.predicted_labels.is_some() || line.label_scores.is_some();
    pair("labels", line.expected_labels.is_some(), given)?;
    let boxes = match (line.predicted_boxes, line.expected_boxes) {
        (Some(predicted), Some(expected)) => Some((boxes(&predicted)?, boxes(&expected)?)),
        _ => None,
    };
    let expected_labels = line.expected_labels.as_deref().map(labels).transpose()?;
    let predicted_labels = line.predicted_labels.as_deref().map(labels).transpose()?;
    Ok(Prediction {
        // No patient has a name with a line break.
        patient: line.patient.unwrap_or_else(|| format!("\n{number}")),
        task: line.task.unwrap_or_else(|| "all".into()),
        texts: line.expected.zip(line.predicted),
        boxes,
        labels: expected_labels.zip(predicted_labels),
        scores: expected_labels.zip(line.label_scores.map(probabilities).transpose()?),
        found: None,
    })
}

fn boxes(given: &[[f32; 4]]) -> Result<Vec<PixelBox>> {
    let one = |&[x0, y0, x1, y1]: &[f32; 4]| {
        // Also refuses what is not a number.
        ensure!(x0 <= x1 && y0 <= y1 && x1.is_finite() && y1.is_finite(), "[{x0}, {y0}, {x1}, {y1}] is not a box of x0, y0, x1, y1");
        Ok(PixelBox::new(x0, y0, x1, y1))
    };
    given.iter().map(one).collect()
}

fn label(name: &str) -> Result<usize> {
    match Label::from_name(name) {
        Some(label) => Ok(label.index()),
        None => bail!("{name:?} is not one of the 14 labels, such as {:?}", Label::ALL[0].name()),
    }
}

fn labels(names: &[String]) -> Result<Labels> {
    let mut labels = [false; LABEL_COUNT];
    for name in names {
        labels[label(name)?] = true;
    }
    Ok(labels)
}

fn probabilities(given: BTreeMap<String, f64>) -> Result<[f64; LABEL_COUNT]> {
    let mut scores = [f64::NAN; LABEL_COUNT];
    for (name, score) in given {
        ensure!((0.0..=1.0).contains(&score), "the score of {name} is {score}; it must be 0 to 1");
        scores[label(&name)?] = score;
    }
    Ok(scores)
}

/// Scores each prediction alone.
pub fn score(predictions: &[Prediction], net: Option<&WordNet>) -> Vec<Scores> {
    let one = |prediction: &Prediction| {
        let mut scores = Scores::default();
        if let Some((expected, found)) = &prediction.texts {
            let grams = Counts::of(expected, found);
            scores.rouge1 = Some(rouge1(expected, found));
            scores.rouge2 = Some(rouge2(expected, found));
            scores.rouge_l = Some(rouge_l(expected, found));
            scores.bleu = Some(grams.sentence());
            scores.meteor = net.map(|net| meteor(expected, found, net));
            scores.grams = Some(grams);
        }
        if let Some((predicted, expected)) = &prediction.boxes {
            let hits = Hits::of(predicted, expected);
            scores.iou = mean_best_iou(predicted, expected);
            scores.map = map([&hits]);
            scores.hits = Some(hits);
        }
        scores
    };
    predictions.par_iter().map(one).collect()
}

/// Figures of each task with their intervals. `scores` are those of the predictions, in order.
pub fn table(predictions: &[Prediction], scores: &[Scores], seed: u64) -> Table {
    let mut tasks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, prediction) in predictions.iter().enumerate() {
        tasks.entry(&prediction.task).or_default().push(index);
    }
    tasks.into_iter().map(|(task, cases)| (task.to_owned(), figures(predictions, scores, &cases, seed, |_| true))).collect()
}

/// The `wanted` figures of some predictions together, `cases`, with their intervals.
pub fn figures(predictions: &[Prediction], scores: &[Scores], cases: &[usize], seed: u64, wanted: impl Fn(&str) -> bool) -> Figures {
    let patients = Patients::of(cases.iter().map(|&case| predictions[case].patient.as_str()));
    let mut figures = BTreeMap::new();
    let mut add = |name, has: &dyn Fn(usize) -> bool, of: &(dyn Fn(&[usize]) -> Option<f64> + Sync)| {
        if !wanted(name) {
            return;
        }
        // The intervals' resamples name cases by their position.
        let resampled = |drawn: &[usize]| of(&drawn.iter().map(|&at| cases[at]).collect::<Vec<_>>());
        if let Some(value) = of(cases) {
            let count = cases.iter().filter(|&&case| has(case)).count();
            figures.insert(name, Figure { value, interval: patients.interval(seed, resampled), count });
        }
    };
    type Value = fn(&Scores) -> Option<f64>;
    let means: [(&str, Value); 8] = [
        ("rouge1", |s| s.rouge1),
        ("rouge2", |s| s.rouge2),
        ("rouge_l", |s| s.rouge_l),
        ("meteor", |s| s.meteor),
        ("bert_score", |s| s.bert_score),
        ("radgraph", |s| s.radgraph),
        // As in the paper: predictions without boxes are left out.
        ("iou", |s| s.iou),
        ("map", |s| s.map.filter(|_| s.iou.is_some())),
    ];
    for (name, value) in means {
        add(name, &|case| value(&scores[case]).is_some(), &|drawn| mean(drawn.iter().filter_map(|&case| value(&scores[case]))));
    }
    // Corrected: predictions without boxes count 0.
    let expects = |case: usize| scores[case].hits.is_some() && scores[case].map.is_some();
    add("iou_all", &expects, &|drawn| mean(drawn.iter().filter(|&&case| expects(case)).map(|&case| scores[case].iou.unwrap_or(0.0))));
    let has_boxes = |case: usize| scores[case].hits.is_some();
    add("map_all", &has_boxes, &|drawn| map(drawn.iter().filter_map(|&case| scores[case].hits.as_ref())));
    add("bleu", &|case| scores[case].grams.is_some(), &|drawn| {
        let grams: Vec<&Counts> = drawn.iter().filter_map(|&case| scores[case].grams.as_ref()).collect();
        let mut sum = Counts::default();
        grams.iter().for_each(|counts| sum.add(counts));
        (!grams.is_empty()).then(|| sum.corpus())
    });
    let has_labels = |case: usize| predictions[case].labels.is_some();
    let of_labels = |drawn: &[usize]| f1(drawn.iter().filter_map(|&case| predictions[case].labels.as_ref()).map(|(a, b)| (a, b)));
    add("f1_macro", &has_labels, &|drawn| of_labels(drawn).macro_f1);
    add("f1_micro", &has_labels, &|drawn| of_labels(drawn).micro_f1);
    add("f1_weighted", &has_labels, &|drawn| of_labels(drawn).weighted_f1);
    let is_found = |case: usize| predictions[case].found.is_some();
    let of_found = |drawn: &[usize]| f1(drawn.iter().filter_map(|&case| predictions[case].found.as_ref()).map(|(a, b)| (a, b)));
    add("chexbert_macro", &is_found, &|drawn| of_found(drawn).macro_f1);
    add("chexbert_micro", &is_found, &|drawn| of_found(drawn).micro_f1);
    add("chexbert_weighted", &is_found, &|drawn| of_found(drawn).weighted_f1);
    add("accuracy", &has_labels, &|drawn| {
        mean(drawn.iter().filter_map(|&case| predictions[case].labels.as_ref()).map(|(a, b)| f64::from(u8::from(a == b))))
    });
    let has_scores = |case: usize| predictions[case].scores.is_some();
    let of_label = |drawn: &[usize], label: usize| {
        let pairs = drawn.iter().filter_map(|&case| predictions[case].scores.as_ref());
        pairs.map(|(applies, scores)| (scores[label], applies[label])).filter(|(score, _)| !score.is_nan()).collect::<Vec<_>>()
    };
    add("auroc", &has_scores, &|drawn| mean((0..LABEL_COUNT).filter_map(|label| auroc(of_label(drawn, label)))));
    add("calibration_error", &has_scores, &|drawn| expected_calibration_error((0..LABEL_COUNT).flat_map(|label| of_label(drawn, label))));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Prediction>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn what_is_given_is_scored() {
        let predictions = read_text(
            r#"{"patient": "a", "task": "report", "expected": "clear lungs", "predicted": "clear lungs"}
{"patient": "b", "task": "report", "expected": "clear lungs", "predicted": "effusion"}

{"task": "boxes", "expected_boxes": [[0, 0, 2, 2]], "predicted_boxes": [[0, 0, 2, 2]]}
{"task": "boxes", "expected_boxes": [[0, 0, 2, 2]], "predicted_boxes": []}
{"expected_labels": ["Edema"], "predicted_labels": ["edema"], "label_scores": {"Edema": 0.9, "Fracture": 0.1}}"#,
        )
        .unwrap();
        let table = table(&predictions, &score(&predictions, None), 1);
        let value = |task: &str, name: &str| table[task].get(name).map(|figure| (figure.value, figure.count));
        assert_eq!(value("report", "rouge1"), Some((0.5, 2)));
        assert_eq!(table["report"]["rouge1"].interval, Some([0.0, 1.0]));
        assert_eq!((value("boxes", "iou"), value("boxes", "iou_all")), (Some((1.0, 1)), Some((0.5, 2))));
        assert_eq!((value("boxes", "map"), value("boxes", "map_all")), (Some((1.0, 1)), Some((51.0 / 101.0, 2))));
        assert_eq!((value("all", "f1_micro"), value("all", "accuracy")), (Some((1.0, 1)), Some((1.0, 1))));
        assert_eq!((value("all", "auroc"), value("report", "iou"), value("report", "meteor")), (None, None, None));
        assert!((value("all", "calibration_error").unwrap().0 - 0.1).abs() < 1e-12);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (line, words) in [
            ("{\"expected\": \"a\"}", "texts are given on one side only"),
            ("{\"expectd\": \"a\"}", "unknown field"),
            ("[1]", "is not a JSON object"),
            ("[\"a\", \"b\", \"c\", \"d\"]", "is not a JSON object"),
            ("{\"expected_boxes\": [[2, 0, 1, 1]], \"predicted_boxes\": []}", "is not a box"),
            ("{\"expected_boxes\": [[0, 0, 1e39, 1]], \"predicted_boxes\": []}", "out of range"),
            ("{\"expected_labels\": [\"Cold\"], \"predicted_labels\": []}", "not one of the 14 labels"),
            ("{\"expected_labels\": [], \"label_scores\": {\"Edema\": 1.5}}", "must be 0 to 1"),
        ] {
            let error = format!("{:#}", read_text(&format!("{{}}\n{line}\n")).unwrap_err());
            assert!(error.contains("line 2") && error.contains(words), "{line}: {error}");
        }
        assert!(read_text("\n").unwrap_err().to_string().contains("no predictions"));
        assert!(read_text(&"x".repeat(lines::MAX_LINE as usize + 1)).unwrap_err().to_string().contains("more than"));
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
