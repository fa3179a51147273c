//! Answers of models to the questions of a data set: reading and writing them in the form of each model, and scoring them.

pub mod convention;
pub mod file;
pub mod form;
pub mod judges;
pub mod lines;
pub mod pieces;
pub mod scores;
