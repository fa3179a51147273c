//! How far probabilities are from what happens.

/// Number of bins of [`expected_calibration_error`].
pub const BINS: usize = 15;

/// Expected calibration error: over bins of equal width, the difference between the mean probability and the share of cases that apply,
/// weighted by the number of cases in the bin. Probabilities are 0..1. `None` without cases.
pub fn expected_calibration_error(cases: impl IntoIterator<Item = (f64, bool)>) -> Option<f64> {
    // A probability of 1 has a bin of its own, as in torchmetrics. In each bin: the number of cases, their probabilities, those that apply.
    let mut bins = [(0usize, 0.0, 0usize); BINS + 1];
    for (probability, applies) in cases {
        let bin = &mut bins[(probability.clamp(0.0, 1.0) * BINS as f64) as usize];
        *bin = (bin.0 + 1, bin.1 + probability, bin.2 + usize::from(applies));
    }
    let total: usize = bins.iter().map(|bin| bin.0).sum();
    let error: f64 = bins.iter().map(|&(_, sum, applies)| (sum - applies as f64).abs()).sum();
    (total > 0).then(|| error / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_bins_are_weighted_by_their_cases() {
        assert_eq!(expected_calibration_error([]), None);
        assert_eq!(expected_calibration_error([(1.0, true), (0.0, false)]), Some(0.0));
        // Three cases of 0.9 of which one applies, and one of 0.2 that applies.
        let error = expected_calibration_error([(0.9, true), (0.9, false), (0.9, false), (0.2, true)]).unwrap();
        assert!((error - (1.7 + 0.8) / 4.0).abs() < 1e-12, "{error}");
    }
}
