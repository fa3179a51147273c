//! The nine sample sets of the paper (table S1), made from the data sets that one has, and the folder in which they are prepared. Phantoms
//! are one more source, with a set of their own.

pub mod config;
pub mod draw;
pub mod folder;
pub mod held_out;
pub mod making;
pub mod mimic;
pub mod padchest;
pub mod phantom;
pub mod prepare;
pub mod record;
pub mod set;
pub mod slake;
pub mod summary;
pub mod templates;
pub mod vindr;
