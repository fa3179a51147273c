//! Decoding on machines that are only reckoned with: whatever rows cost and whatever is accepted, drafts never cost more than they may.

use super::*;
use crate::decoder::look_up::STRONGEST;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a run of so many rows takes, in runs of one row.
type Cost = fn(usize) -> f64;

/// Tokens of a draft.
const DRAFT: usize = 19;

/// What a run of so many rows costs: nearly nothing more than one of one row (a GPU), what the reference bundle and a decoder of 4
/// billion weights in 4 bits cost on a CPU, as much as the rows one by one, and as kernels for one row alone would make it.
const MACHINES: [(&str, Cost); 5] = [
    ("GPU", |rows| 1.0 + 0.005 * (rows - 1) as f64),
    ("reference", |rows| 1.0 + 0.13 * (rows - 1) as f64),
    ("4B", |rows| 1.0 + 0.27 * (rows - 1) as f64),
    ("row by row", |rows| rows as f64),
    ("other kernels", |rows| if rows == 1 { 1.0 } else { 6.0 + 0.01 * rows as f64 }),
];

/// A clock, and what decoding without drafts would have taken.
struct Machine {
    speculation: Speculation,
    cost: Cost,
    rng: ChaCha8Rng,
    /// Whether the clock tells how busy the machine was besides.
    noisy: bool,
    total: f64,
    plain: f64,
    /// Both when they were last set to nothing.
    before: [f64; 2],
    /// Of how many choices one is too close a call in a run of several rows.
    close: u64,
}

impl Machine {
    /// Opening a bundle has measured runs of one row and of two.
    fn new(cost: Cost) -> Self {
        let mut costs = RunCosts::measured();
        [1, 1, 2, 2].iter().for_each(|&rows| _ = costs.learn(rows, cost(rows) * 2e-4));
        let (speculation, rng) = (Speculation::new(costs), ChaCha8Rng::seed_from_u64(5));
        Self { speculation, cost, rng, noisy: false, total: 0.0, plain: 0.0, before: [0.0; 2], close: u64::MAX }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

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

    /// Decodes answers of so many tokens together; `right` says of an answer and a place in it whether drafts are right there. Tells the
    /// number of runs.
    fn answer(&mut self, answers: usize, tokens: usize, strength: usize, right: impl Fn(&Self, usize, usize) -> bool) -> usize {
        let (mut at, mut luck, mut streak, mut runs) = (vec![0; answers], vec![Luck::default(); answers], vec![0; answers], 0);
        let mut progress = Progress::new(answers);
        while at.iter().any(|&at| at < tokens) {
            let open: Vec<usize> = (0..answers).filter(|&answer| at[answer] < tokens).collect();
            let candidate = |&answer: &usize| {
                let strength = STRONGEST.min(strength + streak[answer]);
                Candidate { tokens: DRAFT.min(tokens - at[answer] - 1), strength, ahead: progress.ahead(answer), luck: luck[answer] }
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
                progress.said(answer, said);
                let (compared, wrong) = (all_right.min(said), all_right < said.min(draft));
                self.speculation.learn(candidates[part].strength, &mut luck[answer], compared, wrong);
                streak[answer] = if wrong { 0 } else { streak[answer] + compared };
            }
            self.speculation.settle(&plan, taken, &mut progress, |answer| at[answer] >= tokens);
            for answer in close {
                let taken = self.take(1);
                // Of several answers it would be computed by itself without drafts, too.
                self.plain += if open.len() > 1 { 1.0 } else { 0.0 };
                at[answer] += 1;
                progress.said(answer, 1);
                self.speculation.settle(&Plan::alone(open.len()), taken, &mut progress, |answer| at[answer] >= tokens);
            }
            runs += 1;
            // Of several, what is said by now does not tell how long it would have taken: that depends on the last one.
            let (total, plain) = (self.before[0] + self.total, self.before[1] + self.plain + at[0] as f64);
            assert!(self.noisy || answers > 1 || plain >= 0.95 * total, "{total} instead of {plain}, {} tokens of this answer", at[0]);
        }
        self.plain += tokens as f64 * (self.cost)(answers);
        runs
    }

    /// How many times faster than without drafts it was since the last time that this was asked.
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
            // What was never accepted is hardly ever verified: drafts are compared with what is said without being verified.
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
        // Of a first answer of 200 tokens most comes from drafts already.
        machine.answer(1, 200, 6, |_, _, _| true);
        let first = machine.gain();
        (0..20).for_each(|_| _ = machine.answer(1, 64, 6, |_, _, _| true));
        let gains = [first, machine.gain()];
        assert!(gains.iter().zip(floors).all(|(gain, floor)| *gain >= floor), "{name}: {gains:?}");
    }
}

#[test]
fn grounded_answers_gain_as_much_as_they_did() {
    // Of 16 tokens the first comes from the question's run. In half of the answers drafts are wrong about the second one, in a third of
    // them about a coordinate.
    let right = |answer: usize| {
        move |_: &Machine, _: usize, place: usize| match place {
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
    let alternating: Right = |_, _, place| place % 2 == 0;
    let phases: Right = |_, _, place| place / 40 % 2 == 0;
    // Accepted until there is much credit, rejected until it is gone.
    let adversary: Right = |machine, _, _| machine.speculation.credit < MOST_CREDIT / 2.0;
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
        assert!(machine.speculation.credit <= MOST_CREDIT, "{name}: {}", machine.speculation.credit);
        machine.answer(1, 200, 6, |_, _, _| false);
        let lost = machine.total - machine.plain;
        assert!(lost <= MOST_CREDIT + EARNED * 200.0, "{name}: {lost}");
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
        // Where a third of them is never foretold, all together take as long as without drafts.
        for (right, floor) in [(all, floor), (most, 0.96), (none, 0.99), (most, 0.96)] {
            (0..10).for_each(|_| _ = machine.answer(9, 64, 6, right));
            let gain = machine.gain();
            assert!(gain >= floor, "{name}: {gain}");
        }
        // Where each fourth choice is close, that is no fault of the drafts.
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
        (0..20).map(|answer| machine.answer(1, 64, 6, |_, _, place| place % (answer + 2) > 0)).collect::<Vec<_>>()
    };
    let runs = run();
    assert_eq!(runs, run());
    assert!(runs.iter().sum::<usize>() < 20 * 40, "{runs:?}");
}

#[test]
fn a_plan_that_is_taken_back_costs_nothing() {
    let mut speculation = Speculation::new(RunCosts::fixed(0.1));
    let mut luck = Luck::default();
    (0..20).for_each(|_| speculation.learn(6, &mut luck, 19, false));
    let candidate = Candidate { tokens: DRAFT, strength: 6, ahead: 0, luck };
    assert_eq!(speculation.plan(&[candidate]).lengths, [0], "nothing was earned yet");
    speculation.credit = MOST_CREDIT;
    let mut plan = speculation.plan(&[candidate]);
    assert!(plan.lengths[0] >= 15 && (speculation.credit - MOST_CREDIT + plan.paid).abs() < 1e-9);
    speculation.withdraw(&mut plan);
    assert_eq!((plan.lengths.as_slice(), speculation.credit), (&[0][..], MOST_CREDIT));
    // A search that costs more than is earned is left out until it is paid for.
    let mut speculation = Speculation::new(RunCosts::measured());
    let mut progress = Progress::new(1);
    let mut run = |speculation: &mut Speculation| {
        progress.said(0, 1);
        speculation.settle(&Plan::plain(1), 1e-3, &mut progress, |_| false);
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
    progress.said(0, 5);
    progress.said(1, 1);
    assert_eq!(progress.since(&costs, over), 1.5, "both are one token further");
    progress.said(1, 2);
    assert_eq!(progress.since(&costs, over), 3.0);
    // One that begins later begins where the others are.
    progress.said(2, 1);
    assert_eq!(progress.since(&costs, over), 0.0);
    progress.said(1, 1);
    assert_eq!(progress.since(&costs, over), 2.0, "three went on");
    // Where one is over, the others count; where all are, what they said.
    progress.said(2, 9);
    assert_eq!(progress.since(&costs, |answer| answer == 1), 1.5);
    assert_eq!(progress.since(&costs, |_| true), 8.0);
}
