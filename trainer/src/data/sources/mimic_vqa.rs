//! MIMIC-CXR-VQA: `{train,valid,test}.json`, an entry for each question on an image of MIMIC-CXR-JPG.

use super::array;
use super::files;
use super::skipped::{Reason, Skipped};
use super::split::Split;
use super::text;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A question on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MimicQuestion {
    /// Identifier of the image in MIMIC-CXR.
    pub image: String,
    /// The question.
    pub question: String,
    /// The answers; empty for none.
    pub answers: Vec<String>,
    /// Whether the answer is yes, no, or one of the choices in the question (`verify` and `choose`), or free (`query`).
    pub is_closed: bool,
    /// The split.
    pub split: Split,
    /// Index of the entry.
    pub row: Option<u64>,
}

#[derive(Deserialize)]
struct Entry {
    image_path: String,
    question: String,
    semantic_type: String,
    answer: Value,
}

/// The list of a split: in the folder, or in `dataset` inside it.
pub fn path(folder: &Path, split: Split) -> PathBuf {
    let name = if split == Split::Validate { "valid.json" } else { &format!("{}.json", split.name()) };
    let inner = files::plain_or_packed(&folder.join("dataset"), name);
    if inner.exists() { inner } else { files::plain_or_packed(folder, name) }
}

/// Reads the questions of all splits.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<MimicQuestion> {
    let mut questions = Vec::new();
    for split in Split::ALL {
        let mut seen = HashSet::new();
        array::read(&path(folder, split), skipped, |entry: Entry, at, skipped| {
            let image = files::stem(&entry.image_path);
            if !files::is_name(image) {
                return skipped.note(Reason::NameUnsafe, at, files::shown(&entry.image_path));
            }
            let is_closed = match entry.semantic_type.as_str() {
                "verify" | "choose" => true,
                "query" => false,
                other => return skipped.note(Reason::RowMalformed, at, format!("semantic_type is {}", files::shown(other))),
            };
            let Some(answers) = answers(&entry.answer) else {
                return skipped.note(Reason::RowMalformed, at, "answer is neither a text nor a list of texts");
            };
            let texts = text::plain(&entry.question)
                .and_then(|question| Ok((question, answers.iter().map(|answer| text::plain(answer)).collect::<Result<Vec<_>, _>>()?)));
            let (question, answers) = match texts {
                Ok(texts) => texts,
                Err(message) => return skipped.note(Reason::TextUnsafe, at, message),
            };
            if !seen.insert((image.to_owned(), question.clone())) {
                return skipped.note(Reason::RowRepeated, at, files::shown(&question));
            }
            questions.push(MimicQuestion { image: image.into(), question, answers, is_closed, split, row: at.row });
        });
    }
    questions
}

fn answers(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(answer) => Some(vec![answer.clone()]),
        Value::Array(answers) => answers.iter().map(|answer| answer.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn questions_are_read_as_published() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |question: &str, kind: &str, answer: Value, path: &str| {
            json!({"split": "train", "idx": 0, "subject_id": 10000032, "study_id": 50414267, "image_id": "a", "image_path": path,
                "question": question, "content_type": "presence", "semantic_type": kind, "answer": answer})
        };
        let path_of = "p10/p10000032/s50414267/a-b.jpg";
        let entries = json!([
            entry("Is there edema?", "verify", json!(["yes"]), path_of),
            entry("Which findings?", "query", json!([]), path_of),
            entry("Is there edema?", "verify", json!(["no"]), path_of),
            entry("q", "guess", json!(["no"]), path_of),
            entry("q", "verify", json!([1]), path_of),
            entry("q<eos>", "verify", json!(["no"]), path_of),
            entry("q", "verify", json!("no"), "x/.."),
        ]);
        std::fs::write(folder.path().join("train.json"), entries.to_string()).unwrap();
        std::fs::create_dir(folder.path().join("dataset")).unwrap();
        std::fs::write(folder.path().join("dataset/valid.json"), "[]").unwrap();
        let mut skipped = Skipped::default();
        let questions = read(folder.path(), &mut skipped);
        let found: Vec<_> = questions.iter().map(|q| (q.image.as_str(), q.is_closed, q.answers.len())).collect();
        assert_eq!(found, [("a-b", true, 1), ("a-b", false, 0)]);
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row, e.reason)).collect();
        use Reason::{FileUnreadable, NameUnsafe, RowMalformed, RowRepeated, TextUnsafe};
        let mut expected = vec![(Some(2), RowRepeated), (Some(3), RowMalformed), (Some(4), RowMalformed), (Some(5), TextUnsafe)];
        expected.extend([(Some(6), NameUnsafe), (None, FileUnreadable)]);
        assert_eq!(rows, expected);
    }
}
