//! A study over the reference bundle: its context is computed once, and nothing of one question is left for the next.

use anatomix::{Answer, Engine, Finish, Flow, Provider, Question, Radiograph, Study, Task};
use std::path::Path;
use std::sync::LazyLock;

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
