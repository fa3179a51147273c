//! The form of the prompt in manifests: what is not known is refused, and the others shape the context.

use super::{Copy, example, open};
use anatomix::{Radiograph, Study};
use serde_json::{Value, json};

fn with_prompt(prompt: Value) -> Copy {
    let copy = Copy::new();
    copy.describe(|manifest| manifest["prompt"] = prompt);
    copy
}

fn study(prompt: Value) -> Study {
    let engine = open(with_prompt(prompt).0.path()).unwrap();
    engine.study(&Radiograph::open(example("phantom.dcm")).unwrap()).unwrap()
}

#[test]
fn forms_that_cannot_be_used_are_refused() {
    let cases: [(Value, &[&str]); 14] = [
        (json!({ "version": 2, "inputs": "" }), &["manifest.json", "inputs are \"\"", "in this order"]),
        (json!({ "version": 2, "inputs": "VX" }), &["inputs are \"VX\"", "V (image tokens), O (object embeddings), S (sentences)"]),
        (json!({ "version": 2, "inputs": "BV" }), &["inputs are \"BV\""]),
        (json!({ "version": 2, "inputs": "VOSB\n".repeat(30_000) }), &["manifest.json", "in this order"]),
        (json!({ "version": 2, "inputs": 15 }), &["manifest.json", "another type"]),
        (json!({ "version": 2, "compact": "yes" }), &["manifest.json", "another type"]),
        (json!({ "version": 2, "pool": 0 }), &["prompt.pool is 0"]),
        (json!({ "version": 2, "pool": 3 }), &["prompt.pool is 3", "64 patches"]),
        (json!({ "version": 2, "pool": u64::MAX }), &["prompt.pool is 18446744073709551615", "between 1 and 32"]),
        (json!({ "version": 2, "system": "" }), &["prompt.system is empty"]),
        (json!({ "version": 2, "system": "x".repeat(5000) }), &["prompt.system has 5000 bytes, more than 4096"]),
        (json!({ "version": 2, "system": "See <image>." }), &["the system prompt", "<image>"]),
        (json!({ "version": 1, "compact": true }), &["prompt.version is 1, but its form needs version 2"]),
        (json!({ "version": 3 }), &["version 3 of the prompt", "supports version 2", "update the SDK"]),
    ];
    for (prompt, parts) in cases {
        with_prompt(prompt).refused(parts);
    }
}

/// The projector of the reference bundle gives a row for each patch.
#[test]
fn pooling_that_the_projector_does_not_do_is_an_error_of_the_question() {
    let error = study(json!({ "version": 2, "pool": 2 })).ask("Where is the left lung?").unwrap_err().full_message();
    assert!(error.contains("visual_features"), "{error}");
}

#[test]
fn the_form_shapes_the_context() {
    let question = "Where is the left lung?";
    let tokens = |prompt: Value| {
        let mut study = study(prompt);
        let answer = study.ask(question).unwrap();
        let saved = study.save().unwrap();
        assert!(!saved.is_empty() && answer.prefilled > 10);
        answer.prefilled
    };
    let published = tokens(json!({ "version": 1 }));
    assert_eq!(tokens(json!({ "version": 2, "inputs": "VOSB", "compact": false, "pool": 1 })), published);
    let form = |inputs: &str, compact: bool| {
        let count = tokens(json!({ "version": 2, "inputs": inputs, "compact": compact }));
        println!("{inputs}{}: {count} tokens of context and question", if compact { ", compact" } else { "" });
        count
    };
    let [all, ..] = ["VOSB", "VOS", "VOB", "VSB"].map(|inputs| form(inputs, false));
    let [image, objects, boxes, sentences] = ["V", "VO", "VB", "VS"].map(|inputs| form(inputs, false));
    // 64 image tokens; three tokens of each structure's embedding and a word; more for its box.
    assert!(
        image > 64 && image < 100 && objects > image + 4 * 36 && boxes > objects && sentences > image && all > boxes && all == published
    );
    assert!(form("VOSB", true) < published * 3 / 4 && form("SB", true) < form("SB", false));
    assert!(form("O", true) < form("O", false) && form("V", true) < image);
    assert!(tokens(json!({ "version": 2, "system": "Some findings may be wrong." })) > published + 4);
}
