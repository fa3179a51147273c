//! Chooses how many draft tokens a run of the decoder verifies.
//!
//! On a GPU a run of several rows costs hardly more than a run of one row, on a CPU up to as much as one run for each row. It pays off if
//! enough draft tokens are accepted. Costs are measured ([`costs`]). Acceptance is learned from every decoded token, whether its draft was
//! verified or not ([`acceptance`]). The lengths are those for which the most tokens are expected in a given time.
//!
//! An account bounds the loss from rejected drafts. Decoding earns [`EARNED`] of the time that it would take without drafts, and the time
//! that accepted drafts save. Before a draft is verified, the account pays its largest expected cost. So at any moment decoding has taken
//! at most `1 + EARNED` times as long as without drafts, as far as the measured costs are right. This module does not read a clock.

mod acceptance;
mod costs;
#[cfg(test)]
mod tests;

pub(crate) use acceptance::AnswerAcceptance;
pub(crate) use costs::RunCosts;

use acceptance::Acceptance;
use costs::Recent;

/// How much longer rejected drafts may make decoding, as a share of the time without drafts.
const EARNED: f64 = 0.03;
/// The account holds at most the time of this many runs of one row. It bounds the loss when drafts that were accepted for long begin to be
/// rejected.
const MAX_CREDIT: f64 = 12.0;
/// Largest number of draft tokens that one run verifies, of all answers together.
const MAX_VERIFIED: usize = 32;
/// The numbers of rows that a run may have if it verifies only a part of the drafts. They are few, so that each is soon measured.
const PARTIAL_ROWS: [usize; 10] = [2, 4, 6, 8, 12, 16, 20, 24, 32, 48];
/// A draft is verified if it promises at least this many times as many tokens per time as a run without it.
const MIN_GAIN: f64 = 1.05;
/// The value of a token is multiplied by this for each token that its answer is ahead of the slowest one, because all wait for that.
const LEAD_DISCOUNT: f64 = 0.95;

/// The draft of one answer, which is empty if none was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Candidate {
    /// Its number of tokens.
    pub tokens: usize,
    /// How well the text before it matches; see [`Draft::strength`](crate::decoder::look_up::Draft::strength).
    pub strength: usize,
    /// How many tokens its answer is ahead of the slowest one.
    pub ahead: usize,
    /// Acceptance in this answer.
    pub acceptance: AnswerAcceptance,
}

/// What the next run verifies.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// How many draft tokens of each candidate.
    pub lengths: Vec<usize>,
    /// What the account paid for it.
    paid: f64,
    /// Whether the run is free of charge, because plain decoding would make it, too.
    free: bool,
}

impl Plan {
    /// A run without drafts, of one token of each answer.
    pub fn plain(answers: usize) -> Self {
        Self { lengths: vec![0; answers], ..Self::default() }
    }

    /// A run of one token of one of `open` answers, because its choice was too close in a run of several rows.
    pub fn alone(open: usize) -> Self {
        Self { free: open > 1, ..Self::plain(1) }
    }

    /// Rows of the run: one of each answer, and one of each draft token.
    fn rows(&self) -> usize {
        self.lengths.len() + self.lengths.iter().sum::<usize>()
    }
}

/// The decoded tokens of answers that are decoded together. Plain decoding needs one run for each token.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Tokens of the slowest unfinished answer when [`Progress::since`] was last called.
    reached: usize,
    /// Tokens of each answer, once it has begun.
    tokens: Vec<Option<usize>>,
}

impl Progress {
    /// No tokens yet.
    pub fn new(answers: usize) -> Self {
        Self { reached: 0, tokens: vec![None; answers] }
    }

    /// Adds tokens to an answer. If it begins later than others, it is counted from where the slowest of those is.
    pub fn add(&mut self, answer: usize, tokens: usize) {
        *self.tokens[answer].get_or_insert(self.reached) += tokens;
    }

    /// By how many tokens an answer is ahead of the slowest one.
    pub fn ahead(&self, answer: usize) -> usize {
        self.tokens[answer].map_or(0, |tokens| tokens.saturating_sub(self.reached))
    }

    /// What the progress of the slowest answer since the last call would cost without drafts.
    fn since(&mut self, costs: &RunCosts, is_over: impl Fn(usize) -> bool) -> f64 {
        let begun = || self.tokens.iter().enumerate().filter_map(|(answer, tokens)| Some((answer, (*tokens)?)));
        let open = begun().filter(|&(answer, _)| !is_over(answer)).map(|(_, tokens)| tokens).min();
        let reached = open.or(begun().map(|(_, tokens)| tokens).max()).unwrap_or(self.reached);
        let cost = |token: usize| costs.likely(begun().filter(|&(_, tokens)| tokens > token).count().max(1));
        let total = (self.reached..reached).map(cost).sum();
        self.reached = reached.max(self.reached);
        total
    }
}

/// Chooses the lengths of drafts and keeps the account.
#[derive(Clone, Debug)]
pub(crate) struct Speculation {
    costs: RunCosts,
    acceptance: Acceptance,
    searches: Recent,
    /// The account, in runs of one row.
    credit: f64,
}

impl Speculation {
    /// Begins with an empty account.
    pub fn new(costs: RunCosts) -> Self {
        Self { costs, acceptance: Acceptance::new(), searches: Recent::default(), credit: 0.0 }
    }

    /// Learns from a run that was made to be measured.
    pub fn measured(&mut self, rows: usize, seconds: f64) {
        self.costs.learn(rows, seconds);
    }

    /// Whether the account can pay for searching drafts.
    pub fn searches(&self) -> bool {
        self.credit >= 0.0
    }

    /// Charges the account for a search that took `seconds`.
    pub fn searched(&mut self, seconds: f64) {
        self.searches.push(seconds);
        self.credit -= self.searches.median().map_or(0.0, |seconds| self.costs.units(seconds));
    }

    /// Chooses how many draft tokens the next run verifies besides computing one token of each answer. The account pays as if all of them
    /// were rejected.
    pub fn plan(&mut self, candidates: &[Candidate]) -> Plan {
        let answers = candidates.len();
        let mut best = Plan::plain(answers);
        if !self.costs.is_known() {
            return best;
        }
        let plain = self.costs.likely(answers);
        let mut tokens_per_cost = MIN_GAIN * answers as f64 / plain;
        let mut promised = answers as f64;
        let mut lengths = vec![0; answers];
        // The probabilities that what is verified of a draft is accepted, and that its next token is accepted, too.
        let mut accepted = vec![1.0; answers];
        let first = |candidate: &Candidate| self.acceptance.of(candidate.strength) * candidate.acceptance.factor();
        let mut next: Vec<f64> = candidates.iter().map(first).collect();
        for drafted in 1..=MAX_VERIFIED.min(self.costs.reach().saturating_sub(answers)) {
            let goes_on = |&at: &usize| lengths[at] < candidates[at].tokens;
            let worth = |at: usize| next[at] * LEAD_DISCOUNT.powi((candidates[at].ahead + lengths[at]) as i32);
            let Some(at) = (0..answers).filter(goes_on).max_by(|&a, &b| worth(a).total_cmp(&worth(b))) else { break };
            lengths[at] += 1;
            accepted[at] = next[at];
            promised += next[at];
            next[at] *= self.acceptance.of(candidates[at].strength + lengths[at]);
            // Verifying only a part of a draft leaves tokens for another run. The rate includes that run, as one without drafts.
            let again = (0..answers).filter(|&at| lengths[at] < candidates[at].tokens).map(|at| accepted[at]).fold(0.0, f64::max);
            let rows = answers + drafted;
            let rate = (promised + again * answers as f64) / (self.costs.likely(rows) + again * plain);
            if (again == 0.0 || PARTIAL_ROWS.contains(&rows)) && rate > tokens_per_cost {
                let paid = self.costs.most(rows) - self.without_progress(answers);
                if paid > self.credit {
                    break;
                }
                tokens_per_cost = rate;
                best = Plan { lengths: lengths.clone(), paid, free: false };
            }
        }
        self.credit -= best.paid;
        best
    }

    /// The part of a run's cost that arises without drafts, too, when the run decodes no token. A single answer whose choice is too close
    /// in a run of several rows is computed again in a run of one row, so the whole run was lost. Several answers have that risk anyway.
    fn without_progress(&self, answers: usize) -> f64 {
        if answers == 1 { 0.0 } else { self.costs.most(answers) }
    }

    /// Cancels a plan and pays back what the account paid for it.
    pub fn cancel(&mut self, plan: &mut Plan) {
        self.credit += plan.paid;
        *plan = Plan::plain(plan.lengths.len());
    }

    /// Charges the account for a planned run that took `seconds`, and learns from its cost.
    pub fn charge(&mut self, plan: &Plan, seconds: f64, progress: &mut Progress, is_over: impl Fn(usize) -> bool) {
        let rows = plan.rows();
        let measured = self.costs.learn(rows, seconds);
        if self.costs.is_known() {
            let cost = if plan.free {
                0.0
            } else if rows > plan.lengths.len() {
                measured
            } else {
                self.costs.likely(rows)
            };
            self.credit += plan.paid + (1.0 + EARNED) * progress.since(&self.costs, is_over) - cost;
            self.credit = self.credit.min(MAX_CREDIT);
        }
    }

    /// Learns from a draft, verified or not: its first `right` tokens were decoded; if `wrong`, the token after them was not.
    pub fn learn(&mut self, strength: usize, answer: &mut AnswerAcceptance, right: usize, wrong: bool) {
        if right > 0 || wrong {
            answer.learn(right > 0, self.acceptance.of(strength));
            self.acceptance.learn(strength, right, wrong);
        }
    }
}
