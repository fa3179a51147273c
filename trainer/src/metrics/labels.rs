//! Metrics of the 14 labels: F1, AUROC and accuracy.

use super::summary::mean;
use anatomix::LABEL_COUNT;

/// F1 of labels over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct F1 {
    /// F1 of each label; `None` for a label that neither applies to an image nor was given to one.
    pub per_label: [Option<f64>; LABEL_COUNT],
    /// Mean of the labels' F1.
    pub macro_f1: Option<f64>,
    /// F1 from the counts of all labels together.
    pub micro_f1: Option<f64>,
    /// Mean of the labels' F1, each weighted by the number of images to which it applies; `None` if no label applies to any.
    pub weighted_f1: Option<f64>,
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
    let weighted: f64 = per_label.iter().zip(&counts).map(|(f1, count)| f1.unwrap_or(0.0) * count[1] as f64).sum();
    F1 {
        per_label,
        macro_f1: mean(per_label.into_iter().flatten()),
        micro_f1: score(total),
        weighted_f1: (total[1] > 0).then(|| weighted / total[1] as f64),
    }
}

/// Area under the receiver operating characteristic: the probability that a case to which a label applies has the higher score, where equal
/// scores count half. `None` unless there are cases of both kinds.
pub fn auroc(cases: impl IntoIterator<Item = (f64, bool)>) -> Option<f64> {
    let mut cases: Vec<(f64, bool)> = cases.into_iter().collect();
    cases.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0.0, 0.0);
    for equal in cases.chunk_by(|a, b| a.0 == b.0) {
        let applies = equal.iter().filter(|case| case.1).count() as f64;
        let others = equal.len() as f64 - applies;
        sum += applies * (below + others / 2.0);
        below += others;
    }
    let applies = cases.len() as f64 - below;
    (applies > 0.0 && below > 0.0).then(|| sum / (applies * below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anatomix::Label;

    fn set(labels: &[Label]) -> [bool; LABEL_COUNT] {
        std::array::from_fn(|index| labels.iter().any(|label| label.index() == index))
    }

    /// Expected values were computed by hand; scikit-learn gives the same for the labels that occur.
    #[test]
    fn f1_of_labels() {
        use Label::{Cardiomegaly, Edema, Fracture, NoFinding, Pneumonia};
        let expected = [set(&[Edema, Fracture]), set(&[Edema]), set(&[Edema]), set(&[NoFinding])];
        let found = [set(&[Edema]), set(&[Edema, Fracture]), set(&[]), set(&[Pneumonia])];
        let f1 = f1(expected.iter().zip(&found));
        assert_eq!(f1.per_label[Edema.index()], Some(0.8));
        assert_eq!(f1.per_label[Fracture.index()], Some(0.0));
        assert_eq!(f1.per_label[NoFinding.index()], Some(0.0));
        assert_eq!(f1.per_label[Pneumonia.index()], Some(0.0));
        assert_eq!(f1.per_label[Cardiomegaly.index()], None);
        assert_eq!((f1.macro_f1, f1.micro_f1), (Some(0.2), Some(4.0 / 9.0)));
        assert!((f1.weighted_f1.unwrap() - 0.8 * 3.0 / 5.0).abs() < 1e-12);
        assert_eq!(super::f1([]).weighted_f1, None);
    }

    #[test]
    fn equal_scores_count_half() {
        assert_eq!(auroc([(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(auroc([(0.5, false), (0.5, true)]), Some(0.5));
        assert_eq!(auroc([(0.9, false), (0.1, true), (0.9, true), (0.95, true)]), Some(0.5));
        assert_eq!((auroc([(0.9, true)]), auroc([])), (None, None));
    }
}
