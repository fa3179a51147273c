//! The C interface, `include/anatomix.h`: opaque handles over [`Engine`](crate::Engine), [`Study`](crate::Study) and
//! [`Answer`](crate::Answer). This room only converts, calls and returns.
//!
//! Names are those of the header, which cbindgen writes from these files; `ANATOMIX_BLESS=1 cargo test --test header`
//! renews it. What every function asks of its pointers stands once, in the header's opening (`cbindgen.toml`).
//!
//! How it stays sound: a handle is only ever borrowed shared, what accessors lend is computed when the handle is made
//! and never changed, and the one thing that changes (the study's cache) is behind a lock that is tried, not waited for,
//! so that a callback which calls back in gets `ANX_BUSY`.
#![allow(unsafe_code)]
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod call;
mod failure;
mod handle;
mod options;
mod strings;

// The header's functions follow this order, hence the lines between them: they keep it from being sorted.
mod version;

mod status;

mod error;

mod record;

mod log;

mod engine;

mod cancel;

mod study;

mod pixels;

mod perceive;

mod studies;

mod ask;

mod ask_many;

mod saved;

mod answer;

pub use answer::*;
pub use ask::*;
pub use ask_many::*;
pub use cancel::*;
pub use engine::*;
pub use error::*;
pub use log::{anx_free_callback, anx_log_callback, anx_log_level};
pub use options::anx_switch;
pub use perceive::{anx_perceive_options, anx_study_from_bytes, anx_study_from_file, anx_study_from_pixels};
pub use pixels::{anx_photometric, anx_pixels};
pub use record::*;
pub use saved::*;
pub use status::*;
pub use studies::*;
pub use study::*;
pub use version::*;
