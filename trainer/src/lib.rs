//! Training of AnatomiX, and export of its bundles.
//!
//! The training stages are the paper's: `train apm`, `train align`, `train instruct`. If no pretrained sentence encoder or language model
//! is imported, `train text` and `train language` first train small ones on the sentences of the data set.

pub mod commands;
pub mod data;
pub mod destination;
pub mod distributed;
pub mod evaluation;
pub mod export;
pub mod graph;
pub mod import;
pub mod judges;
pub mod lock;
pub mod metrics;
pub mod models;
pub mod predictions;
pub mod progress;
pub mod prompt;
pub mod reporting;
pub mod run;
pub mod tables;
pub mod training;
