//! Data sets in their published layouts.

pub mod augment;
pub mod images;
pub mod imagenome;
pub mod instruct;
pub mod packs;
