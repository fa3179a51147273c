//! The training stages. `fit` is the loop of all of them; `text`, `apm` and `language` are the stages.

pub mod apm;
pub mod checkpoint;
pub mod config;
pub mod fit;
pub mod interrupt;
pub mod language;
pub mod losses;
pub mod objective;
pub mod order;
pub mod perception_outputs;
pub mod settings;
mod small_models;
pub mod text;
pub mod tokenizer;
