//! Results of perception and retrieval: structures with their sentences, and label scores.

use crate::anatomy::{Label, Structure};
use crate::geometry::PixelBox;

/// A structure with its box and its retrieved sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StructureResult {
    /// The structure.
    pub structure: Structure,
    /// Its bounding box in pixels of the original image.
    pub bounds: PixelBox,
    /// The sentence of the database that is nearest to its object embedding.
    pub sentence: Retrieved,
}

/// A retrieved sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Retrieved {
    /// The sentence.
    pub text: String,
    /// Cosine similarity of the sentence's embedding and the object embedding, -1..1, not calibrated.
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    pub margin: f32,
}

/// An image label with its score.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label.
    pub label: Label,
    /// The score, 0..1, not calibrated.
    pub score: f32,
}
