//! Ranges of activations for graphs in 8 bits.

use anyhow::{Result, ensure};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Significant bits of a range's ends.
const RANGE_BITS: i32 = 10;

/// The smallest and the largest value of each activation that is quantised to 8 bits. Both are computed in fp64, whose last bits depend on
/// the machine. They are therefore rounded outwards to few bits, so that scales are the same on every machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges(BTreeMap<String, [f32; 2]>);

impl Ranges {
    /// Extends the range of an activation by the smallest and the largest value of one run.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn observe(&mut self, name: &str, [low, high]: [f64; 2]) -> Result<()> {
        ensure!(low.is_finite() && high.is_finite(), "while it was calibrated, {name} was not finite; export in fp32");
        // Padding is zero, so the range includes zero.
        let ends = self.0.entry(name.into()).or_default();
        *ends = [ends[0].min(outwards(low)), ends[1].max(outwards(high))];
        Ok(())
    }

    /// The range of an activation, if it was observed.
    pub(super) fn get(&self, name: &str) -> Option<[f32; 2]> {
        self.0.get(name).copied()
    }

    /// Number of activations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no activation was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The next value away from zero with few significant bits.
fn outwards(value: f64) -> f32 {
    if value == 0.0 {
        return 0.0;
    }
    let step = libm::scalbn(1.0, libm::ilogb(value) + 1 - RANGE_BITS);
    ((value.abs() / step).ceil() * step).copysign(value) as f32
}

/// How a writer treats activations.
#[derive(Debug, Default)]
pub(super) enum Calibration {
    /// They stay as they are.
    #[default]
    None,
    /// The names of activations that a graph in 8 bits would quantise are collected.
    Observe(RefCell<BTreeSet<String>>),
    /// They are quantised to 8 bits.
    Apply(Ranges),
}

impl Calibration {
    /// Whether the graph is one in 8 bits, or ranges are observed for one.
    pub fn is_wanted(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether the graph is one in 8 bits.
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Apply(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_rounded_outwards_to_few_bits() {
        for value in [1.0, -3.7, 0.001234, 1e-30, 65_504.3] {
            let end = f64::from(outwards(value));
            assert!(end / value >= 1.0 && end / value < 1.002, "{value} became {end}");
            assert_eq!(outwards(end), end as f32, "{end} has few bits already");
        }
        let mut ranges = Ranges::default();
        ranges.observe("a", [0.5, 2.3]).unwrap();
        ranges.observe("a", [-1.0, 0.25]).unwrap();
        assert_eq!(ranges.0["a"], [-1.0, outwards(2.3)]);
        assert!(ranges.observe("b", [0.0, f64::NAN]).unwrap_err().to_string().contains("b was not finite"));
    }
}
