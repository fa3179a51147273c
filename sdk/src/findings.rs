//! What is found in one radiograph: structures with their sentences, and image labels.

use crate::anatomy::{Label, Structure};
use crate::geometry::PixelBox;
use serde::Serialize;

/// A structure with its box and its retrieved sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StructureFinding {
    /// Which structure.
    pub structure: Structure,
    /// Where it is, in pixels of the original image.
    pub bounds: PixelBox,
    /// The most similar sentence of the database.
    pub sentence: Retrieved,
}

/// A sentence from the database.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retrieved {
    /// The sentence.
    pub text: String,
    /// Cosine similarity, -1..1; not calibrated.
    pub similarity: f32,
    /// How much less similar the next sentence is.
    pub margin: f32,
}

/// An image label with its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScore {
    /// Which label.
    pub label: Label,
    /// 0..1; not calibrated.
    pub score: f32,
}
