//! Metrics of boxes: IoU and average precision.

use super::summary::mean;
use anatomix::PixelBox;

/// The IoU thresholds of the paper's mAP.
pub const THRESHOLDS: [f64; 4] = [0.25, 0.5, 0.75, 0.95];
/// Predicted boxes of a sample beyond this number are not counted, as in COCO's protocol.
const MAX_BOXES: usize = 100;
/// Recalls at which precision is averaged: 0, 0.01, ..., 1.
const RECALLS: usize = 101;

/// The intersection of two boxes over their union, 0..1.
pub fn iou(a: &PixelBox, b: &PixelBox) -> f64 {
    let [a, b] = [a, b].map(|b| [b.x0, b.y0, b.x1, b.y1].map(f64::from));
    let side = |from: usize| (a[from + 2].min(b[from + 2]) - a[from].max(b[from])).max(0.0);
    let area = |b: [f64; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let both = side(0) * side(1);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// For each predicted box the best IoU with an expected box, averaged over the predicted boxes; `None` without predicted boxes.
pub fn mean_best_iou(predicted: &[PixelBox], expected: &[PixelBox]) -> Option<f64> {
    mean(predicted.iter().map(|p| expected.iter().map(|e| iou(p, e)).fold(0.0, f64::max)))
}

/// What the predicted boxes of a sample find, for [`map`].
#[derive(Clone, Debug, PartialEq)]
pub struct Hits {
    /// For each threshold and predicted box, in order, whether it finds an expected box that none before it has found.
    found: [Vec<bool>; THRESHOLDS.len()],
    /// Number of expected boxes.
    expected: usize,
}

impl Hits {
    /// Compares predicted boxes, of which the first hundred count, with expected ones.
    pub fn of(predicted: &[PixelBox], expected: &[PixelBox]) -> Self {
        let predicted = &predicted[..predicted.len().min(MAX_BOXES)];
        Self { found: THRESHOLDS.map(|threshold| found(predicted, expected, threshold)), expected: expected.len() }
    }
}

fn found(predicted: &[PixelBox], expected: &[PixelBox], threshold: f64) -> Vec<bool> {
    let mut taken = vec![false; expected.len()];
    let finds = |p: &PixelBox| {
        let (mut best, mut least) = (None, threshold.min(1.0 - 1e-10));
        for (index, e) in expected.iter().enumerate() {
            let overlap = iou(p, e);
            if !taken[index] && overlap >= least {
                (best, least) = (Some(index), overlap);
            }
        }
        best.map(|index| taken[index] = true).is_some()
    };
    predicted.iter().map(finds).collect()
}

/// The mean precision at 101 recalls, of predictions that are equally certain and come in this order; `None` if nothing is expected.
fn precision<'a>(found: impl Iterator<Item = &'a bool>, expected: usize) -> Option<f64> {
    if expected == 0 {
        return None;
    }
    let mut right = 0;
    let point = |(index, &is_right): (usize, &bool)| {
        right += usize::from(is_right);
        (right as f64 / expected as f64, right as f64 / (index + 1) as f64)
    };
    let mut curve: Vec<(f64, f64)> = found.enumerate().map(point).collect();
    // The precision at a recall is the best at that recall or a greater one.
    for at in (1..curve.len()).rev() {
        curve[at - 1].1 = curve[at - 1].1.max(curve[at].1);
    }
    let at = |point: usize| {
        // The same rounding as in NumPy's `linspace`.
        let recall = if point + 1 == RECALLS { 1.0 } else { point as f64 * 0.01 };
        curve.get(curve.partition_point(|&(reached, _)| reached < recall)).map_or(0.0, |&(_, precision)| precision)
    };
    Some((0..RECALLS).map(at).sum::<f64>() / RECALLS as f64)
}

/// Mean average precision over the paper's thresholds and all samples together, as COCO's protocol computes it for one class when all
/// scores are equal. A sample without predictions lowers it. `None` if nothing is expected.
pub fn map<'a>(samples: impl IntoIterator<Item = &'a Hits>) -> Option<f64> {
    let samples: Vec<&Hits> = samples.into_iter().collect();
    let expected = samples.iter().map(|sample| sample.expected).sum();
    mean((0..THRESHOLDS.len()).filter_map(|at| precision(samples.iter().flat_map(|sample| &sample.found[at]), expected)))
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
        assert_eq!(mean_best_iou(&predicted, &expected), Some(1.0 / 6.0));
        assert_eq!(mean_best_iou(&[], &expected), None);
        assert_eq!(mean_best_iou(&predicted, &[]), Some(0.0));
        assert_eq!(iou(&square(1.0, 0.0), &square(1.0, 0.0)), 0.0);
    }

    #[test]
    fn an_expected_box_is_found_once() {
        let (two, three) = ([square(0.0, 2.0), square(0.0, 2.0)], [square(0.0, 2.0), square(10.0, 2.0), square(20.0, 2.0)]);
        assert_eq!(found(&two, &three, 0.5), [true, false]);
        let map = |samples: &[(&[PixelBox], &[PixelBox])]| map(&samples.iter().map(|(p, e)| Hits::of(p, e)).collect::<Vec<_>>());
        // Recall 1/3 is reached with precision 1, and no more: 34 of 101 points.
        assert_eq!(map(&[(&two, &three)]), Some(34.0 / 101.0));
        assert_eq!(map(&[(&two[..1], &two[..1])]), Some(1.0));
        // A sample without an answer counts.
        assert_eq!(map(&[(&two[..1], &two[..1]), (&[], &two[..1])]), Some(51.0 / 101.0));
        assert_eq!((map(&[(&two, &[])]), map(&[(&[], &two)])), (None, Some(0.0)));
    }
}
