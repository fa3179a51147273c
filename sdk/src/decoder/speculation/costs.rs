//! What a run of several rows costs, learned from the runs that are made anyway.

/// Rows that costs are kept of. More cost as if they were so many.
pub(super) const MOST_ROWS: usize = 64;
/// An estimate counts when so many runs were measured; before, a single one may have been disturbed.
const ENOUGH: u32 = 3;
/// An estimate counts if one of the last so many runs had as many rows.
const FRESH: u64 = 2000;
/// As long as no run of two rows was made, rows are assumed to cost so many times what single ones do: other kernels may compute them.
const UNKNOWN: f64 = 2.0;
/// How far one run moves an estimate.
const STEP: f64 = 1.1;
/// A run counts for so many times what it may cost at most: what it takes longer has other causes.
const DISTURBED: f64 = 2.0;

/// Costs of runs by their number of rows. The unit is what the last runs of one row took, over a cache of about the same length on a
/// machine that was about as busy: ratios stay what they are when the cache grows or there are more callers.
#[derive(Clone, Debug)]
pub(crate) struct RunCosts {
    /// Where costs are given, not measured.
    fixed: bool,
    /// How long the last runs of one row took, in seconds.
    singles: Recent,
    /// How many runs were made.
    runs: u64,
    measured: [Measured; MOST_ROWS + 1],
    /// The largest number of rows that was measured.
    largest: usize,
    likely: [f64; MOST_ROWS + 1],
    most: [f64; MOST_ROWS + 1],
}

/// How long the last few pieces of work took, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    seconds: [f64; 5],
    count: usize,
}

impl Recent {
    pub fn push(&mut self, seconds: f64) {
        self.seconds[self.count % self.seconds.len()] = seconds;
        self.count += 1;
    }

    /// The median, of an even number the lower one: what else the machine does now and then is left out.
    pub fn median(&self) -> Option<f64> {
        let mut last = self.seconds;
        let last = &mut last[..self.count.min(self.seconds.len())];
        last.sort_unstable_by(f64::total_cmp);
        last.len().checked_sub(1).map(|index| last[index / 2])
    }
}

/// What was measured of one number of rows.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    cost: f64,
    count: u32,
    /// How many runs had been made at the last measurement.
    at: u64,
}

impl RunCosts {
    /// Nothing is known yet.
    pub fn measured() -> Self {
        let none = [Measured::default(); MOST_ROWS + 1];
        let ones = [1.0; MOST_ROWS + 1];
        let (likely, most) = (ones, ones);
        let singles = Recent::default();
        let mut costs = Self { fixed: false, singles, runs: 0, measured: none, largest: 1, likely, most };
        costs.estimate();
        costs
    }

    /// Each row behind the first costs `row`, whatever the machine does.
    pub fn fixed(row: f64) -> Self {
        let cost: [f64; MOST_ROWS + 1] = std::array::from_fn(|rows| 1.0 + row * rows.saturating_sub(1) as f64);
        Self { fixed: true, likely: cost, most: cost, largest: MOST_ROWS, ..Self::measured() }
    }

    /// Whether costs can be told at all: a run of one row has been made.
    pub fn is_known(&self) -> bool {
        self.fixed || self.single().is_some()
    }

    /// What a run of so many rows is likely to cost.
    pub fn likely(&self, rows: usize) -> f64 {
        self.likely[rows.min(MOST_ROWS)]
    }

    /// What it costs at most.
    pub fn most(&self, rows: usize) -> f64 {
        self.most[rows.min(MOST_ROWS)]
    }

    /// How many rows may be tried next: twice as many as were.
    pub fn reach(&self) -> usize {
        (2 * self.largest).min(MOST_ROWS)
    }

    /// What so many seconds are in runs of one row.
    pub fn units(&self, seconds: f64) -> f64 {
        if self.fixed { 0.0 } else { self.single().map_or(0.0, |single| seconds / single) }
    }

    /// Learns from a run of so many rows; what it counts for.
    pub fn learn(&mut self, rows: usize, seconds: f64) -> f64 {
        if self.fixed {
            return self.likely(rows);
        }
        self.runs += 1;
        if rows == 1 {
            self.singles.push(seconds);
            return 1.0;
        }
        let Some(single) = self.single().filter(|_| rows <= MOST_ROWS) else {
            return self.likely(rows);
        };
        let (cost, allowed) = ((seconds / single).max(1.0), DISTURBED * self.most(rows));
        self.measured[rows].learn(cost, self.runs);
        self.largest = self.largest.max(rows);
        self.estimate();
        cost.min(allowed)
    }

    fn single(&self) -> Option<f64> {
        self.singles.median().filter(|&single| single > 0.0)
    }

    /// Estimates the costs of all numbers of rows: more rows never cost less. Between two that were measured they grow evenly; beyond
    /// the last one all rows cost at most what those cost on average, and are likely to cost less.
    fn estimate(&mut self) {
        let counts = |at: Measured| at.count >= ENOUGH && self.runs - at.at <= FRESH;
        let settled = (2..=MOST_ROWS).rev().find(|&rows| counts(self.measured[rows])).unwrap_or(1);
        let (mut last, mut likely, mut most) = (1, 1.0, 1.0);
        for rows in 2..=MOST_ROWS {
            let times = rows as f64 / last as f64;
            let assumed = if last == 1 { UNKNOWN * rows as f64 } else { most * times };
            let guessed = likely * times.sqrt();
            let measured = self.measured[rows];
            (self.likely[rows], self.most[rows]) = (guessed, assumed);
            let known = if counts(measured) {
                let cost = measured.cost.max(likely);
                (cost, cost)
            } else if measured.count > 0 && rows > settled {
                let cost = measured.cost.clamp(most, assumed);
                (cost.min(guessed), cost)
            } else {
                continue;
            };
            let between = |from: f64, to: f64, at: usize| from + (to - from) * (at - last) as f64 / (rows - last) as f64;
            for at in last + 1..=rows {
                (self.likely[at], self.most[at]) = (between(likely, known.0, at), between(most, known.1, at));
            }
            (last, likely, most) = (rows, known.0, known.1);
        }
    }
}

impl Measured {
    fn learn(&mut self, cost: f64, at: u64) {
        self.cost = match self.count {
            0 => cost,
            // What disturbs a run makes it longer.
            1 | 2 => self.cost.min(cost),
            _ => self.cost * (cost / self.cost).clamp(1.0 / STEP, STEP),
        };
        self.count = self.count.saturating_add(1);
        self.at = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After runs of one row that take a millisecond.
    fn costs() -> RunCosts {
        let mut costs = RunCosts::measured();
        assert!(!costs.is_known());
        (0..5).for_each(|_| assert_eq!(costs.learn(1, 1e-3), 1.0));
        assert!(costs.is_known());
        costs
    }

    #[test]
    fn sizes_are_approached_by_doubling() {
        let mut costs = costs();
        assert_eq!((costs.reach(), costs.most(2), costs.most(4)), (2, 4.0, 8.0));
        for (rows, cost, next) in [(2, 1.2, 2.4), (4, 1.6, 3.2), (8, 2.0, 4.0)] {
            assert_eq!(costs.reach(), rows);
            assert!((costs.learn(rows, cost * 1e-3) - cost).abs() < 1e-9);
            assert!((costs.most(rows) - cost).abs() < 1e-9 && (costs.most(2 * rows) - next).abs() < 1e-9, "{rows}");
            assert!(costs.likely(2 * rows) < next);
        }
        assert!((costs.most(6) - 1.8).abs() < 1e-9, "between two that were measured");
        assert!((1..MOST_ROWS).all(|rows| costs.most(rows) <= costs.most(rows + 1) && costs.likely(rows) <= costs.most(rows)));
    }

    #[test]
    fn a_disturbed_run_is_tried_again() {
        let mut costs = costs();
        assert_eq!(costs.learn(2, 50e-3), 8.0, "it counts for twice what was allowed");
        assert!(costs.most(2) <= 4.0 && costs.likely(2) < 2.0);
        [1.3, 9.0].iter().for_each(|cost| _ = costs.learn(2, cost * 1e-3));
        assert!((costs.most(2) - 1.3).abs() < 1e-9);
        // Later ones move it little, unless they stay.
        costs.learn(2, 9e-3);
        assert!(costs.most(2) < 1.5);
        (0..40).for_each(|_| _ = costs.learn(2, 2.6e-3));
        assert!((costs.most(2) - 2.6).abs() < 0.01, "{}", costs.most(2));
    }

    #[test]
    fn ratios_stay_when_all_runs_take_longer() {
        let mut costs = costs();
        for busy in [1.0, 1.8, 3.0, 1.0] {
            for _ in 0..10 {
                (0..5).for_each(|_| _ = costs.learn(1, busy * 1e-3));
                costs.learn(8, busy * 2.2e-3);
                assert!((costs.most(8) - 2.2).abs() < 1e-9, "{}", costs.most(8));
            }
        }
    }

    #[test]
    fn an_old_estimate_is_believed_less() {
        let mut costs = costs();
        [2, 4].iter().for_each(|&rows| (0..3).for_each(|_| _ = costs.learn(rows, 2e-3)));
        (0..3).for_each(|_| _ = costs.learn(8, 30e-3));
        assert_eq!((costs.likely(8), costs.most(8)), (30.0, 30.0));
        (0..FRESH).for_each(|_| _ = costs.learn(1, 1e-3));
        (0..3).for_each(|_| _ = costs.learn(4, 2e-3));
        assert!(costs.likely(8) < 4.0 && costs.most(8) <= 4.0, "{} {}", costs.likely(8), costs.most(8));
    }

    #[test]
    fn given_costs_stay() {
        let mut costs = RunCosts::fixed(0.25);
        assert!(costs.is_known() && costs.reach() == MOST_ROWS);
        assert_eq!(costs.learn(9, 1e9), 3.0);
        assert_eq!((costs.likely(1), costs.likely(9), costs.most(9), costs.units(5.0)), (1.0, 3.0, 3.0, 0.0));
    }
}
