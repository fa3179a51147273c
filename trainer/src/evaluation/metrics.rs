//! Metrics of answers and of labels.

use anatomix::{LABEL_COUNT, Label, PixelBox};

/// For each predicted box the best IoU with an expected box, averaged over the predicted boxes; `None` without predicted boxes.
pub fn mean_best_iou(predicted: &[PixelBox], expected: &[PixelBox]) -> Option<f64> {
    let best = |b: &PixelBox| expected.iter().map(|e| f64::from(b.iou(e))).fold(0.0, f64::max);
    mean(predicted.iter().map(best))
}

/// The mean; `None` without values.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The median, which is the mean of the two middle values for an even number; `None` without values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// Whether two answers are equal, apart from case, white space and a final full stop.
pub fn same_words(expected: &str, found: &str) -> bool {
    let plain = |text: &str| {
        let words: Vec<&str> = text.trim().trim_end_matches('.').split_whitespace().collect();
        words.join(" ").to_lowercase()
    };
    plain(expected) == plain(found)
}

/// The labels that an answer lists, in any order and case.
pub fn labels_in(answer: &str) -> [bool; LABEL_COUNT] {
    let mut out = [false; LABEL_COUNT];
    for name in answer.split([',', ';', '.', '\n']) {
        if let Some(label) = Label::from_name(name.trim()) {
            out[label.index()] = true;
        }
    }
    out
}

/// F1 of labels over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct F1 {
    /// F1 of each label; `None` for a label that neither applies to an image nor was given to one.
    pub per_label: [Option<f64>; LABEL_COUNT],
    /// Mean of the labels' F1.
    pub macro_f1: Option<f64>,
    /// F1 from the counts of all labels together.
    pub micro_f1: Option<f64>,
}

/// Computes F1 from pairs of expected and given labels.
pub fn f1<'a>(pairs: impl IntoIterator<Item = (&'a [bool; LABEL_COUNT], &'a [bool; LABEL_COUNT])>) -> F1 {
    // Counts for each label: the label applies and was given, it applies, it was given.
    let mut counts = [[0usize; 3]; LABEL_COUNT];
    for (expected, found) in pairs {
        for ((count, &applies), &given) in counts.iter_mut().zip(expected).zip(found) {
            count[0] += usize::from(applies && given);
            count[1] += usize::from(applies);
            count[2] += usize::from(given);
        }
    }
    let score = |[both, applies, given]: [usize; 3]| (applies + given > 0).then(|| 2.0 * both as f64 / (applies + given) as f64);
    let per_label = counts.map(score);
    let total = counts.iter().fold([0; 3], |sum, count| std::array::from_fn(|i| sum[i] + count[i]));
    F1 { per_label, macro_f1: mean(per_label.into_iter().flatten()), micro_f1: score(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, side: f32) -> PixelBox {
        PixelBox::new(x, 0.0, x + side, side)
    }

    #[test]
    fn iou_takes_the_best_of_the_expected() {
        let expected = [square(0.0, 2.0), square(10.0, 2.0)];
        assert_eq!(mean_best_iou(&expected, &expected), Some(1.0));
        // The first box overlaps the second expected one with an IoU of 2 / 6. The second box overlaps none.
        let predicted = [PixelBox::new(11.0, 0.0, 13.0, 2.0), square(50.0, 1.0)];
        let value = mean_best_iou(&predicted, &expected).unwrap();
        assert!((value - 1.0 / 6.0).abs() < 1e-6, "{value}");
        assert_eq!(mean_best_iou(&[], &expected), None);
        assert_eq!(mean_best_iou(&predicted, &[]), Some(0.0));
    }

    #[test]
    fn means_and_medians() {
        assert_eq!(mean([]), None);
        assert_eq!(mean([1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn words_and_labels() {
        assert!(same_words("Pleural effusion", " pleural  effusion."));
        assert!(!same_words("Yes", "No"));
        let found = labels_in("Edema, pleural effusion; Unknown, Support Devices.");
        let names: Vec<&str> = Label::ALL.iter().filter(|l| found[l.index()]).map(|l| l.name()).collect();
        assert_eq!(names, ["Edema", "Pleural Effusion", "Support Devices"]);
    }

    /// Expected values were computed by hand; scikit-learn gives the same for the labels that occur.
    #[test]
    fn f1_of_labels() {
        let set = |names: &str| labels_in(names);
        let expected = [set("Edema, Fracture"), set("Edema"), set("Edema"), set("No Finding")];
        let found = [set("Edema"), set("Edema, Fracture"), set(""), set("Pneumonia")];
        let f1 = f1(expected.iter().zip(&found));
        assert_eq!(f1.per_label[Label::Edema.index()], Some(0.8));
        assert_eq!(f1.per_label[Label::Fracture.index()], Some(0.0));
        assert_eq!(f1.per_label[Label::NoFinding.index()], Some(0.0));
        assert_eq!(f1.per_label[Label::Pneumonia.index()], Some(0.0));
        assert_eq!(f1.per_label[Label::Cardiomegaly.index()], None);
        assert_eq!(f1.macro_f1, Some(0.2));
        assert_eq!(f1.micro_f1, Some(4.0 / 9.0));
    }
}
