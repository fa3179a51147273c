//! Confidence intervals by resampling patients.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Number of resamples of an interval.
pub const RESAMPLES: u64 = 1000;
/// The percentiles of an interval.
const OUTER: [f64; 2] = [0.025, 0.975];

/// The cases of each patient. Cases of a patient are alike, so patients are drawn and not cases.
#[derive(Clone, Debug)]
pub struct Patients(Vec<Vec<usize>>);

impl Patients {
    /// Groups cases, numbered in this order, by their patient.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a str>) -> Self {
        let mut patients: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, patient) in cases.into_iter().enumerate() {
            patients.entry(patient).or_default().push(index);
        }
        Self(patients.into_values().collect())
    }

    /// The 95 % percentile interval of a figure. `figure` gets the cases of as many patients as there are, drawn with replacement, and may
    /// return `None` if it cannot be computed of them. `None` with fewer than two patients. The interval follows from the seed, whatever
    /// the number of threads.
    pub fn interval(&self, seed: u64, figure: impl Fn(&[usize]) -> Option<f64> + Sync) -> Option<[f64; 2]> {
        let patients = &self.0;
        if patients.len() < 2 {
            return None;
        }
        let resampled = |number: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let drawn = (0..patients.len()).flat_map(|_| &patients[rng.random_range(0..patients.len())]);
            figure(&drawn.copied().collect::<Vec<_>>())
        };
        let mut figures: Vec<f64> = (0..RESAMPLES).into_par_iter().filter_map(resampled).collect();
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)? as f64;
        // Between two figures linearly, as NumPy's `percentile`.
        Some(OUTER.map(|share| {
            let at = share * last;
            let (low, high) = (figures[at.floor() as usize], figures[at.ceil() as usize]);
            low + (high - low) * at.fract()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::summary::mean;

    #[test]
    fn intervals_of_a_mean_are_those_of_the_normal_distribution() {
        let names: Vec<String> = (0..400).map(|case| format!("p{case}")).collect();
        let value = |case: usize| f64::from((case % 2) as u32);
        let patients = Patients::of(names.iter().map(String::as_str));
        let figure = |cases: &[usize]| mean(cases.iter().map(|&case| value(case)));
        let [low, high] = patients.interval(7, figure).unwrap();
        // The standard error of the mean is 0.5 / 20.
        assert!((low - (0.5 - 1.96 * 0.025)).abs() < 0.006 && (high - (0.5 + 1.96 * 0.025)).abs() < 0.006, "{low} {high}");
        assert_eq!(patients.interval(7, figure), Some([low, high]));
        assert_ne!(patients.interval(8, figure), Some([low, high]));
        assert_eq!(patients.interval(7, |_| None), None);
    }

    #[test]
    fn patients_are_drawn_and_not_cases() {
        // Four patients with a hundred equal cases each: the interval is as wide as that of four cases.
        let names: Vec<String> = (0..400).map(|case| format!("p{}", case % 4)).collect();
        let patients = Patients::of(names.iter().map(String::as_str));
        let [low, high] = patients.interval(7, |cases| mean(cases.iter().map(|&case| (case % 4 < 2) as u8 as f64))).unwrap();
        assert!(low <= 0.0 + 1e-9 && high >= 1.0 - 1e-9, "{low} {high}");
        assert!(Patients::of(["only", "only"]).interval(7, |_| Some(1.0)).is_none());
    }
}
