//! The nine radiology tasks (paper, section S4).

use crate::decoder::QuestionError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the nine tasks that a bundle's language model was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// Findings and impression of the whole image.
    Report,
    /// The 14 image labels that apply.
    Classification,
    /// Abnormal findings with their boxes.
    AbnormalityDetection,
    /// The boxes of a finding that the question names.
    PhraseGrounding,
    /// The box of a structure that the question names.
    AnatomyGrounding,
    /// The finding in a given box.
    GroundedDiagnosis,
    /// A sentence that describes a given box.
    GroundedCaptioning,
    /// The answer to a question in free text.
    OpenQuestion,
    /// The answer to a question by yes or no, or by one of the choices in the question.
    ClosedQuestion,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 9] = [
        Self::Report,
        Self::Classification,
        Self::AbnormalityDetection,
        Self::PhraseGrounding,
        Self::AnatomyGrounding,
        Self::GroundedDiagnosis,
        Self::GroundedCaptioning,
        Self::OpenQuestion,
        Self::ClosedQuestion,
    ];

    /// The name on the command line, in JSON and in data files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Classification => "classification",
            Self::AbnormalityDetection => "abnormality_detection",
            Self::PhraseGrounding => "phrase_grounding",
            Self::AnatomyGrounding => "anatomy_grounding",
            Self::GroundedDiagnosis => "grounded_diagnosis",
            Self::GroundedCaptioning => "grounded_captioning",
            Self::OpenQuestion => "open_question",
            Self::ClosedQuestion => "closed_question",
        }
    }

    /// The task with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }

    /// The instruction of a task that needs no question; `None` for the other tasks.
    pub fn instruction(self) -> Option<&'static str> {
        match self {
            Self::Report => Some("Write the findings and impression of this chest radiograph."),
            Self::Classification => Some("Which of the 14 labels apply to this chest radiograph?"),
            Self::AbnormalityDetection => Some("Find the abnormalities in this chest radiograph."),
            _ => None,
        }
    }

    /// What the question of this task lacks: boxes of the tasks on a given region, words of all tasks without an instruction. `None` if
    /// the text will do.
    fn lacks(self, text: &str) -> Option<&'static str> {
        if self.instruction().is_some() {
            return None;
        }
        let (words, boxes) = without_boxes(text);
        let has_words = words.contains(char::is_alphabetic);
        match self {
            Self::GroundedDiagnosis | Self::GroundedCaptioning if boxes == 0 => {
                Some("a region of the image, <box>(x0,y0),(x1,y1)</box> in pixels")
            }
            Self::GroundedDiagnosis | Self::GroundedCaptioning => None,
            Self::PhraseGrounding if !has_words => Some("the phrase to find"),
            Self::AnatomyGrounding if !has_words => Some("the name of a structure"),
            _ if !has_words => Some("a question in words"),
            _ => None,
        }
    }

    /// Checks that the text of a question suits the task: it is empty if the task has an instruction, else it has what the task is about.
    ///
    /// # Errors
    /// [`QuestionError::Instruction`] and [`QuestionError::Unsuitable`].
    pub fn check(self, text: &str) -> Result<(), QuestionError> {
        if self.instruction().is_some() && !text.trim().is_empty() {
            return Err(QuestionError::Instruction { task: self.name() });
        }
        self.lacks(text).map_or(Ok(()), |needed| Err(QuestionError::Unsuitable { task: self.name(), needed }))
    }

    /// The question as it is put to the model: `text` if that is a sentence, the task's wording around a bare phrase or box, or the task's
    /// instruction if `text` is empty.
    pub fn question(self, text: &str) -> String {
        let text = text.trim();
        let bare = !text.ends_with(['?', '.', '!']);
        match self {
            Self::PhraseGrounding | Self::AnatomyGrounding if bare && !text.is_empty() => format!("Where is the {text}?"),
            Self::GroundedDiagnosis if bare && text.starts_with("<box>") => format!("What is the finding in {text}?"),
            Self::GroundedCaptioning if bare && text.starts_with("<box>") => format!("Describe the region {text}."),
            _ if text.is_empty() => self.instruction().unwrap_or_default().into(),
            _ => text.into(),
        }
    }
}

/// The text without boxes, and their number.
fn without_boxes(text: &str) -> (String, usize) {
    let mut parts = text.split("<box>");
    let mut words = parts.next().unwrap_or_default().to_owned();
    let mut boxes = 0;
    for part in parts {
        boxes += 1;
        words.push_str(part.split_once("</box>").map_or(part, |(_, after)| after));
    }
    (words, boxes)
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_takes_what_it_is_about() {
        let region = "<box>(1,2),(30,40)</box>";
        let suits = |task: Task, text: &str| task.check(text).is_ok();
        for task in [Task::GroundedDiagnosis, Task::GroundedCaptioning] {
            assert!(suits(task, region) && suits(task, &format!("What is the finding in {region}?")), "{task}");
            assert!(!suits(task, "left lung") && !suits(task, "") && !suits(task, "Is there a pleural effusion?"), "{task}");
        }
        for task in [Task::PhraseGrounding, Task::AnatomyGrounding, Task::OpenQuestion, Task::ClosedQuestion] {
            assert!(suits(task, "Is the left lung healthy?") && suits(task, "Größe"), "{task}");
            assert!(!suits(task, "") && !suits(task, " ?? 12.") && !suits(task, region), "{task}");
        }
        for task in [Task::Report, Task::Classification, Task::AbnormalityDetection] {
            assert!(suits(task, " ") && !suits(task, "Is the left lung healthy?"), "{task}");
        }
        let message = Task::GroundedDiagnosis.check("left lung").unwrap_err().to_string();
        assert!(message.contains("grounded_diagnosis needs a region of the image"), "{message}");
    }
}
