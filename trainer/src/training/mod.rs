//! The training stages. `fit` is the loop of all of them; `text`, `apm` and `language` are the stages.

pub mod annotations;
pub mod apm;
pub mod checkpoint;
pub mod config;
pub mod fit;
pub mod interrupt;
pub mod kept;
pub mod language;
pub mod language_data;
pub mod losses;
pub mod objective;
pub mod order;
pub mod packing;
pub mod perception_outputs;
pub mod questions;
pub mod results;
pub mod settings;
mod small_models;
pub mod text;
pub mod tokenizer;
