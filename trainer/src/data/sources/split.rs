//! The three splits.

use serde::{Deserialize, Serialize};

/// A split of a data set. The order is that of protection: of two splits, the larger one is kept away from the smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    Train,
    /// For validation, and for the sentence database.
    Validate,
    /// For the final measurement.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// The name in file names and data files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }

    /// The split that a data set calls by this name.
    pub fn from_published(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validate" | "validation" => Some(Self::Validate),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}
