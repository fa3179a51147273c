//! Files of questions for other models.

use super::groups::Condition;
use super::journal::Record;
use super::shown::Shown;
use crate::predictions::file::{asked, key};
use crate::predictions::form::Form;
use crate::predictions::lines;
use anatomix::output::write_whole;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A line of a file that may be replaced has no answer.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "sample")]
    _sample: String,
    answer: Option<IgnoredAny>,
}

/// The file of questions in a form. The journals of the measurement, in the same folder, are named after conditions.
fn path(out: &Path, form: Form) -> PathBuf {
    out.join(format!("{}.jsonl", form.name()))
}

/// Checks that the file of questions in a form is not there, or has no answers, which would be lost.
///
/// # Errors
/// If it has answers, or is another file.
pub fn ensure_replaceable(out: &Path, form: Form) -> Result<()> {
    let path = path(out, form);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let unanswered = |Line { answer, .. }, _| {
        ensure!(answer.is_none(), "the question has an answer");
        Ok(())
    };
    lines::read(&path, unanswered).with_context(|| {
        format!("--form {} would replace {}; move that file, or leave the option out to score its answers", form.name(), path.display())
    })
}

/// Writes the questions on images as they are and on mirrored ones in the form of another model, without answers. The bundle's own are
/// beside them under another key.
///
/// # Errors
/// As [`ensure_replaceable`], or if the file cannot be written.
pub fn write(out: &Path, form: Form, shown: &[Shown], kept: &BTreeMap<Condition, Vec<Record>>) -> Result<()> {
    let mut lines = Vec::new();
    for own in shown.iter().filter(|own| own.condition != Condition::Unmarked) {
        let answers = kept.get(&own.condition).into_iter().flatten().flat_map(|record| &record.answers);
        let given: HashMap<&str, &str> = answers.map(|own| (own.sample.as_str(), own.raw.as_str())).collect();
        for case in &own.cases {
            for sample in &case.samples {
                let answer = given.get(key(sample, own.mirrored()).as_str()).copied().unwrap_or_default();
                serde_json::to_writer(&mut lines, &asked(&case.image, &case.path, sample, own.mirrored(), answer, form))?;
                lines.push(b'\n');
            }
        }
    }
    // Answers may have been filled in while the bundle was measured.
    ensure_replaceable(out, form)?;
    Ok(write_whole(path(out, form), &lines)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("radvlm.jsonl");
        let check = || ensure_replaceable(folder.path(), Form::RadVlm).map_err(|error| format!("{error:#}"));
        check().unwrap();
        let question = r#"{"sample": "0123456789abcdef", "question": "Where?", "bundle_answer": "here"}"#;
        for unanswered in [question, r#"{"sample": "0123456789abcdef", "answer": null}"#] {
            std::fs::write(&file, unanswered).unwrap();
            check().unwrap();
        }
        for kept in [r#"{"sample": "0123456789abcdef", "answer": "there"}"#, "notes", r#"["sample"]"#, r#"{"text": "mine"}"#, ""] {
            std::fs::write(&file, format!("{question}\n{kept}\n").trim_start_matches(if kept.is_empty() { question } else { "" })).unwrap();
            let error = check().unwrap_err();
            assert!(error.contains("--form radvlm would replace") && error.contains("radvlm.jsonl"), "{kept}: {error}");
        }
    }
}
