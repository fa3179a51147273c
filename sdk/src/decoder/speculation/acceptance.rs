//! How often draft tokens are accepted, by the strength of their draft.

use crate::decoder::look_up::MAX_STRENGTH;

/// About this many of the latest draft tokens of a strength count.
const MEMORY: f64 = 50.0;
/// The acceptance that is expected before anything was learned.
const PRIOR: f64 = 0.25;
/// About this many of the latest drafts of an answer count.
const ANSWER_MEMORY: f64 = 10.0;

/// Acceptance by strength. With each accepted token the strength of the rest of the draft grows by one.
#[derive(Clone, Debug)]
pub(super) struct Acceptance {
    learned: [Share; MAX_STRENGTH + 1],
    estimates: [f64; MAX_STRENGTH + 1],
}

/// The weights of accepted draft tokens and of all.
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
        Self { learned: [Share::default(); MAX_STRENGTH + 1], estimates: [PRIOR; MAX_STRENGTH + 1] }
    }

    /// The probability that the next token of a draft of this strength is accepted.
    pub fn of(&self, strength: usize) -> f64 {
        self.estimates[strength.min(MAX_STRENGTH)]
    }

    /// Learns from a draft: its first `right` tokens were decoded; if `wrong`, the token after them was not.
    pub fn learn(&mut self, strength: usize, right: usize, wrong: bool) {
        let outcomes = std::iter::repeat_n(true, right).chain(wrong.then_some(false));
        outcomes.enumerate().for_each(|(at, outcome)| self.learned[(strength + at).min(MAX_STRENGTH)].learn(outcome));
        // A strength of which nothing is known is as good as the one below it.
        let mut below = PRIOR;
        for (estimate, Share { right, all }) in self.estimates.iter_mut().zip(&self.learned) {
            *estimate = (right + below) / (all + 1.0);
            below = *estimate;
        }
    }
}

/// How much less often drafts are accepted in one answer than in others of the same strength.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AnswerAcceptance {
    right: f64,
    expected: f64,
}

impl AnswerAcceptance {
    /// The factor on [`Acceptance::of`] for this answer; at most 1.
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
        assert!(acceptance.of(3) < 0.4, "old drafts count little: {}", acceptance.of(3));
        acceptance.learn(MAX_STRENGTH, 40, true);
    }

    #[test]
    fn an_answer_differs_from_others() {
        let mut answer = AnswerAcceptance::default();
        assert_eq!(answer.factor(), 1.0);
        (0..3).for_each(|_| answer.learn(false, 0.9));
        assert!(answer.factor() < 0.35);
        (0..20).for_each(|_| answer.learn(true, 0.9));
        assert!(answer.factor() > 0.9);
    }
}
