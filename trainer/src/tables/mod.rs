//! The paper's tables, measured on a bundle and on answers of other models, with the paper's own figures beside them.
//!
//! [`shown`] checks images and questions, and [`forms`] writes them for other models. [`measure`](measure::measure) asks a bundle all
//! questions and keeps what it answers in a [`journal`], image by image. [`groups`] sorts
//! answers and retrieved sentences by what the tables tell apart, and scores them. [`layout`] fills the tables, [`render`] writes them, and
//! [`page`] shows what cannot be said in figures.

pub mod forms;
pub mod groups;
pub mod journal;
pub mod layout;
pub mod measure;
pub mod page;
pub mod paper;
pub mod render;
pub mod shown;
