//! Constrained decoding: answers keep their form, also when tokens are sampled at a high temperature.

use anatomix::error::QuestionError;
use anatomix::{Answer, Engine, Error, Finish, Provider, Question, Radiograph, Sampling, Study, Task};
use serde_json::Value;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn study() -> Study {
    let engine = Engine::builder().provider(Provider::Cpu).open(root().join("examples/reference-bundle")).unwrap();
    engine.study(&Radiograph::open(root().join("examples/phantom.dcm")).unwrap()).unwrap()
}

fn wild(question: impl Into<Question>, seed: u64) -> Question {
    question.into().sampling(Sampling { temperature: 4.0, seed, ..Sampling::default() }).max_tokens(200)
}

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "side": {"enum": ["left", "right", "<both>"]},
        "severity": {"type": "integer", "minimum": 0, "maximum": 10},
        "structures": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 3}
    },
    "required": ["side", "severity", "structures"],
    "additionalProperties": false
}"#;

fn check(answer: &Answer) {
    assert_eq!(answer.finish, Finish::EndOfTurn, "{}", answer.text);
    let value: Value = serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{e}: {}", answer.text));
    assert!(["left", "right", "<both>"].contains(&value["side"].as_str().unwrap()), "{value}");
    assert!(value["severity"].as_u64().unwrap() <= 10, "{value}");
    let structures = value["structures"].as_array().unwrap();
    assert!((1..=3).contains(&structures.len()), "{value}");
    assert!(structures.iter().all(|s| s.as_str().unwrap().chars().count() <= 12), "{value}");
    assert_eq!(value.as_object().unwrap().len(), 3);
}

#[test]
fn drawn_answers_are_well_formed() {
    let mut study = study();
    let (mut boxes, mut odd) = (0, 0);
    let (width, height) = (study.width() as f32, study.height() as f32);
    for seed in 0..12 {
        let question = wild("Where is the left lung?", seed);
        let answer = study.ask(question.clone()).unwrap();
        assert!(answer.provenance.decoding.ends_with(", grounded, max_tokens 200, look_up on"), "{}", answer.provenance.decoding);
        // An unclosed tag would stay in the text or remove the text after it.
        for tag in ["<ref", "</ref", "<box", "</box", "<obj_", "<image", "<emb", "<eos", "<start_of_turn", "<pad"] {
            assert!(!answer.text.contains(tag), "{}", answer.text);
        }
        for grounding in &answer.groundings {
            assert!(!["<ref", "<box", "</"].iter().any(|tag| grounding.phrase.contains(tag)), "{grounding:?}");
            boxes += grounding.boxes.len();
            for b in &grounding.boxes {
                assert!([b.x0, b.x1].iter().all(|x| (0.0..=width).contains(x)) && [b.y0, b.y1].iter().all(|y| (0.0..=height).contains(y)));
            }
        }
        let free = study.ask(question.unconstrained()).unwrap();
        assert!(free.provenance.decoding.ends_with(", unconstrained, max_tokens 200, look_up on"), "{}", free.provenance.decoding);
        odd += usize::from(free.text.contains("<obj_") || free.text.contains("<image") || free.text.contains("<emb"));
    }
    println!("{boxes} boxes; {odd} of 12 unconstrained answers hold control tokens");
    assert!(boxes > 0 && odd > 0, "{boxes} boxes, {odd} odd answers: this test sees nothing");
}

#[test]
fn answers_are_json_where_a_schema_says_so() {
    let mut study = study();
    let question = || Question::new("Where is the abnormality?").json_schema(SCHEMA);
    let mut pieces = String::new();
    let greedy = study.ask_streaming(question().max_tokens(200), |piece| {
        pieces.push_str(piece);
        anatomix::Flow::Continue
    });
    let greedy = greedy.unwrap();
    check(&greedy);
    assert_eq!(pieces, greedy.text);
    assert_eq!(greedy.provenance.decoding, "greedy, JSON by schema, max_tokens 200, look_up on");
    for seed in 0..20 {
        check(&study.ask(wild(question(), seed)).unwrap());
    }
    // A limit may cut the JSON.
    let cut = study.ask(question().max_tokens(5)).unwrap();
    assert_eq!(cut.finish, Finish::MaxTokens);
    assert!(greedy.text.starts_with(&cut.text) && serde_json::from_str::<Value>(&cut.text).is_err());
    // A later question without a schema is answered as text.
    assert!(study.ask(Task::Report).unwrap().text.len() > 20);
}

#[test]
fn json_is_the_same_with_and_without_look_up() {
    let open = |look_up| {
        let builder = Engine::builder().provider(Provider::Cpu).look_up(look_up).draft_cost(0.1);
        let engine = builder.open(root().join("examples/reference-bundle")).unwrap();
        engine.study(&Radiograph::open(root().join("examples/phantom.dcm")).unwrap()).unwrap()
    };
    let (mut plain, mut quick) = (open(false), open(true));
    for text in ["Where is the left lung?", "Is the heart enlarged?", "What does the trachea show?"] {
        for _ in 0..2 {
            let [a, b] = [&mut plain, &mut quick].map(|study| study.ask(Question::new(text).json_schema(SCHEMA)).unwrap());
            assert_eq!((&a.text, a.tokens, a.finish), (&b.text, b.tokens, b.finish));
            assert!(b.runs <= a.runs);
        }
    }
}

#[test]
fn a_schema_that_cannot_be_used_is_refused_before_anything_is_computed() {
    let mut study = study();
    let first = study.ask("Where is the left lung?").unwrap();
    let error = study.ask(Question::new("Where?").follow_up().json_schema(r#"{"type": "objekt"}"#)).unwrap_err();
    assert!(matches!(error, Error::Question(QuestionError::Schema { .. })), "{error}");
    assert!(error.to_string().starts_with("the answer's JSON schema cannot be used: "), "{error}");
    assert_eq!(study.turns(), 1, "the conversation is as it was");
    assert_eq!(study.ask("Where is the left lung?").unwrap().text, first.text);
}
