//! What `anatomix-trainer phantom` draws: tables of MIMIC-CXR, scene graphs of Chest ImaGenome, and questions with their answers.
//!
//! ```text
//! FOLDER/mimic-cxr-2.0.0-split.csv, mimic-cxr-2.0.0-chexpert.csv
//! FOLDER/silver_dataset/scene_graph/ID_SceneGraph.json
//! FOLDER/images/ID.png
//! FOLDER/instruct.jsonl                                           image, task, question, answer, boxes
//! ```

use super::files;
use super::imagenome::{self, SceneGraph};
use super::skipped::{At, Reason, Skipped};
use anatomix::Structure;
use anatomix_phantom::tasks::Sample;
use anatomix_phantom::text::join;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Largest number of characters that are shown of a line.
const MAX_SHOWN: usize = 200;

/// A question on a phantom, with its line in the file.
pub struct Asked {
    /// Line of the file, from 1.
    pub row: u64,
    /// Question and answer.
    pub sample: Sample,
}

#[derive(Deserialize)]
struct Line {
    image: String,
    #[serde(flatten)]
    sample: Sample,
}

/// The path of the questions.
pub fn questions_path(folder: &Path) -> PathBuf {
    folder.join("instruct.jsonl")
}

/// The path of a phantom in its folder.
pub fn image_path(id: &str) -> String {
    format!("images/{id}.png")
}

/// Reads the questions of each phantom, in the order of the file.
pub fn questions(folder: &Path, skipped: &mut Skipped) -> HashMap<String, Vec<Asked>> {
    let path = questions_path(folder);
    let mut out: HashMap<String, Vec<Asked>> = HashMap::new();
    let file = match files::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) => {
            skipped.note(Reason::FileUnreadable, At::file(&path), error);
            return out;
        }
    };
    for (row, line) in (1..).zip(file.lines()) {
        let at = At { file: &path, row: Some(row) };
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                skipped.note(Reason::FileUnreadable, at, error);
                break;
            }
        };
        match serde_json::from_str::<Line>(&line) {
            Ok(Line { image, sample }) => out.entry(image).or_default().push(Asked { row, sample }),
            Err(error) => skipped.note(Reason::RowMalformed, at, error.to_string().chars().take(MAX_SHOWN).collect::<String>()),
        }
    }
    out
}

/// Reads the scene graph of a phantom of this size. Everything is known of a phantom: a structure without findings is healthy, even if the
/// image does not show it.
pub fn graph(folder: &Path, id: &str, size: (u32, u32), skipped: &mut Skipped) -> Option<SceneGraph> {
    imagenome::read_worded(&imagenome::path(folder, id), size, skipped, |structure, terms, _| Some(sentence(structure, terms)))
}

/// The sentence on a structure of a phantom: `NAME shows A, B and C.` or `NAME is healthy.`
fn sentence(structure: Structure, terms: &[String]) -> String {
    if terms.is_empty() {
        return format!("{structure} is healthy.");
    }
    let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
    format!("{structure} shows {}.", join(&terms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anatomix_phantom::Scene;
    use anatomix_phantom::dataset::{Options, write};

    #[test]
    fn what_is_read_is_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        write(&Options { out: folder.path().into(), count: 12, seed: 40, size: 96, dicom_every: 0, markers: true }, |_| ()).unwrap();
        let mut skipped = Skipped::default();
        let asked = questions(folder.path(), &mut skipped);
        for seed in 40..52 {
            let scene = Scene::sample_sized(seed, 96);
            let own: Vec<&Sample> = asked[&scene.id()].iter().map(|asked| &asked.sample).collect();
            assert_eq!(own, anatomix_phantom::tasks::samples(&scene, 0).iter().collect::<Vec<_>>());
            let graph = graph(folder.path(), &scene.id(), (scene.frame.width, scene.frame.height), &mut skipped).unwrap();
            for structure in Structure::all() {
                assert_eq!(graph.sentences[structure.index()].as_ref(), Some(&scene.sentence(structure)));
                let drawn = scene.structure_box(structure);
                assert_eq!(graph.boxes[structure.index()].is_some(), drawn.is_some(), "{structure}");
                if let (Some(found), Some(drawn)) = (graph.boxes[structure.index()], drawn) {
                    assert!((found.x0 - drawn.x0).abs() <= 0.5 && (found.y1 - drawn.y1).abs() <= 0.5);
                }
            }
        }
        assert!(skipped.counts().is_empty(), "{skipped:?}");
    }

    #[test]
    fn damaged_lines_are_noted() {
        let folder = tempfile::tempdir().unwrap();
        let good = r#"{"image": "a", "task": "report", "question": "q", "answer": "a"}"#;
        std::fs::write(questions_path(folder.path()), format!("{good}\nnone\n{{\"image\": 3}}\n{good}\n")).unwrap();
        let mut skipped = Skipped::default();
        let asked = questions(folder.path(), &mut skipped);
        assert_eq!(asked["a"].iter().map(|asked| asked.row).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(skipped.entries().iter().map(|entry| entry.row.unwrap()).collect::<Vec<_>>(), [2, 3]);
    }
}
