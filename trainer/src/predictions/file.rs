//! Questions for other models as JSON lines, and their answers.

use super::form::Form;
use super::lines;
use super::pieces::Content;
use crate::data::samples::record::{Image, Sample};
use anatomix::PixelBox;
use anatomix::parts::geometry::Letterbox;
use anatomix::parts::hash::Hasher;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Number of letters of a sample's key.
const KEY: usize = 16;

/// A question as another model gets it: boxes are in the model's form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked<'a> {
    /// The key that the answer's line has to repeat.
    pub sample: String,
    /// The image's identifier.
    pub image: &'a str,
    /// The image's file.
    pub path: &'a Path,
    /// Whether the image has to be mirrored first.
    pub mirrored: bool,
    /// The task.
    pub task: &'static str,
    /// Earlier questions of the conversation, which the model answers first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// The question.
    pub question: String,
    /// The bundle's own answer in the model's form, as an example. It is no answer of the model, which is added as `answer`.
    pub bundle_answer: String,
}

/// A line of answers. Other keys are ignored, so that a line of questions becomes one of answers when its answer is added.
#[derive(Deserialize)]
struct Answered {
    sample: String,
    answer: Option<String>,
}

/// The key of a sample: what it asks, of which image, and what is expected.
pub fn key(sample: &Sample, mirrored: bool) -> String {
    let mut hasher = Hasher::default();
    let earlier = sample.history.iter().flat_map(|(question, answer)| [question, answer]);
    for part in [sample.image.as_str(), sample.task.name(), if mirrored { "mirrored" } else { "" }, &sample.question, &sample.answer]
        .into_iter()
        .chain(earlier.map(String::as_str))
    {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finish().to_string()[..KEY].into()
}

/// Writes a question in the form of another model, with the bundle's answer as AnatomiX wrote it.
pub fn asked<'a>(image: &'a Image, path: &'a Path, sample: &Sample, mirrored: bool, answer: &str, form: Form) -> Asked<'a> {
    let letterbox = image.letterbox();
    // Questions have the boxes of the image as it is; answers those of what was shown.
    let question = |text: &str| form.write(&shown(text, &letterbox, mirrored), &letterbox);
    Asked {
        sample: key(sample, mirrored),
        image: &image.id,
        path,
        mirrored,
        task: sample.task.name(),
        earlier: sample.history.iter().map(|(earlier, _)| question(earlier)).collect(),
        question: question(&sample.question),
        bundle_answer: form.write(&Form::Anatomix.read(answer, &letterbox), &letterbox),
    }
}

/// The content of a sample's text, with the boxes of the mirrored image if it is mirrored.
pub fn shown(text: &str, letterbox: &Letterbox, mirrored: bool) -> Content {
    let width = letterbox.width as f32;
    let content = Form::Anatomix.read(text, letterbox);
    if mirrored { content.map_boxes(|b| PixelBox::new(width - b.x1, b.y0, width - b.x0, b.y1)) } else { content }
}

/// Reads a model's answers by the keys of their samples. Lines of questions that were not answered are left out.
///
/// # Errors
/// If the file cannot be read, or a line is no answer or answers a sample again; the error names file and line.
pub fn answers(path: &Path) -> Result<HashMap<String, String>> {
    let mut answers = HashMap::new();
    lines::read(path, |Answered { sample, answer }, _| {
        ensure!(
            sample.len() == KEY && sample.bytes().all(|c| c.is_ascii_hexdigit()),
            "{sample:?} is not the key of a sample; repeat the one in the file of questions"
        );
        ensure!(!answers.contains_key(&sample), "the sample {sample} was answered in an earlier line");
        if let Some(answer) = answer {
            answers.insert(sample, answer);
        }
        Ok(())
    })?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::samples::record::Source;
    use crate::data::sources::split::Split;
    use anatomix::Task;

    fn image() -> Image {
        let name = || "phantom/a".to_string();
        Image::new(Source::Phantom, "a", "a.png".into(), (1000, 1000), name(), name(), Some(Split::Test))
    }

    #[test]
    fn a_question_is_written_in_each_form_and_its_answer_is_found_by_the_key() {
        let image = image();
        let mut sample = Sample::new(&image, Split::Test, Task::GroundedDiagnosis, String::new(), "Edema".into());
        sample.question = "What is in <box>(0,512),(256,1024)</box>?".into();
        let line = |mirrored, form| asked(&image, Path::new("a.png"), &sample, mirrored, "<ref>b</ref><box>(0,0),(512,512)</box>", form);
        let plain = line(false, Form::CheXagent);
        assert_eq!(plain.question, "What is in <|box|>(0,50),(25,100)<|/box|>?");
        assert_eq!(plain.bundle_answer, "<|ref|>b<|/ref|><|box|>(0,0),(50,50)<|/box|>");
        let mirrored = line(true, Form::RadVlm);
        // The question's box is mirrored with the image, the answer's is where the model saw it.
        assert_eq!((mirrored.question.as_str(), mirrored.bundle_answer.as_str()), ("What is in [0.75, 0.5, 1, 1]?", "b [0, 0, 0.5, 0.5]"));
        assert_ne!(plain.sample, mirrored.sample);
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut line = serde_json::to_value(&plain).unwrap();
        std::fs::write(file.path(), line.to_string()).unwrap();
        assert!(answers(file.path()).unwrap().is_empty(), "the bundle's answer is none of the model");
        line["answer"] = "clear".into();
        std::fs::write(file.path(), line.to_string()).unwrap();
        assert_eq!(answers(file.path()).unwrap()[&key(&sample, false)], "clear");
        let other = Sample { history: vec![("Is it?".into(), "Yes".into())], ..sample.clone() };
        assert_ne!(key(&other, false), key(&sample, false));
    }

    #[test]
    fn wrong_lines_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = r#"{"sample": "0123456789abcdef", "answer": "a", "image": "b"}"#;
        for (line, words) in [
            (good, "was answered in an earlier line"),
            ("{\"sample\": \"0123456789abcde\", \"answer\": \"a\"}", "is not the key of a sample"),
            ("{\"sample\": \"../../etc/passwd\", \"answer\": \"a\"}", "is not the key of a sample"),
            ("{\"answer\": \"a\"}", "missing field"),
            ("[\"0123456789abcdee\", \"a\"]", "is not a JSON object"),
            ("{\"sample\": \"0123456789abcdee\", \"answer\": 1}", "expected a string"),
            ("{", "EOF"),
            ("\u{0}", "is not a JSON object"),
        ] {
            std::fs::write(file.path(), format!("{good}\n{line}\n")).unwrap();
            let error = format!("{:#}", answers(file.path()).unwrap_err());
            let named = error.contains(&file.path().display().to_string()) && error.contains("line 2");
            assert!(named && error.contains(words), "{line}: {error}");
        }
    }
}
