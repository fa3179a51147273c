//! Data sets in their published layouts.

pub mod augment;
pub mod imagenome;
pub mod images;
pub mod instruct;
pub mod packs;
pub mod samples;
pub mod sources;
