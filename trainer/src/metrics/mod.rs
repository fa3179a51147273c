//! Metrics of the paper's tables. Each equals its reference package to 1e-6 (`tests/test_metrics.py`).
//!
//! They know nothing of bundles and images: [`evaluation`](crate::evaluation) and the command `score` give them texts, boxes and labels.

pub mod bleu;
pub mod bootstrap;
pub mod boxes;
pub mod calibration;
pub mod labels;
pub mod meteor;
pub mod rouge;
pub mod stems;
pub mod summary;
pub mod wordnet;
