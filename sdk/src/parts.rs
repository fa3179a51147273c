//! What the trainer, the phantoms, the program and the tests of this repository use in addition to the SDK's interface.
//!
//! Nothing here is part of the interface: any version may change or remove it. A program that uses the SDK needs the crate's root,
//! [`error`](crate::error) and [`output`](crate::output).

pub use crate::output::overlay::FONT;

/// Bundles: names of a model's files and of the graphs' inputs.
pub mod bundle {
    pub use crate::bundle::{
        APM, DECODER, FULL_ATTENTION_BIAS, GOLDEN, MANIFEST, PROJECTOR, SCHEMA, SENTENCES, SIGNATURE, SLIDING_ATTENTION_BIAS,
        SLIDING_PLACES, TOKENIZER, TOLERANCE, hash_file,
    };
}

/// Reading of regular files of bounded size.
pub mod files {
    use std::path::{Path, PathBuf};

    pub use crate::files::{open, read};

    /// The file that [`write_whole`](crate::output::write_whole) creates or replaces: that at the end of symbolic links, even if it
    /// does not exist yet.
    ///
    /// # Errors
    /// If its folder cannot be reached, or the links do not end.
    pub fn destination(path: &Path) -> std::io::Result<PathBuf> {
        crate::output::destination(path)
    }
}

/// The conversion between pixels and the letterboxed square, and the prompt's grid.
pub mod geometry {
    pub use crate::geometry::{Letterbox, PROMPT_GRID};
}

/// SHA-256.
pub mod hash {
    pub use crate::hash::{Digest, Hasher};
}

/// Work on several threads outside of an engine.
pub mod parallel {
    pub use crate::parallel::{limit, map};
}

/// What the program prints as JSON of bundles and providers.
pub mod output {
    pub use crate::output::setup::{BundleRecord, ProvidersRecord, SignedRecord, VerifiedRecord};
}

/// The perception module, and flags.
pub mod perception {
    pub use crate::perception::PerceptionModule;

    /// Reasons not to trust a study.
    pub mod flags {
        pub use crate::perception::flags::{of_perception, of_radiograph};
    }
}

/// The prompt, as text and as tokens.
pub mod prompt {
    pub use crate::prompt::{
        ADDED_TOKENS, CHAT_TOKENS, ContextLine, ContextTokens, OBJECT_TOKENS, PromptTokenizer, grounded_text, line_text,
    };
}

/// The formats of radiographs.
pub mod radiograph {
    pub use crate::radiograph::{dicom_sides, is_dicom};
}

/// The sentence database.
pub mod retrieval {
    pub use crate::retrieval::{Hit, SentenceDatabase, SentenceList, is_finding, write};
}

/// Foreign text.
pub mod text {
    pub use crate::text::controls_terminal;
}

/// ONNX Runtime and graphs.
pub mod runtime {
    pub use crate::runtime::{Availability, Binding, Graph, Options, Outputs, PROCESSORS, Runtime, Tensor, availability, cores, processor};
}
