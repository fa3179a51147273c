//! Prompt look-up decoding gives the answers of plain greedy decoding in fewer runs of the decoder, whichever drafts are verified.
//! Questions that are asked together give the same answers, too, and so does unconstrained decoding, unless the model breaks the form of an
//! answer.
//!
//! `ANATOMIX_TEST_BUNDLE` replaces the reference bundle: `make test-trainer` runs this test with one in int4.

use anatomix::{Answer, Engine, Finish, Grounding, Provider, Question, Radiograph, Sampling, Structure, Task};
use std::path::Path;

/// How drafts are chosen.
#[derive(Clone, Copy)]
enum Drafts {
    None,
    /// By the costs that the engine measures, so that the number of runs depends on the machine.
    Measured,
    /// By a given cost of a row, so that the number of runs is the same on every machine.
    ByCost(f32),
}

/// About the cost of a row with the reference bundle on a CPU.
const USUAL: Drafts = Drafts::ByCost(0.15);
/// Rows cost nothing, so that all draft tokens are verified.
const FREE: Drafts = Drafts::ByCost(0.0);

fn engine(drafts: Drafts) -> Engine {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Relative to the repository.
    let bundle = std::env::var("ANATOMIX_TEST_BUNDLE").unwrap_or_else(|_| "examples/reference-bundle".into());
    let builder = Engine::builder().provider(Provider::Cpu).look_up(!matches!(drafts, Drafts::None));
    let builder = if let Drafts::ByCost(row) = drafts { builder.draft_cost(row) } else { builder };
    builder.open(root.join(bundle)).unwrap()
}

/// The phantom, its mirror image, parts of it and a darker one: five studies that are answered differently.
fn radiographs() -> Vec<Radiograph> {
    let phantom = Radiograph::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm")).unwrap();
    let pixels = phantom.intensities().unwrap();
    let (height, width) = pixels.dim();
    let part = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, gamma: f32| {
        let size = (columns.len() as u32, rows.len() as u32);
        let part = rows.flat_map(|y| columns.clone().map(move |x| (y, x)));
        let part: Vec<u8> = part.map(|at| (pixels[at].powf(gamma) * 255.0) as u8).collect();
        Radiograph::from_pixels_u8(size.0, size.1, &part).unwrap()
    };
    let parts =
        [part(height / 8..height, 0..width, 1.0), part(0..height * 7 / 8, width / 10..width, 1.5), part(0..height, 0..width * 9 / 10, 3.0)];
    [phantom.mirrored().unwrap(), phantom.clone()].into_iter().chain(parts).collect()
}

fn questions() -> Vec<Question> {
    let forms = ["Where is the {}?", "What does the {} show?", "Is the {} healthy?"];
    let of = |structure: Structure| forms.map(|form| Question::new(form.replace("{}", &structure.name().to_lowercase())));
    let tasks = [Task::Report, Task::Classification, Task::AbnormalityDetection, Task::Report].map(Question::from);
    let cut = (1..5).map(|limit| Question::new("Locate the heart.").max_tokens(limit));
    Structure::all().flat_map(of).chain(tasks).chain(cut).collect()
}

/// What must be equal in equal answers.
fn essentials(answer: &Answer) -> (&str, &[Grounding], usize, Finish) {
    (&answer.raw, &answer.groundings, answer.tokens, answer.finish)
}

/// Asserts that two answers have the same tokens with the same log probabilities. In 4 bits, these differ by more, because kernels do.
fn assert_same(plain: &Answer, quick: &Answer) {
    assert_eq!(essentials(plain), essentials(quick), "{:?}", plain.question);
    let allowed = if plain.provenance.precision.starts_with("int") { 0.2 } else { 2e-3 };
    for (token, (a, b)) in plain.log_probabilities.iter().zip(&quick.log_probabilities).enumerate() {
        assert!((a - b).abs() < allowed, "{:?}: token {token} at {a} and {b}", plain.question);
    }
}

fn boxes(answer: &Answer) -> usize {
    answer.groundings.iter().map(|grounding| grounding.boxes.len()).sum()
}

#[test]
fn answers_are_those_of_plain_decoding() {
    let (plain, quick) = (engine(Drafts::None), engine(USUAL));
    let (mut asked, mut tokens, mut runs, mut grounded, mut completed) = (0, 0, 0, [0; 2], 0);
    for radiograph in radiographs() {
        let [mut a, mut b, mut free] = [&plain, &quick, &quick].map(|engine| engine.study(&radiograph).unwrap());
        for question in questions() {
            let question = question.log_probabilities();
            let (a, b) = (a.ask(question.clone()).unwrap(), b.ask(question.clone()).unwrap());
            assert_same(&a, &b);
            let free = free.ask(question.clone().unconstrained()).unwrap();
            if essentials(&free) != essentials(&b) {
                // The grammar completes boxes and phrases that the unconstrained model leaves incomplete.
                assert!(boxes(&free) <= boxes(&b), "{question:?}: {:?} instead of {:?}", essentials(&free), essentials(&b));
                completed += 1;
            }
            assert_eq!(a.runs, a.tokens - usize::from(a.finish == Finish::MaxTokens), "plain decoding runs once a token");
            asked += 1;
            (tokens, runs) = (tokens + a.runs, runs + b.runs);
            if !a.groundings.is_empty() {
                grounded = [grounded[0] + a.runs, grounded[1] + b.runs];
            }
        }
    }
    println!(
        "{asked} questions: {tokens} runs plain, {runs} with look-up; of grounded answers {grounded:?}; \
         {completed} completed by the grammar"
    );
    assert!(completed * 100 < asked && asked >= 500 && runs * 3 < tokens * 2 && grounded[1] * 2 < grounded[0]);
}

#[test]
fn answers_together_are_those_of_plain_decoding() {
    let (plain, quick) = (engine(Drafts::None), engine(FREE));
    let (mut asked, mut tokens, mut runs) = (0, 0, 0);
    for radiograph in radiographs() {
        let (mut a, mut b) = (plain.study(&radiograph).unwrap(), quick.study(&radiograph).unwrap());
        // More than are decoded at a time, fewer, two.
        for questions in [&questions()[..40], &questions()[40..49], &questions()[108..110], &questions()[100..]] {
            let together = b.ask_many(questions.to_vec()).unwrap();
            assert_eq!(together.len(), questions.len());
            for (question, b) in questions.iter().zip(&together) {
                let a = a.ask(question.clone()).unwrap();
                assert_eq!(essentials(&a), essentials(b), "{question:?}");
                asked += 1;
                (tokens, runs) = (tokens + a.runs, runs + b.runs);
            }
        }
    }
    println!("{asked} questions together: each has a part in {runs} runs, {tokens} plain");
    assert!(asked > 300 && runs < tokens);
}

#[test]
fn conversations_and_penalties_are_those_of_plain_decoding() {
    let engines = [Drafts::None, USUAL, FREE, Drafts::Measured].map(engine);
    let mut runs = [0; 4];
    for radiograph in &radiographs()[..2] {
        let mut studies = engines.each_ref().map(|engine| engine.study(radiograph).unwrap());
        let penalties = [1.0, 1.3, 0.8].into_iter().cycle();
        for (number, (mut question, repetition_penalty)) in questions().into_iter().take(75).zip(penalties).enumerate() {
            question.follow_up = number % 5 > 0;
            let question = question.sampling(Sampling { repetition_penalty, ..Sampling::default() }).log_probabilities().max_tokens(80);
            let answers = studies.each_mut().map(|study| study.ask(question.clone()).unwrap());
            answers[1..].iter().for_each(|answer| assert_same(&answers[0], answer));
            runs.iter_mut().zip(&answers).for_each(|(runs, answer)| *runs += answer.runs);
        }
        assert!(studies.iter().all(|study| study.turns() == studies[0].turns()));
    }
    println!("{runs:?} runs plain and with look-up");
    assert!(runs[2] <= runs[1] && runs[1] * 10 < runs[0] * 9);
}

#[test]
fn given_costs_give_the_same_runs() {
    let radiograph = &radiographs()[0];
    let run = || {
        let engine = engine(USUAL);
        let mut study = engine.study(radiograph).unwrap();
        let answers = questions().into_iter().take(30).map(|question| study.ask(question.log_probabilities()).unwrap());
        answers.map(|answer| (answer.runs, answer.log_probabilities)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
