//! How far probabilities are from what happens.

/// Number of bins of [`expected_calibration_error`].
pub const BINS: usize = 15;

/// Cases whose probabilities are in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Number of cases.
    pub count: usize,
    /// Sum of their probabilities.
    pub sum: f64,
    /// Number of cases that apply.
    pub applies: usize,
}

/// The bins of equal width that have cases, in order. Probabilities are 0..1.
pub fn bins(cases: impl IntoIterator<Item = (f64, bool)>) -> Vec<Bin> {
    // A probability of 1 has a bin of its own, as in torchmetrics.
    let mut bins = [Bin::default(); BINS + 1];
    for (probability, applies) in cases {
        let bin = &mut bins[(probability.clamp(0.0, 1.0) * BINS as f64) as usize];
        *bin = Bin { count: bin.count + 1, sum: bin.sum + probability, applies: bin.applies + usize::from(applies) };
    }
    bins.into_iter().filter(|bin| bin.count > 0).collect()
}

/// Expected calibration error: over bins of equal width, the difference between the mean probability and the share of cases that apply,
/// weighted by the number of cases in the bin. Probabilities are 0..1. `None` without cases.
pub fn expected_calibration_error(cases: impl IntoIterator<Item = (f64, bool)>) -> Option<f64> {
    let bins = bins(cases);
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let error: f64 = bins.iter().map(|bin| (bin.sum - bin.applies as f64).abs()).sum();
    (total > 0).then(|| error / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_bins_are_weighted_by_their_cases() {
        assert_eq!((expected_calibration_error([]), bins([])), (None, vec![]));
        assert_eq!(bins([(0.02, false), (1.0, true)]), [Bin { count: 1, sum: 0.02, applies: 0 }, Bin { count: 1, sum: 1.0, applies: 1 }]);
        assert_eq!(expected_calibration_error([(1.0, true), (0.0, false)]), Some(0.0));
        // Three cases of 0.9 of which one applies, and one of 0.2 that applies.
        let error = expected_calibration_error([(0.9, true), (0.9, false), (0.9, false), (0.2, true)]).unwrap();
        assert!((error - (1.7 + 0.8) / 4.0).abs() < 1e-12, "{error}");
    }
}
