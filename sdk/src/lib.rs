//! Anatomy-aware chest X-ray interpretation: an embedded, ONNX-based runtime. Research use, not a medical device.

pub mod anatomy;
pub mod geometry;
pub mod output;
pub mod prompt;
pub mod radiograph;
pub mod task;

pub use radiograph::Radiograph;
