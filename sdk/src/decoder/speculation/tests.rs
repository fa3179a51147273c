//! Decoding on simulated machines: whatever rows cost and whatever is accepted, drafts never cost more than the account allows.

use super::*;
use crate::decoder::look_up::MAX_STRENGTH;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The cost of a run by its rows, in runs of one row.
type Cost = fn(usize) -> f64;

/// Tokens of a draft.
const DRAFT: usize = 19;

/// A GPU, where rows are almost free; the reference bundle and a decoder of 4 billion weights in 4 bits on a CPU; rows that cost as much
/// together as one by one; and a kernel for one row that is much faster than the one for several.
const MACHINES: [(&str, Cost); 5] = [
    ("GPU", |rows| 1.0 + 0.005 * (rows - 1) as f64),
    ("reference", |rows| 1.0 + 0.13 * (rows - 1) as f64),
    ("4B", |rows| 1.0 + 0.27 * (rows - 1) as f64),
    ("row by row", |rows| rows as f64),
    ("other kernels", |rows| if rows == 1 { 1.0 } else { 6.0 + 0.01 * rows as f64 }),
];

/// A simulated machine, the time that it took, and the time that it would have taken without drafts.
struct Machine {
    speculation: Speculation,
    cost: Cost,
    rng: ChaCha8Rng,
    /// Measured times contain what else the machine does.
    noisy: bool,
    total: f64,
    plain: f64,
    /// The sums of `total` and `plain` before they were last reset.
    before: [f64; 2],
    /// One choice in this many is too close in a run of several rows.
    close: u64,
}

impl Machine {
    /// A machine on which opening the bundle measured runs of one row and of two.
    fn new(cost: Cost) -> Self {
        let mut costs = RunCosts::measured();
        [1, 1, 2, 2].iter().for_each(|&rows| _ = costs.learn(rows, cost(rows) * 2e-4));
        let (speculation, rng) = (Speculation::new(costs), ChaCha8Rng::seed_from_u64(5));
        Self { speculation, cost, rng, noisy: false, total: 0.0, plain: 0.0, before: [0.0; 2], close: u64::MAX }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    /// Makes a run and returns how long it seems to take.
    fn take(&mut self, rows: usize) -> f64 {
        let cost = (self.cost)(rows);
        self.total += cost;
        let disturbed = if !self.noisy {
            1.0
        } else if self.random(50) == 0 {
            60.0
        } else {
            0.8 + self.random(100) as f64 / 200.0
        };
        cost * disturbed * 2e-4
    }

    /// Decodes answers of `tokens` tokens together; `right` tells for an answer and a position in it whether drafts are right there.
    /// Returns the number of runs.
    fn answer(&mut self, answers: usize, tokens: usize, strength: usize, right: impl Fn(&Self, usize, usize) -> bool) -> usize {
        let (mut at, mut acceptance) = (vec![0; answers], vec![AnswerAcceptance::default(); answers]);
        let (mut streak, mut runs, mut progress) = (vec![0; answers], 0, Progress::new(answers));
        while at.iter().any(|&at| at < tokens) {
            let open: Vec<usize> = (0..answers).filter(|&answer| at[answer] < tokens).collect();
            let candidate = |&answer: &usize| {
                let (tokens, strength) = (DRAFT.min(tokens - at[answer] - 1), MAX_STRENGTH.min(strength + streak[answer]));
                Candidate { tokens, strength, ahead: progress.ahead(answer), acceptance: acceptance[answer] }
            };
            let candidates: Vec<Candidate> = open.iter().map(candidate).collect();
            let plan = if self.speculation.searches() { self.speculation.plan(&candidates) } else { Plan::plain(open.len()) };
            let taken = self.take(plan.rows());
            let mut close = Vec::new();
            for (part, &answer) in open.iter().enumerate() {
                let draft = candidates[part].tokens;
                let all_right = (0..draft).take_while(|&token| right(self, answer, at[answer] + token)).count();
                let mut said = 1 + all_right.min(plan.lengths[part]);
                if plan.rows() > 1 && self.random(self.close) == 0 {
                    said = 0;
                    close.push(answer);
                }
                at[answer] += said;
                progress.add(answer, said);
                let (compared, wrong) = (all_right.min(said), all_right < said.min(draft));
                self.speculation.learn(candidates[part].strength, &mut acceptance[answer], compared, wrong);
                streak[answer] = if wrong { 0 } else { streak[answer] + compared };
            }
            self.speculation.charge(&plan, taken, &mut progress, |answer| at[answer] >= tokens);
            for answer in close {
                let taken = self.take(1);
                // Several answers have close choices without drafts, too.
                self.plain += if open.len() > 1 { 1.0 } else { 0.0 };
                at[answer] += 1;
                progress.add(answer, 1);
                self.speculation.charge(&Plan::alone(open.len()), taken, &mut progress, |answer| at[answer] >= tokens);
            }
            runs += 1;
            // The time of several answers without drafts depends on the longest one, which is not known yet.
            let (total, plain) = (self.before[0] + self.total, self.before[1] + self.plain + at[0] as f64);
            assert!(self.noisy || answers > 1 || plain >= 0.95 * total, "{total} instead of {plain}, {} tokens of this answer", at[0]);
        }
        self.plain += tokens as f64 * (self.cost)(answers);
        runs
    }

    /// How many times faster than without drafts decoding was since the last call.
    fn gain(&mut self) -> f64 {
        let gain = self.plain / self.total;
        self.before = [self.before[0] + self.total, self.before[1] + self.plain];
        (self.total, self.plain) = (0.0, 0.0);
        gain
    }
}

#[test]
fn rejected_drafts_cost_little_on_any_machine() {
    for (name, cost) in MACHINES {
        for strength in [2, 6, 20] {
            let mut machine = Machine::new(cost);
            (0..30).for_each(|_| _ = machine.answer(1, 64, strength, |_, _, _| false));
            // Drafts are compared with decoded tokens without being verified, so those that are never accepted are hardly ever verified.
            let gain = machine.gain();
            assert!(gain > 0.99, "{name}: {gain}");
            machine.close = 3;
            (0..30).for_each(|_| _ = machine.answer(1, 64, strength, |_, _, _| false));
            let gain = machine.gain();
            assert!(gain > 0.99, "{name}: {gain}");
            machine.close = 3;
            (0..30).for_each(|_| _ = machine.answer(9, 64, strength, |_, _, _| false));
            let gain = machine.gain();
            assert!(gain > 0.99, "{name}: {gain}");
        }
    }
}

#[test]
fn accepted_drafts_pay_off() {
    for ((name, cost), floors) in MACHINES.into_iter().zip([[3.0, 14.0], [2.0, 4.5], [1.5, 3.0], [0.95, 0.95], [0.97, 0.97]]) {
        let mut machine = Machine::new(cost);
        // Most tokens of a first answer of 200 come from drafts already.
        machine.answer(1, 200, 6, |_, _, _| true);
        let first = machine.gain();
        (0..20).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| true));
        let gains = [first, machine.gain()];
        assert!(gains.iter().zip(floors).all(|(gain, floor)| *gain >= floor), "{name}: {gains:?}");
    }
}

#[test]
fn grounded_answers_gain_as_much_as_they_did() {
    // The first of 16 tokens comes from the question's prefill. Drafts are wrong about the second token in half of the answers, and about a
    // coordinate in a third of them.
    let right = |answer: usize| {
        move |_: &Machine, _: usize, token: usize| match token {
            0 => !answer.is_multiple_of(2),
            9 => !answer.is_multiple_of(3),
            _ => true,
        }
    };
    let mut machine = Machine::new(MACHINES[1].1);
    (0..14).for_each(|answer| _ = machine.answer(1, 15, 3, right(answer)));
    machine.gain();
    (0..70).for_each(|answer| _ = machine.answer(1, 15, 3, right(answer)));
    let gain = machine.gain();
    assert!(gain > 2.5, "{gain}");
}

#[test]
fn an_engine_that_measured_nothing_begins_later() {
    for (name, cost) in &MACHINES[..4] {
        let mut machine = Machine::new(*cost);
        machine.speculation = Speculation::new(RunCosts::measured());
        machine.answer(1, 400, 6, |_, _, _| true);
        let gain = machine.gain();
        assert!(gain > 1.3 || *name == "row by row", "{name}: {gain}");
    }
}

#[test]
fn any_pattern_is_bounded() {
    type Right = fn(&Machine, usize, usize) -> bool;
    let alternating: Right = |_, _, token| token % 2 == 0;
    let phases: Right = |_, _, token| token / 40 % 2 == 0;
    // Accepted until there is much credit, rejected until it is gone.
    let adversary: Right = |machine, _, _| machine.speculation.credit < MAX_CREDIT / 2.0;
    for (name, cost) in MACHINES {
        for right in [alternating, phases, adversary] {
            for (answers, close) in [(1, u64::MAX), (1, 2), (1, 20), (9, u64::MAX)] {
                let mut machine = Machine { close, ..Machine::new(cost) };
                (0..20).for_each(|_| _ = machine.answer(answers, 150, 6, right));
                let gain = machine.gain();
                assert!(gain >= 0.95, "{name}: {gain}");
            }
        }
    }
}

#[test]
fn a_full_account_is_soon_closed() {
    for (name, cost) in MACHINES {
        let mut machine = Machine::new(cost);
        (0..20).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| true));
        machine.gain();
        assert!(machine.speculation.credit <= MAX_CREDIT, "{name}: {}", machine.speculation.credit);
        machine.answer(1, 200, 6, |_, _, _| false);
        let lost = machine.total - machine.plain;
        assert!(lost <= MAX_CREDIT + EARNED * 200.0, "{name}: {lost}");
    }
}

#[test]
fn answers_together_share_a_run() {
    type Right = fn(&Machine, usize, usize) -> bool;
    let [all, most, none]: [Right; 3] = [|_, _, _| true, |_, answer, _| answer % 3 > 0, |_, _, _| false];
    let floors = [[3.0, 1.4], [1.4, 1.08], [1.15, 0.97], [0.97, 0.97], [0.97, 1.5]];
    for ((name, cost), [floor, close_floor]) in MACHINES.into_iter().zip(floors) {
        let mut machine = Machine::new(cost);
        (0..20).for_each(|_| _ = machine.answer(1, 64, 6, all));
        machine.gain();
        // If a third of the answers has wrong drafts only, all together take as long as without drafts.
        for (right, floor) in [(all, floor), (most, 0.96), (none, 0.99), (most, 0.96)] {
            (0..10).for_each(|_| _ = machine.answer(9, 64, 6, right));
            let gain = machine.gain();
            assert!(gain >= floor, "{name}: {gain}");
        }
        // Close choices cost as much without drafts.
        let mut machine = Machine { close: 4, ..Machine::new(cost) };
        (0..20).for_each(|_| _ = machine.answer(9, 64, 6, all));
        let gain = machine.gain();
        assert!(gain >= close_floor, "{name}: {gain}");
    }
}

#[test]
fn a_busy_machine_changes_little() {
    for ((name, cost), floor) in MACHINES.into_iter().zip([8.0, 3.5, 2.3, 0.93, 0.93]) {
        let mut machine = Machine { noisy: true, ..Machine::new(cost) };
        (0..30).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| false));
        let gain = machine.gain();
        assert!(gain > 0.95, "{name}: {gain}");
        (0..30).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| true));
        machine.gain();
        (0..50).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| true));
        let gain = machine.gain();
        assert!(gain > floor, "{name}: {gain}");
    }
}

#[test]
fn given_costs_make_equal_plans() {
    let run = || {
        let mut machine = Machine::new(MACHINES[1].1);
        machine.speculation = Speculation::new(RunCosts::fixed(0.13));
        machine.noisy = true;
        (0..20).map(|answer| machine.answer(1, 64, 6, |_, _, token| token % (answer + 2) > 0)).collect::<Vec<_>>()
    };
    let runs = run();
    assert_eq!(runs, run());
    assert!(runs.iter().sum::<usize>() < 20 * 40, "{runs:?}");
}

#[test]
fn a_plan_that_is_taken_back_costs_nothing() {
    let mut speculation = Speculation::new(RunCosts::fixed(0.1));
    let mut acceptance = AnswerAcceptance::default();
    (0..20).for_each(|_| speculation.learn(6, &mut acceptance, 19, false));
    let candidate = Candidate { tokens: DRAFT, strength: 6, ahead: 0, acceptance };
    assert_eq!(speculation.plan(&[candidate]).lengths, [0], "nothing was earned yet");
    speculation.credit = MAX_CREDIT;
    let mut plan = speculation.plan(&[candidate]);
    assert!(plan.lengths[0] >= 15 && (speculation.credit - MAX_CREDIT + plan.paid).abs() < 1e-9);
    speculation.cancel(&mut plan);
    assert_eq!((plan.lengths.as_slice(), speculation.credit), (&[0][..], MAX_CREDIT));
    // After a search that costs more than is in the account, the next searches are left out until it is paid.
    let mut speculation = Speculation::new(RunCosts::measured());
    let mut progress = Progress::new(1);
    let mut run = |speculation: &mut Speculation| {
        progress.add(0, 1);
        speculation.charge(&Plan::plain(1), 1e-3, &mut progress, |_| false);
    };
    run(&mut speculation);
    speculation.searched(0.1e-3);
    assert!(!speculation.searches());
    (0..3).for_each(|_| run(&mut speculation));
    assert!(speculation.searches());
}

#[test]
fn progress_is_what_the_slowest_answer_makes() {
    let costs = RunCosts::fixed(0.5);
    let mut progress = Progress::new(3);
    let over = |_| false;
    progress.add(0, 5);
    progress.add(1, 1);
    assert_eq!(progress.since(&costs, over), 1.5, "both are one token further");
    progress.add(1, 2);
    assert_eq!(progress.since(&costs, over), 3.0);
    // An answer that begins later begins where the others are.
    progress.add(2, 1);
    assert_eq!(progress.since(&costs, over), 0.0);
    progress.add(1, 1);
    assert_eq!(progress.since(&costs, over), 2.0, "three went on");
    // Finished answers do not count, unless all are finished.
    progress.add(2, 9);
    assert_eq!(progress.since(&costs, |answer| answer == 1), 1.5);
    assert_eq!(progress.since(&costs, |_| true), 8.0);
}

#[test]
fn a_draft_is_verified_as_a_whole_where_that_saves_a_run() {
    let mut speculation = Speculation::new(RunCosts::fixed(0.1));
    for _ in 0..10 {
        for strength in 0..=MAX_STRENGTH {
            (0..9).for_each(|_| speculation.learn(strength, &mut AnswerAcceptance::default(), 1, false));
            speculation.learn(strength, &mut AnswerAcceptance::default(), 0, true);
        }
    }
    speculation.credit = MAX_CREDIT;
    let candidate = |tokens| Candidate { tokens, strength: 3, ahead: 0, acceptance: AnswerAcceptance::default() };
    // With nine of ten tokens accepted, 11 tokens give a little more for the cost of one run than 13. But the last two need another run.
    assert_eq!(speculation.plan(&[candidate(13)]).lengths, [13]);
    // A long draft is not worth verifying to its end.
    speculation.credit = MAX_CREDIT;
    assert!(speculation.plan(&[candidate(32)]).lengths[0] < 32);
}
