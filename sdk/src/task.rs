//! The nine radiology tasks (paper, section S4).

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

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
