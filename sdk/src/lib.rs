//! Anatomy-aware chest X-ray interpretation: an embedded, ONNX-based runtime. Research use, not a medical device.
//!
//! Three nouns, one verb each: an [`Engine`] opens a bundle, a [`Study`] perceives one radiograph, an [`Answer`] answers
//! a question of it. One room per step, one direction:
//!
//! ```text
//! file or pixels -> radiograph -> perception -> retrieval -> prompt -> decoder -> grounding -> output
//! ```
//! [`engine`](Engine) owns what is opened once, [`study`](Study) what belongs to one radiograph.

pub mod anatomy;
mod answer;
pub mod bundle;
#[cfg(feature = "capi")]
pub mod capi;
mod cause;
mod control;
mod conversation;
mod decoder;
mod engine;
mod error;
mod files;
mod findings;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod geometry;
mod grounding;
mod language;
mod log;
pub mod output;
pub mod perception;
pub mod prompt;
mod provenance;
mod question;
pub mod radiograph;
pub mod retrieval;
pub mod runtime;
mod saved;
mod study;
pub mod task;
mod text;

pub use anatomy::{Label, Structure};
pub use answer::{Answer, Finish};
pub use control::{CancelHandle, Flow};
pub use decoder::{DecoderError, Form, MemoryError, QuestionError, Sampling};
pub use engine::{Engine, EngineBuilder};
pub use error::{Error, Result};
pub use findings::{LabelScore, Retrieved, StructureFinding};
pub use geometry::{NormalizedBox, PixelBox};
pub use grounding::Grounding;
pub use log::LogLevel;
pub use perception::flags::{Flag, FlagCode, FlaggedError, Severity};
pub use provenance::{Provenance, Timing};
pub use question::Question;
pub use radiograph::Radiograph;
pub use runtime::Provider;
pub use saved::{SavedError, is_saved};
pub use study::Study;
pub use task::Task;
