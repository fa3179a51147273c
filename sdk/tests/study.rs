//! A study over the reference bundle: its context is computed once, and nothing of one question is left for the next.

use anatomix::{Answer, Engine, Finish, Flow, Provider, Question, Radiograph, Sampling, Study, Task};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

const QUESTIONS: [&str; 3] = ["Where is the left lung?", "Is there a pleural effusion?", "What does the left lung show?"];

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle");
    Engine::builder().provider(Provider::Cpu).open(bundle).unwrap()
});

fn study() -> Study {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm");
    ENGINE.study(&Radiograph::open(image).unwrap()).unwrap()
}

fn said(answer: Answer) -> (String, Vec<anatomix::Grounding>, usize) {
    (answer.text, answer.groundings, answer.tokens)
}

#[test]
fn answers_do_not_depend_on_what_was_asked_before() {
    let mut kept = study();
    let report = said(kept.ask(Task::Report).unwrap());
    for question in QUESTIONS {
        assert_eq!(said(kept.ask(question).unwrap()), said(study().ask(question).unwrap()), "{question}");
    }
    assert_eq!(said(kept.ask(Task::Report).unwrap()), report);
}

#[test]
fn the_context_is_computed_with_the_first_question() {
    let mut study = study();
    let mut prefilled = |question| study.ask(question).unwrap().prefilled;
    let (first, second) = (prefilled(QUESTIONS[0]), prefilled(QUESTIONS[0]));
    assert!(first > 1000 && second < 30, "{first} tokens, then {second}");
    assert_eq!(prefilled(QUESTIONS[1]) + first - second, self::study().ask(QUESTIONS[1]).unwrap().prefilled);
}

#[test]
fn a_question_that_needs_more_room_gets_it() {
    let mut small = study();
    small.ask(QUESTIONS[1]).unwrap();
    let long = Question::new(QUESTIONS[0]).max_tokens(700);
    assert_eq!(said(small.ask(long.clone()).unwrap()), said(study().ask(long).unwrap()));
    let error = small.ask("very ".repeat(1200)).unwrap_err().to_string();
    assert!(error.contains("ask something shorter"), "{error}");
    // The refused question has cost nothing.
    assert_eq!(said(small.ask(QUESTIONS[1]).unwrap()), said(study().ask(QUESTIONS[1]).unwrap()));
}

#[test]
fn pieces_add_up_and_a_listener_may_stop() {
    let mut study = study();
    let mut pieces = String::new();
    let whole = study
        .ask_streaming(Task::Report, |piece| {
            pieces.push_str(piece);
            Flow::Continue
        })
        .unwrap();
    assert_eq!((pieces, whole.finish), (whole.text.clone(), Finish::EndOfTurn));
    let stopped = study.ask_streaming(Task::Report, |_| Flow::Stop).unwrap();
    assert_eq!(stopped.finish, Finish::Stopped);
    assert!(whole.text.starts_with(&stopped.text) && stopped.text.len() < whole.text.len());
    let cut = study.ask(Question::from(Task::Report).max_tokens(3)).unwrap();
    assert_eq!((cut.finish, cut.tokens), (Finish::MaxTokens, 3));
}

#[test]
fn threads_share_an_engine() {
    let alone = said(study().ask(QUESTIONS[0]).unwrap());
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| said(study().ask(QUESTIONS[0]).unwrap()))).collect();
        for other in others {
            assert_eq!(other.join().unwrap(), alone);
        }
    });
}

#[test]
fn a_text_ends_an_answer() {
    let mut study = study();
    let whole = study.ask(Task::Report).unwrap();
    let (before, _) = whole.text.split_once("Impression").expect("a report has an impression");
    let mut pieces = String::new();
    let cut = study.ask_streaming(Question::from(Task::Report).stop("never said").stop("Impression"), |piece| {
        pieces.push_str(piece);
        Flow::Continue
    });
    let cut = cut.unwrap();
    assert_eq!((cut.text.as_str(), cut.finish), (before, Finish::StopText));
    assert_eq!(pieces, before);
    let other = study.ask(Question::from(Task::Report).stop("never said")).unwrap();
    assert_eq!(said(other), said(whole));
}

#[test]
fn an_answer_ends_when_its_time_is_over() {
    let mut study = study();
    let answer = study.ask(Question::from(Task::Report).deadline(Duration::ZERO)).unwrap();
    assert_eq!((answer.finish, answer.tokens), (Finish::Deadline, 1));
    let answer = study.ask(Question::from(Task::Report).deadline(Duration::from_secs(3600))).unwrap();
    assert_eq!(answer.finish, Finish::EndOfTurn);
}

#[test]
fn tokens_tell_how_probable_they_were() {
    let mut study = study();
    assert!(study.ask(QUESTIONS[0]).unwrap().log_probabilities.is_empty());
    let answer = study.ask(Question::new(QUESTIONS[0]).log_probabilities()).unwrap();
    assert_eq!(answer.log_probabilities.len(), answer.tokens);
    assert!(answer.log_probabilities.iter().all(|&p| p <= 0.0 && p.is_finite()), "{:?}", answer.log_probabilities);
    // What greedy decoding says is likely.
    assert!(answer.log_probabilities[0] > 0.5f32.ln(), "{:?}", answer.log_probabilities);
}

#[test]
fn a_seed_draws_an_answer() {
    let mut study = study();
    let mut draw = |temperature, seed| {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        study.ask(Question::from(Task::Report).sampling(sampling).max_tokens(40)).unwrap()
    };
    let greedy = draw(0.0, 1);
    assert_eq!(greedy.provenance.decoding, "greedy");
    assert_eq!(said(draw(1e-3, 1)), said(greedy.clone()), "almost no freedom");
    let (a, b, again) = (draw(3.0, 1), draw(3.0, 2), draw(3.0, 1));
    assert_eq!(a.provenance.decoding, "sampled, temperature 3, top_k 0, top_p 1, seed 1");
    assert_eq!(said(a.clone()), said(again));
    assert_ne!(a.text, b.text);
    let one = Sampling { temperature: 3.0, top_k: 1, ..Sampling::default() };
    let only = study.ask(Question::from(Task::Report).sampling(one).max_tokens(40)).unwrap();
    assert_eq!(said(only), said(greedy), "one candidate");
    let error = study.ask(Question::from(Task::Report).sampling(Sampling { top_p: 2.0, ..one })).unwrap_err().to_string();
    assert_eq!(error, "top_p is 2, but must be above 0 to 1");
}
