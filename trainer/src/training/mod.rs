//! The steps of training.

pub mod apm;
pub mod checkpoint;
pub mod config;
pub mod losses;
pub mod progress;
pub mod text;
pub mod tokenizer;
