//! Sources of errors: what a dependency said is told once, and bounded.

use super::{Copy, open, replaced};
use anatomix::Error;
use anatomix::error::{BundleError, RuntimeError};
use serde_json::json;
use std::error::Error as _;

/// Checks that the source is about `told`, once, that the message is not, and that a terminal can show both.
fn check_cause(error: &Error, told: &str) {
    let sources: Vec<String> = std::iter::successors(error.source(), |&source| source.source()).map(ToString::to_string).collect();
    let (message, full) = (error.to_string(), error.full_message());
    assert!(sources.len() == 1 && sources[0].contains(told), "{sources:?}");
    assert_eq!(error.causes().as_deref(), Some(sources[0].as_str()));
    assert!(message.contains("; ") && !message.contains(told), "{message}");
    assert_eq!(full.matches(told).count(), 1, "{full}");
    assert_eq!(full.matches(&sources[0]).count(), 1, "{full}");
    assert!(sources[0].chars().count() <= 240 && !full.contains(char::is_control), "{full:?}");
}

#[test]
fn onnx_runtimes_error_is_the_source() {
    let copy = Copy::new();
    copy.replace("projector.onnx", &replaced(&copy.read("projector.onnx"), "MatMul", "MatMux"));
    let error = open(copy.0.path()).err().expect("accepted");
    assert!(matches!(error, Error::Runtime(RuntimeError::Graph { .. })), "{error:?}");
    check_cause(&error, "This is an invalid model");
}

#[test]
fn the_parsers_error_is_the_source() {
    let refused = |key: &str, value: serde_json::Value, told: &str| {
        let copy = Copy::new();
        copy.describe(|manifest| manifest["preprocess"][key] = value);
        let error = open(copy.0.path()).err().expect("accepted");
        assert!(matches!(error, Error::Bundle(BundleError::Manifest { .. })), "{error:?}");
        check_cause(&error, told);
    };
    refused("size", json!("eight"), "invalid type");
    // 300 kB with escape sequences.
    refused("histogram", json!("\u{1b}[31m\u{202e}red\n".repeat(30_000)), "unknown variant");
}
