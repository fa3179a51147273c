//! The networks, as functions over [`crate::graph::Ops`].

pub mod apm;
pub mod dino;
pub mod gemma;
pub mod lora;
pub mod projector;
mod sizes;
pub mod text;
