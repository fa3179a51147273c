//! SLAKE: `{train,validate,test}.json`, an entry for each question, and `imgs/xmlabN/source.jpg`. English questions on chest radiographs
//! are used.

use super::array;
use super::files;
use super::skipped::{Reason, Skipped};
use super::split::Split;
use super::text;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A question on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlakeQuestion {
    /// Path of the image in the folder `imgs`.
    pub image: String,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// Whether the answer is one of few (`CLOSED`) or free (`OPEN`).
    pub is_closed: bool,
    /// The split.
    pub split: Split,
    /// Index of the entry.
    pub row: Option<u64>,
}

#[derive(Deserialize)]
struct Entry {
    img_name: String,
    question: String,
    answer: String,
    q_lang: String,
    modality: String,
    answer_type: String,
    /// The part of the body.
    #[serde(default)]
    location: Option<String>,
}

/// The folder of the images.
pub fn images(folder: &Path) -> PathBuf {
    folder.join("imgs")
}

/// Reads the questions of all splits.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<SlakeQuestion> {
    let mut questions = Vec::new();
    for split in Split::ALL {
        let path = files::plain_or_packed(folder, &format!("{}.json", split.name()));
        let mut seen = std::collections::HashSet::new();
        array::read(&path, skipped, |entry: Entry, at, skipped| {
            if entry.q_lang != "en" {
                return skipped.note(Reason::OtherLanguage, at, "");
            }
            let is_chest = entry.location.as_deref().is_none_or(|place| ["chest", "lung"].iter().any(|c| place.eq_ignore_ascii_case(c)));
            if !entry.modality.eq_ignore_ascii_case("X-Ray") || !is_chest {
                return skipped.note(Reason::OtherImage, at, "");
            }
            if !files::is_path(&entry.img_name) {
                return skipped.note(Reason::NameUnsafe, at, files::shown(&entry.img_name));
            }
            let is_closed = match entry.answer_type.as_str() {
                "CLOSED" => true,
                "OPEN" => false,
                other => return skipped.note(Reason::RowMalformed, at, format!("answer_type is {}", files::shown(other))),
            };
            let (question, answer) = match (text::plain(&entry.question), text::plain(&entry.answer)) {
                (Ok(question), Ok(answer)) => (question, answer),
                (Err(message), _) | (_, Err(message)) => return skipped.note(Reason::TextUnsafe, at, message),
            };
            if !seen.insert((entry.img_name.clone(), question.clone(), answer.clone())) {
                return skipped.note(Reason::RowRepeated, at, files::shown(&question));
            }
            questions.push(SlakeQuestion { image: entry.img_name, question, answer, is_closed, split, row: at.row });
        });
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn english_questions_on_chest_radiographs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |changes: Value| {
            let mut entry = json!({"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Is the lung healthy?", "answer": "No",
                "q_lang": "en", "location": "Lung", "modality": "X-Ray", "answer_type": "CLOSED", "content_type": "Abnormality"});
            entry.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            entry
        };
        let entries = json!([
            entry(json!({})),
            entry(json!({})),
            entry(json!({"q_lang": "zh"})),
            entry(json!({"modality": "CT"})),
            entry(json!({"location": "Abdomen"})),
            entry(json!({"answer_type": "?"})),
            entry(json!({"img_name": "a/../../b.jpg"})),
            entry(json!({"answer": 3})),
            entry(json!({"answer": " "})),
            entry(json!({"location": null, "answer_type": "OPEN", "answer": "x"})),
        ]);
        std::fs::write(folder.path().join("train.json"), entries.to_string()).unwrap();
        std::fs::write(folder.path().join("test.json"), "[").unwrap();
        let mut skipped = Skipped::default();
        let questions = read(folder.path(), &mut skipped);
        let rows: Vec<_> = questions.iter().map(|q| (q.row, q.is_closed)).collect();
        assert_eq!(rows, [(Some(0), true), (Some(9), false)]);
        use Reason::{FileUnreadable, NameUnsafe, OtherImage, OtherLanguage, RowMalformed, RowRepeated, TextUnsafe};
        let expected = [(RowRepeated, 1), (OtherLanguage, 1), (OtherImage, 2), (RowMalformed, 2), (NameUnsafe, 1), (TextUnsafe, 1)];
        for (reason, count) in expected.into_iter().chain([(FileUnreadable, 2)]) {
            assert_eq!(skipped.count(reason), count, "{reason:?}");
        }
    }
}
