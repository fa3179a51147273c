//! What a run of several rows costs, in runs of one row, learned from the runs that decoding makes.

/// Largest number of rows whose cost is kept. Runs of more rows are taken to cost as much.
pub(super) const MAX_ROWS: usize = 64;
/// Smallest number of measurements after which an estimate counts. A single one may have been disturbed.
const MIN_COUNT: u32 = 3;
/// Largest number of runs since the last measurement of an estimate that counts.
const MAX_AGE: u64 = 2000;
/// Before a run of two rows was measured, a run of n rows is taken to cost n times this: it may use other kernels than one row does.
const UNKNOWN: f64 = 2.0;
/// Largest factor by which one measurement changes an estimate.
const MAX_CHANGE: f64 = 1.1;
/// Largest charge for a run, as a multiple of its largest expected cost. Whatever it took beyond that has other causes.
const MAX_CHARGE: f64 = 2.0;

/// Costs of runs by their number of rows. The unit is the time of the latest runs of one row, so costs stay the same when the KV cache
/// grows or other callers slow the machine down.
#[derive(Clone, Debug)]
pub(crate) struct RunCosts {
    /// The costs are given and not measured.
    fixed: bool,
    /// Seconds of the latest runs of one row.
    singles: Recent,
    /// Runs so far.
    runs: u64,
    measured: [Measured; MAX_ROWS + 1],
    /// The largest number of rows that was measured.
    largest: usize,
    likely: [f64; MAX_ROWS + 1],
    most: [f64; MAX_ROWS + 1],
}

/// The last few measurements of one quantity.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    values: [f64; 5],
    count: usize,
}

impl Recent {
    pub fn push(&mut self, value: f64) {
        self.values[self.count % self.values.len()] = value;
        self.count += 1;
    }

    /// The lower median, which leaves out single runs that something else slowed down.
    pub fn median(&self) -> Option<f64> {
        let mut last = self.values;
        let last = &mut last[..self.count.min(self.values.len())];
        last.sort_unstable_by(f64::total_cmp);
        last.len().checked_sub(1).map(|index| last[index / 2])
    }
}

/// The measured cost of one number of rows.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    cost: f64,
    count: u32,
    /// The run count at the last measurement.
    at: u64,
}

impl RunCosts {
    /// Costs that are yet to be measured.
    pub fn measured() -> Self {
        let none = [Measured::default(); MAX_ROWS + 1];
        let ones = [1.0; MAX_ROWS + 1];
        let (likely, most) = (ones, ones);
        let singles = Recent::default();
        let mut costs = Self { fixed: false, singles, runs: 0, measured: none, largest: 1, likely, most };
        costs.estimate();
        costs
    }

    /// Given costs, which are never measured: each row after the first costs `row`.
    pub fn fixed(row: f64) -> Self {
        let cost: [f64; MAX_ROWS + 1] = std::array::from_fn(|rows| 1.0 + row * rows.saturating_sub(1) as f64);
        Self { fixed: true, likely: cost, most: cost, largest: MAX_ROWS, ..Self::measured() }
    }

    /// Whether the unit is known: a run of one row was measured.
    pub fn is_known(&self) -> bool {
        self.fixed || self.single().is_some()
    }

    /// The expected cost of a run of this many rows.
    pub fn likely(&self, rows: usize) -> f64 {
        self.likely[rows.min(MAX_ROWS)]
    }

    /// The largest cost that a run of this many rows is expected to have.
    pub fn most(&self, rows: usize) -> f64 {
        self.most[rows.min(MAX_ROWS)]
    }

    /// The most rows that the next run may have: twice as many as were measured.
    pub fn reach(&self) -> usize {
        (2 * self.largest).min(MAX_ROWS)
    }

    /// Converts seconds to runs of one row.
    pub fn units(&self, seconds: f64) -> f64 {
        if self.fixed { 0.0 } else { self.single().map_or(0.0, |single| seconds / single) }
    }

    /// Learns from a run of this many rows. Returns the cost to charge for it.
    pub fn learn(&mut self, rows: usize, seconds: f64) -> f64 {
        if self.fixed {
            return self.likely(rows);
        }
        self.runs += 1;
        if rows == 1 {
            self.singles.push(seconds);
            return 1.0;
        }
        let Some(single) = self.single().filter(|_| rows <= MAX_ROWS) else {
            return self.likely(rows);
        };
        let (cost, allowed) = ((seconds / single).max(1.0), MAX_CHARGE * self.most(rows));
        self.measured[rows].learn(cost, self.runs);
        if self.measured[rows].count >= MIN_COUNT {
            // Fewer rows never cost more: estimates of them that are higher were disturbed, and are lowered.
            let cost = self.measured[rows].cost;
            self.measured[..rows].iter_mut().for_each(|fewer| fewer.cost = fewer.cost.min(cost));
        }
        self.largest = self.largest.max(rows);
        self.estimate();
        cost.min(allowed)
    }

    fn single(&self) -> Option<f64> {
        self.singles.median().filter(|&single| single > 0.0)
    }

    /// Estimates the costs of all numbers of rows. More rows never cost less. Costs between two measured numbers are interpolated. Beyond
    /// the largest measured number, the largest expected cost grows in proportion to the rows, the expected cost with their square root.
    fn estimate(&mut self) {
        let counts = |at: Measured| at.count >= MIN_COUNT && self.runs - at.at <= MAX_AGE;
        let reliable = (2..=MAX_ROWS).rev().find(|&rows| counts(self.measured[rows])).unwrap_or(1);
        let (mut last, mut likely, mut most) = (1, 1.0, 1.0);
        for rows in 2..=MAX_ROWS {
            let times = rows as f64 / last as f64;
            let assumed = if last == 1 { UNKNOWN * rows as f64 } else { most * times };
            let guessed = likely * times.sqrt();
            let measured = self.measured[rows];
            (self.likely[rows], self.most[rows]) = (guessed, assumed);
            let known = if counts(measured) {
                let cost = measured.cost.max(likely);
                (cost, cost)
            } else if measured.count > 0 && rows > reliable {
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
            // Disturbances only make a run longer, so the shortest of the first ones counts.
            1 | 2 => self.cost.min(cost),
            _ => self.cost * (cost / self.cost).clamp(1.0 / MAX_CHANGE, MAX_CHANGE),
        };
        self.count = self.count.saturating_add(1);
        self.at = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Costs after five runs of one row that took a millisecond.
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
        assert!((1..MAX_ROWS).all(|rows| costs.most(rows) <= costs.most(rows + 1) && costs.likely(rows) <= costs.most(rows)));
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
        (0..MAX_AGE).for_each(|_| _ = costs.learn(1, 1e-3));
        (0..3).for_each(|_| _ = costs.learn(4, 2e-3));
        assert!(costs.likely(8) < 4.0 && costs.most(8) <= 4.0, "{} {}", costs.likely(8), costs.most(8));
    }

    #[test]
    fn fewer_rows_cost_no_more() {
        let mut costs = costs();
        for (rows, cost) in [(2, 1.2), (4, 1.4), (8, 1.9), (16, 5.0), (20, 3.0)] {
            (0..3).for_each(|_| _ = costs.learn(rows, cost * 1e-3));
        }
        assert_eq!((costs.likely(16), costs.most(16), costs.likely(20)), (3.0, 3.0, 3.0), "16 rows were disturbed");
        assert!((costs.likely(8) - 1.9).abs() < 1e-9);
    }

    #[test]
    fn given_costs_stay() {
        let mut costs = RunCosts::fixed(0.25);
        assert!(costs.is_known() && costs.reach() == MAX_ROWS);
        assert_eq!(costs.learn(9, 1e9), 3.0);
        assert_eq!((costs.likely(1), costs.likely(9), costs.most(9), costs.units(5.0)), (1.0, 3.0, 3.0, 0.0));
    }
}
