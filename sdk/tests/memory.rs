//! Memory of studies: `study_bytes` is enough, and what exceeds the budget is refused or cut.

use anatomix::{Engine, Finish, Provider, Question, Radiograph, Study, Task};
use std::path::Path;
use std::sync::LazyLock;

const QUESTION: &str = "Where is the left lung?";

fn open(memory: Option<u64>) -> Engine {
    open_with(memory, true)
}

fn open_with(memory: Option<u64>, look_up: bool) -> Engine {
    // How many runs an answer takes does not depend on this machine.
    let builder = Engine::builder().provider(Provider::Cpu).golden_check(false).look_up(look_up).draft_cost(0.1);
    let builder = memory.into_iter().fold(builder, anatomix::EngineBuilder::memory_limit);
    builder.open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle")).unwrap()
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| open(None));
static PHANTOM: LazyLock<Radiograph> =
    LazyLock::new(|| Radiograph::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm")).unwrap());

fn study(engine: &Engine) -> Study {
    engine.study(&PHANTOM).unwrap()
}

/// A question whose answer does not end by itself.
fn long() -> Question {
    let schema = r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2000}"#;
    Question::new("What does the heart show?").json_schema(schema).max_tokens(900)
}

#[test]
fn the_price_of_a_study_is_enough_for_it() {
    let answer = study(&ENGINE).ask(QUESTION).unwrap();
    // The prefilled tokens and those of the longest answer.
    let tokens = answer.prefilled + 512;
    for tokens in [tokens, tokens + 1, tokens + 77, tokens + 300] {
        let price = ENGINE.study_bytes(tokens);
        assert_eq!(study(&open(Some(price))).ask(QUESTION).unwrap().text, answer.text, "{tokens}");
        assert!(study(&open(Some(price / 2))).ask(QUESTION).is_err(), "{tokens}");
    }
}

#[test]
fn the_price_is_enough_for_long_answers_side_by_side() {
    let tokens = study(&ENGINE).ask(long().max_tokens(1)).unwrap().prefilled + 900;
    // Three studies, whose caches grow while they are asked, share what they cost.
    let engine = open(Some(3 * ENGINE.study_bytes(tokens)));
    let mut studies = [0; 3].map(|_| study(&engine));
    for study in &mut studies {
        let answer = study.ask(long()).unwrap();
        assert_eq!((answer.finish, answer.tokens), (Finish::MaxTokens, 900), "{tokens} tokens");
    }
    // A conversation costs what its text does.
    let tokens = tokens + study(&ENGINE).ask(long().max_tokens(1)).unwrap().prefilled.min(60) + 100;
    let engine = open(Some(ENGINE.study_bytes(tokens)));
    let mut study = study(&engine);
    assert_eq!(study.ask(long()).unwrap().finish, Finish::MaxTokens);
    assert_eq!(study.ask(long().max_tokens(100).follow_up()).unwrap().finish, Finish::MaxTokens);
}

#[test]
fn studies_share_the_limit() {
    let engine = open(Some(ENGINE.study_bytes(2048)));
    let [mut one, mut two] = [0, 1].map(|_| study(&engine));
    one.ask(QUESTION).unwrap();
    let error = two.ask(QUESTION).unwrap_err().to_string();
    assert!(error.contains("free a study"), "{error}");
    drop(one);
    two.ask(QUESTION).unwrap();
    // Answers that do not fit into the budget together wait for each other.
    let many = || std::iter::repeat_n(Question::from(Task::Report), 24);
    let answers = two.ask_many(many()).unwrap();
    assert!(answers.iter().all(|answer| answer.finish == Finish::EndOfTurn && answer.text == answers[0].text));
}

#[test]
fn a_cache_grows_by_what_there_is() {
    let first = Question::new(QUESTION).max_tokens(300);
    let needed = study(&ENGINE).ask(first.clone()).unwrap().prefilled + 512;
    // The budget is exactly what the second question needs. Growing by a quarter of the first capacity would exceed it.
    let engine = open(Some(ENGINE.study_bytes(needed)));
    let mut study = study(&engine);
    study.ask(first).unwrap();
    let whole = study.ask(Question::new(QUESTION)).unwrap();
    assert_eq!(whole.text, self::study(&ENGINE).ask(QUESTION).unwrap().text);
}

#[test]
fn a_draft_ends_no_answer() {
    let price = ENGINE.study_bytes(study(&ENGINE).ask(long().max_tokens(1)).unwrap().prefilled + 512);
    let [plain, quick] = [false, true].map(|look_up| open_with(Some(price), look_up));
    let [mut plain, mut quick] = [&plain, &quick].map(study);
    // The answer repeats earlier text, so that draft tokens are accepted.
    let schema = r#"{"type": "array", "items": {"const": "left lung and right lung"}, "minItems": 500}"#;
    let same = Question::new("What does the heart show?").json_schema(schema);
    let [a, b] = [&mut plain, &mut quick].map(|study| {
        study.ask(same.clone().max_tokens(300)).unwrap();
        study.ask(same.clone().max_tokens(900)).unwrap()
    });
    assert_eq!((a.finish, a.tokens, &a.raw), (b.finish, b.tokens, &b.raw));
    assert!(a.finish == Finish::Memory && b.runs * 2 < a.runs, "{} runs instead of {}", b.runs, a.runs);
    // Questions that are asked together wait for each other, which does not change their answers.
    let many = || std::iter::repeat_n(Question::from(Task::Report), 20).chain([long()]);
    let together = [&mut plain, &mut quick].map(|study| study.ask_many(many()).unwrap());
    for (a, b) in together[0].iter().zip(&together[1]) {
        assert_eq!((a.finish, a.tokens, &a.raw), (b.finish, b.tokens, &b.raw));
    }
}

#[test]
fn a_question_that_there_is_no_room_for_changes_nothing() {
    let price = ENGINE.study_bytes(study(&ENGINE).ask(QUESTION).unwrap().prefilled + 512);
    let engine = open(Some(price));
    let mut study = study(&engine);
    let first = study.ask(QUESTION).unwrap();
    let wordy = "Where is the left lung? ".repeat(40);
    assert!(study.ask(wordy.as_str()).unwrap_err().to_string().contains("ask fewer questions"));
    assert_eq!(study.turns(), 1);
    // Among several questions only the one that needs too much memory ends without an answer. Its position does not matter, nor whether
    // the context is prefilled already.
    let short = || Question::new(QUESTION).max_tokens(20);
    let wordy = || Question::new(wordy.repeat(4));
    for (at, fresh) in [(1, false), (0, true), (0, false), (2, true)] {
        let mut questions = vec![short(), short()];
        questions.insert(at, wordy());
        if fresh {
            drop(study);
            study = self::study(&engine);
        }
        let answers = study.ask_many(questions).unwrap();
        for (number, answer) in answers.iter().enumerate() {
            let expected = if number == at { (Finish::Memory, 0, "") } else { (first.finish, first.tokens, first.text.as_str()) };
            assert_eq!((answer.finish, answer.tokens, answer.text.as_str()), expected, "{number} of {at}");
        }
    }
    assert!(study.ask_many([wordy(), wordy()]).unwrap_err().to_string().contains("ask fewer questions"));
}

#[test]
fn an_answer_that_needs_more_ends_as_far_as_it_has_come() {
    let free = study(&ENGINE).ask(long()).unwrap();
    let price = ENGINE.study_bytes(study(&ENGINE).ask(long().max_tokens(1)).unwrap().prefilled + 512);
    let engine = open(Some(price));
    let mut study = study(&engine);
    let mut pieces = String::new();
    let cut = study.ask_streaming(long(), |piece| {
        pieces.push_str(piece);
        anatomix::Flow::Continue
    });
    let cut = cut.unwrap();
    assert_eq!((cut.finish, free.finish), (Finish::Memory, Finish::MaxTokens));
    assert!(cut.tokens >= 512 && free.raw.starts_with(&cut.raw) && pieces == cut.text, "{} tokens", cut.tokens);
    // Each of several answers ends for its own reason.
    let together = study.ask_many([long(), Question::new(QUESTION), long()]).unwrap();
    assert_eq!(together.iter().map(|answer| answer.finish).collect::<Vec<_>>(), [Finish::Memory, Finish::EndOfTurn, Finish::Memory]);
    assert_eq!(together[1].text, self::study(&ENGINE).ask(QUESTION).unwrap().text);
    assert_eq!(study.ask(QUESTION).unwrap().text, together[1].text);
}
