//! How many draft tokens a run verifies.
//!
//! A run of several rows costs more than one of one row: nearly nothing on a GPU, up to a row's share of computing on a CPU. It pays if
//! enough draft tokens are accepted. So costs are measured ([`costs`]), acceptance is learned from every token whether its draft was
//! verified or not ([`acceptance`]), and the lengths are chosen that promise most tokens for the time.
//!
//! An account makes sure that a promise that is not kept costs little. Decoding earns [`EARNED`] of the time that it takes without
//! drafts, and what accepted drafts save; what other drafts cost is paid from that, in advance. So decoding takes at no time more than
//! `1 + EARNED` times as long as without drafts, whatever is accepted. Nothing here reads a clock.

mod acceptance;
mod costs;
#[cfg(test)]
mod tests;

pub(crate) use acceptance::Luck;
pub(crate) use costs::RunCosts;

use acceptance::Acceptance;
use costs::Recent;

/// How much longer decoding may take because of drafts that are rejected, as a share of the time without drafts.
const EARNED: f64 = 0.03;
/// The account holds at most so many runs of one row: so much may be lost when what was accepted for long is rejected from then on.
const MOST_CREDIT: f64 = 12.0;
/// Draft tokens that are verified in a run, of all answers together.
const MOST_DRAFT: usize = 32;
/// Numbers of rows that runs have which verify a part of the drafts: a few, so that the cost of each is soon known.
const SIZES: [usize; 10] = [2, 4, 6, 8, 12, 16, 20, 24, 32, 48];
/// A draft has to promise so many times the tokens for the time that there are without it.
const WORTHWHILE: f64 = 1.05;

/// What a token is worth of an answer that is one ahead of others: those take as long as the slowest one.
const WAITING: f64 = 0.95;

/// What is known about the draft of one answer; an answer without one has no tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Candidate {
    /// How many tokens it has.
    pub tokens: usize,
    /// How much speaks for it.
    pub strength: usize,
    /// How many tokens its answer is ahead of the slowest one.
    pub ahead: usize,
    /// How drafts fared in this answer.
    pub luck: Luck,
}

/// What the next run verifies.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// How many tokens of each candidate.
    pub lengths: Vec<usize>,
    /// What was taken from the account for it.
    paid: f64,
    /// Whether the run is made for one of several answers, without drafts as well.
    free: bool,
}

impl Plan {
    /// No drafts for so many answers.
    pub fn plain(answers: usize) -> Self {
        Self { lengths: vec![0; answers], ..Self::default() }
    }

    /// One of `open` answers computes a token by itself: the call was too close.
    pub fn alone(open: usize) -> Self {
        Self { free: open > 1, ..Self::plain(1) }
    }

    /// Rows of a run that computes a token of each answer, and the drafts behind it.
    fn rows(&self) -> usize {
        self.lengths.len() + self.lengths.iter().sum::<usize>()
    }
}

/// How far answers are that are decoded together, in runs that it takes without drafts.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// What all of them have reached that are not over.
    reached: usize,
    /// What each has reached, once it has begun.
    tokens: Vec<Option<usize>>,
}

impl Progress {
    /// Of so many answers.
    pub fn new(answers: usize) -> Self {
        Self { reached: 0, tokens: vec![None; answers] }
    }

    /// An answer goes on by so many tokens.
    pub fn said(&mut self, answer: usize, tokens: usize) {
        *self.tokens[answer].get_or_insert(self.reached) += tokens;
    }

    /// How many tokens an answer is ahead of the slowest one.
    pub fn ahead(&self, answer: usize) -> usize {
        self.tokens[answer].map_or(0, |tokens| tokens.saturating_sub(self.reached))
    }

    /// What it costs without drafts to come as far as the slowest answer has since the last time that this was asked.
    fn since(&mut self, costs: &RunCosts, is_over: impl Fn(usize) -> bool) -> f64 {
        let begun = || self.tokens.iter().enumerate().filter_map(|(answer, tokens)| Some((answer, (*tokens)?)));
        let open = begun().filter(|&(answer, _)| !is_over(answer)).map(|(_, tokens)| tokens).min();
        let reached = open.or(begun().map(|(_, tokens)| tokens).max()).unwrap_or(self.reached);
        let cost = |place: usize| costs.likely(begun().filter(|&(_, tokens)| tokens > place).count().max(1));
        let total = (self.reached..reached).map(cost).sum();
        self.reached = reached.max(self.reached);
        total
    }
}

/// Chooses drafts' lengths and keeps the account.
#[derive(Clone, Debug)]
pub(crate) struct Speculation {
    costs: RunCosts,
    acceptance: Acceptance,
    searches: Recent,
    /// In runs of one row.
    credit: f64,
}

impl Speculation {
    /// With an empty account.
    pub fn new(costs: RunCosts) -> Self {
        Self { costs, acceptance: Acceptance::new(), searches: Recent::default(), credit: 0.0 }
    }

    /// Learns from a run that was made to be measured.
    pub fn measured(&mut self, rows: usize, seconds: f64) {
        self.costs.learn(rows, seconds);
    }

    /// Whether drafts are to be looked for: not while searching costs more than is earned.
    pub fn searches(&self) -> bool {
        self.credit >= 0.0
    }

    /// Pays for a search of so many seconds.
    pub fn searched(&mut self, seconds: f64) {
        self.searches.push(seconds);
        self.credit -= self.searches.median().map_or(0.0, |seconds| self.costs.units(seconds));
    }

    /// Chooses how much of the drafts the next run verifies, which computes a token of each answer anyway, and pays for all of it being
    /// rejected.
    pub fn plan(&mut self, candidates: &[Candidate]) -> Plan {
        let answers = candidates.len();
        let mut best = Plan::plain(answers);
        if !self.costs.is_known() {
            return best;
        }
        let mut promised = answers as f64;
        let mut most_for_the_time = WORTHWHILE * promised / self.costs.likely(answers);
        // How likely each draft is accepted up to and including its next token.
        let mut next: Vec<f64> =
            candidates.iter().map(|candidate| self.acceptance.of(candidate.strength) * candidate.luck.factor()).collect();
        let mut lengths = vec![0; answers];
        for drafted in 1..=MOST_DRAFT.min(self.costs.reach().saturating_sub(answers)) {
            let open = (0..answers).filter(|&at| lengths[at] < candidates[at].tokens);
            let worth = |at: usize| next[at] * WAITING.powi((candidates[at].ahead + lengths[at]) as i32);
            let Some(at) = open.max_by(|&a, &b| worth(a).total_cmp(&worth(b))) else { break };
            promised += next[at];
            lengths[at] += 1;
            next[at] *= self.acceptance.of(candidates[at].strength + lengths[at]);
            let rows = answers + drafted;
            let for_the_time = promised / self.costs.likely(rows);
            let whole = (0..answers).all(|at| lengths[at] == candidates[at].tokens);
            if (whole || SIZES.contains(&rows)) && for_the_time > most_for_the_time {
                let paid = self.costs.most(rows) - self.without_progress(answers);
                if paid > self.credit {
                    break;
                }
                most_for_the_time = for_the_time;
                best = Plan { lengths: lengths.clone(), paid, free: false };
            }
        }
        self.credit -= best.paid;
        best
    }

    /// What a run without drafts costs of what one with drafts does. Where one answer's next token is too close a call in a run of several
    /// rows, it is computed again by itself, and the whole run was in vain; several answers take that with and without drafts.
    fn without_progress(&self, answers: usize) -> f64 {
        if answers == 1 { 0.0 } else { self.costs.most(answers) }
    }

    /// Takes a plan back that was not carried out.
    pub fn withdraw(&mut self, plan: &mut Plan) {
        self.credit += plan.paid;
        *plan = Plan::plain(plan.lengths.len());
    }

    /// Settles a run of so many seconds that computed a token of each answer and what was planned behind it, as far as all answers have
    /// come by now.
    pub fn settle(&mut self, plan: &Plan, seconds: f64, progress: &mut Progress, is_over: impl Fn(usize) -> bool) {
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
            self.credit = self.credit.min(MOST_CREDIT);
        }
    }

    /// Learns from a draft, verified or not, whose first `right` tokens the answer said, and then another one if it is `wrong`.
    pub fn learn(&mut self, strength: usize, luck: &mut Luck, right: usize, wrong: bool) {
        if right > 0 || wrong {
            luck.learn(right > 0, self.acceptance.of(strength));
            self.acceptance.learn(strength, right, wrong);
        }
    }
}
