//! What a training says of itself: its log, and plots, a page and TensorBoard's event files of it.

pub mod comparison;
pub mod events;
pub mod log;
pub mod page;
pub mod plots;
