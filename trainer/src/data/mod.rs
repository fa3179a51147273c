//! Data: the published data sets and phantoms, the samples that are made of them, and their way into a training step.

pub mod augment;
pub mod loading;
pub mod mirror;
pub mod packs;
pub mod samples;
pub mod sources;
