//! How often draft tokens are what the answer says, by how much speaks for them.

use crate::decoder::look_up::STRONGEST;

/// About so many of the last draft tokens of a strength count.
const MEMORY: f64 = 50.0;
/// The share of draft tokens that is expected to be right where nothing speaks for them.
const PRIOR: f64 = 0.25;
/// About so many of an answer's last drafts tell how it differs from others.
const ANSWER_MEMORY: f64 = 10.0;

/// Acceptance by strength: a draft's strength grows by one with each token that was right.
#[derive(Clone, Debug)]
pub(super) struct Acceptance {
    learned: [Share; STRONGEST + 1],
    estimates: [f64; STRONGEST + 1],
}

/// Weights of what was right and of all.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    right: f64,
    all: f64,
}

impl Share {
    fn learn(&mut self, right: bool) {
        let kept = 1.0 - 1.0 / MEMORY;
        self.right = self.right * kept + f64::from(u8::from(right));
        self.all = self.all * kept + 1.0;
    }
}

impl Acceptance {
    pub fn new() -> Self {
        Self { learned: [Share::default(); STRONGEST + 1], estimates: [PRIOR; STRONGEST + 1] }
    }

    /// How likely the next token of a draft of this strength is right.
    pub fn of(&self, strength: usize) -> f64 {
        self.estimates[strength.min(STRONGEST)]
    }

    /// Learns from a draft whose first `right` tokens were what the answer says, and the next one was not if it is `wrong`.
    pub fn learn(&mut self, strength: usize, right: usize, wrong: bool) {
        let outcomes = std::iter::repeat_n(true, right).chain(wrong.then_some(false));
        outcomes.enumerate().for_each(|(at, outcome)| self.learned[(strength + at).min(STRONGEST)].learn(outcome));
        // Before anything was compared, a strength is as good as the one below it.
        let mut below = PRIOR;
        for (estimate, Share { right, all }) in self.estimates.iter_mut().zip(&self.learned) {
            *estimate = (right + below) / (all + 1.0);
            below = *estimate;
        }
    }
}

/// How much more or less often drafts begin right in one answer than in others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Luck {
    right: f64,
    expected: f64,
}

impl Luck {
    /// What acceptance is multiplied with; at most 1.
    pub(super) fn factor(self) -> f64 {
        ((1.0 + self.right) / (1.0 + self.expected)).min(1.0)
    }

    pub(super) fn learn(&mut self, right: bool, expected: f64) {
        let kept = 1.0 - 1.0 / ANSWER_MEMORY;
        self.right = self.right * kept + f64::from(u8::from(right));
        self.expected = self.expected * kept + expected;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_strength_has_a_share_of_its_own() {
        let mut acceptance = Acceptance::new();
        assert_eq!(acceptance.of(3), 0.25);
        (0..200).for_each(|_| acceptance.learn(3, 2, true));
        assert!(acceptance.of(3) > 0.95 && acceptance.of(4) > 0.95 && acceptance.of(5) < 0.05);
        assert_eq!((acceptance.of(2), acceptance.of(6)), (0.25, acceptance.of(5)), "nothing was compared there");
        (0..50).for_each(|_| acceptance.learn(3, 0, true));
        assert!(acceptance.of(3) < 0.4, "what was long ago counts little: {}", acceptance.of(3));
        acceptance.learn(STRONGEST, 40, true);
    }

    #[test]
    fn an_answer_differs_from_others() {
        let mut luck = Luck::default();
        assert_eq!(luck.factor(), 1.0);
        (0..3).for_each(|_| luck.learn(false, 0.9));
        assert!(luck.factor() < 0.35);
        (0..20).for_each(|_| luck.learn(true, 0.9));
        assert!(luck.factor() > 0.9);
    }
}
