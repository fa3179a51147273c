//! The training stages.

pub mod apm;
pub mod checkpoint;
pub mod config;
pub mod language;
pub mod losses;
pub mod objective;
pub mod perception_outputs;
pub mod progress;
pub mod text;
pub mod tokenizer;
