//! Trains AnatomiX and exports its bundles.
//!
//! The steps are the paper's: `train apm`, `train align`, `train instruct`. Where no pretrained text encoder or language
//! model is imported, `train text` and `train language` make small ones first, from the sentences of the data set.

pub mod commands;
pub mod data;
pub mod evaluation;
pub mod export;
pub mod graph;
pub mod import;
pub mod models;
pub mod run;
pub mod training;
