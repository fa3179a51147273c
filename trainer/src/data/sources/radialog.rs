//! RaDialog-Instruct: `mimic_cxr_instruct_llava_v2.json`, an entry for each conversation on an image of MIMIC-CXR-JPG.

use super::array;
use super::files;
use super::skipped::{Reason, Skipped};
use super::text;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A conversation on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Identifier of the image in MIMIC-CXR.
    pub image: String,
    /// Questions and answers in their order; at least one pair.
    pub turns: Vec<(String, String)>,
    /// Index of the entry.
    pub row: Option<u64>,
}

#[derive(Deserialize)]
struct Entry {
    image: String,
    conversations: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    from: String,
    value: String,
}

/// Path of the list.
pub fn path(folder: &Path) -> PathBuf {
    files::plain_or_packed(folder, "mimic_cxr_instruct_llava_v2.json")
}

/// Reads all conversations.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<Conversation> {
    let mut conversations = Vec::new();
    let mut seen = HashSet::new();
    array::read(&path(folder), skipped, |entry: Entry, at, skipped| {
        let image = files::stem(&entry.image);
        if !files::is_name(image) {
            return skipped.note(Reason::NameUnsafe, at, files::shown(&entry.image));
        }
        let pairs = entry.conversations.chunks(2).map(|pair| match pair {
            [question, answer] if question.from == "human" && answer.from == "gpt" => Some((&question.value, &answer.value)),
            _ => None,
        });
        let Some(pairs) = pairs.collect::<Option<Vec<_>>>().filter(|pairs| !pairs.is_empty()) else {
            return skipped.note(Reason::RowMalformed, at, "its turns are not those of human and gpt one after the other");
        };
        // The placeholder of the image is not a part of the question.
        let turn = |(question, answer): (&String, &String)| Ok((text::plain(&question.replace("<image>", " "))?, text::plain(answer)?));
        let turns = match pairs.into_iter().map(turn).collect::<Result<Vec<_>, String>>() {
            Ok(turns) => turns,
            Err(message) => return skipped.note(Reason::TextUnsafe, at, message),
        };
        if !seen.insert((image.to_owned(), turns.clone())) {
            return skipped.note(Reason::RowRepeated, at, image);
        }
        conversations.push(Conversation { image: image.into(), turns, row: at.row });
    });
    conversations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn conversations_are_pairs_of_turns() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |turns: &[(&str, &str)]| {
            let said: Vec<Value> = turns.iter().map(|(from, value)| json!({"from": from, "value": value})).collect();
            json!({"id": "1", "image": "p10/p10000032/s1/a.jpg", "conversations": said, "task_type": "x"})
        };
        let entries = json!([
            entry(&[("human", "<image>\nWhat is seen?"), ("gpt", "Edema.\nMild."), ("human", "Where?"), ("gpt", "At the base.")]),
            entry(&[("human", "<image>What?")]),
            entry(&[("gpt", "x"), ("human", "y")]),
            entry(&[]),
            entry(&[("human", "<image>"), ("gpt", "x")]),
        ]);
        std::fs::write(path(folder.path()), entries.to_string()).unwrap();
        let mut skipped = Skipped::default();
        let found = read(folder.path(), &mut skipped);
        assert_eq!(found.len(), 1);
        let turns = [("What is seen?", "Edema. Mild."), ("Where?", "At the base.")].map(|(q, a)| (q.to_owned(), a.to_owned()));
        assert_eq!(found[0].turns, turns);
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        use Reason::{RowMalformed, TextUnsafe};
        assert_eq!(rows, [(1, RowMalformed), (2, RowMalformed), (3, RowMalformed), (4, TextUnsafe)]);
    }
}
