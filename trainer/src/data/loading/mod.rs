//! From a prepared folder to the samples of a training step: an index of what the folder holds, and workers that read ahead of the step.
//! Memory holds a few dozen bytes for each image and sample, and a bounded number of images.

pub mod ahead;
pub mod index;
pub mod lines;
pub mod pictures;
pub mod prepared;
pub mod settings;
pub mod store;
