//! The C interface, `include/anatomix.h`: opaque handles over [`Engine`](crate::Engine), [`Study`](crate::Study) and
//! [`Answer`](crate::Answer). This module only converts, calls and returns.
//!
//! Names are those of the header, which cbindgen generates from these files; `ANATOMIX_BLESS=1 cargo test --test header`
//! renews it. What every function requires of its pointers is said once, in the header's opening (`cbindgen.toml`).
//!
//! Why it is sound: handles are borrowed as shared references only. What accessors return is computed when a handle is made and never
//! changes. A study's conversation does change; it is behind a lock that a call tries and does not wait for, so that a callback that calls
//! the same study gets `ANX_BUSY`.
#![allow(unsafe_code)]
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod call;
mod failure;
mod handle;
mod options;
mod strings;

// The header has this order. The empty lines keep rustfmt from sorting it.
mod version;

mod status;

mod error;

mod record;

mod vocabulary;

mod log;

mod progress;

mod cancel;

mod engine;

mod bundle;

mod study;

mod pixels;

mod perceive;

mod studies;

mod ask;

mod ask_many;

mod saved;

mod evidence;

mod answer;

mod report;

mod output;

mod intensities;

pub use answer::*;
pub use ask::*;
pub use ask_many::*;
pub use bundle::*;
pub use cancel::*;
pub use engine::*;
pub use error::*;
pub use evidence::{anx_evidence, anx_relation, anx_structure_evidence, anx_support};
pub use intensities::anx_study_intensities;
pub use log::{anx_free_callback, anx_log_callback, anx_log_level};
pub use options::anx_switch;
pub use output::*;
pub use perceive::{anx_perceive_options, anx_study_from_bytes, anx_study_from_file, anx_study_from_pixels};
pub use pixels::{anx_photometric, anx_pixels};
pub use progress::anx_progress_callback;
pub use record::*;
pub use report::*;
pub use saved::*;
pub use status::*;
pub use studies::*;
pub use study::*;
pub use version::*;
pub use vocabulary::*;
