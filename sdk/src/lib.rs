//! Anatomy-aware chest X-ray interpretation: an embedded, ONNX-based runtime. Research use, not a medical device.
//!
//! An [`Engine`] opens a bundle. Its [`study`](Engine::study) method finds the structures of one [`Radiograph`] and retrieves a sentence
//! for each of them; the resulting [`Study`] is asked [`Question`]s, and each [`Answer`] has boxes in pixels of the radiograph.
//!
//! The crate's root, [`error`] and [`output`] are the interface. [`parts`] is for the other crates of the repository.
//!
//! An answer's [`evidence`](Answer::evidence) compares each of its sentences with what was perceived.
//!
//! Features: `capi` adds the C interface, for `libanatomix.so`; `cli` what the program `anatomix` needs. Neither is on by default, and a
//! Rust program needs neither. `Engine::builder().open(..)` loads ONNX Runtime's library: see [`EngineBuilder::library`] for where it is
//! looked for.
//!
//! Data pass through the modules in one direction:
//!
//! ```text
//! file or pixels -> radiograph -> perception -> retrieval -> prompt -> decoder -> grounding -> evidence -> output
//! ```

mod anatomy;
mod answer;
mod bundle;
#[cfg(feature = "capi")]
pub mod capi;
mod cause;
mod control;
mod conversation;
mod decoder;
mod engine;
pub mod error;
mod evidence;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod geometry;
mod grounding;
mod hash;
mod language;
mod log;
pub mod output;
mod parallel;
pub mod parts;
mod perception;
mod progress;
mod prompt;
mod provenance;
mod question;
mod radiograph;
mod results;
mod retrieval;
mod runtime;
mod saved;
mod study;
mod task;
mod text;

/// The program of the guide is compiled with the examples of this documentation.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/extend.md")]
mod extend {}

pub use anatomy::{LABEL_COUNT, Label, STRUCTURE_COUNT, Side, Structure};
pub use answer::{Answer, Finish};
pub use bundle::{ApmSizes, Bundle, DecoderSizes, FileEntry, GraphSettings, Manifest, PromptSettings, PublicKey};
pub use control::{CancelHandle, Flow};
pub use decoder::{Form, Sampling};
pub use engine::{Engine, EngineBuilder, PerceiveOptions, VerifiedBundle};
pub use error::{Error, Result};
pub use evidence::{Relation, SentenceEvidence, StructureEvidence, Support};
pub use geometry::{NormalizedBox, PixelBox};
pub use grounding::Grounding;
pub use log::LogLevel;
pub use perception::Perception;
pub use perception::flags::{Flag, FlagCode, Severity};
pub use progress::{Phase, Progress};
pub use prompt::{PromptForm, PromptInputs};
pub use provenance::{Provenance, Timing};
pub use question::Question;
pub use radiograph::{Header, Histogram, Orientation, PixelHistory, Preprocess, Radiograph, ReadOptions};
pub use results::{LabelScore, Retrieved, StructureResult};
pub use runtime::Provider;
pub use saved::is_saved_study;
pub use study::Study;
pub use task::Task;
