//! What the trainer, the phantoms, the program and the tests of this repository use beside the SDK's interface.
//!
//! Nothing here is part of the interface: any version may change or remove it. A program that uses the SDK needs the crate's root,
//! [`error`](crate::error) and [`output`](crate::output).

pub use crate::output::overlay::FONT;

/// Bundles: the folder of a model's files, and the manifest that describes them.
pub mod bundle {
    pub use crate::bundle::{
        APM, ApmSizes, Bundle, DECODER, DecoderSizes, FULL_ATTENTION_BIAS, FileEntry, GOLDEN, GraphSettings, MANIFEST, Manifest, PROJECTOR,
        PromptSettings, SCHEMA, SENTENCES, SIGNATURE, SLIDING_ATTENTION_BIAS, SLIDING_PLACES, TOKENIZER, TOLERANCE, hash_file,
    };
}

/// Reading of regular files of bounded size.
pub mod files {
    pub use crate::files::{open, read};
}

/// Boxes in the network's frame, and the conversion between it and pixels.
pub mod geometry {
    pub use crate::geometry::{Letterbox, NormalizedBox, PROMPT_GRID};
}

/// SHA-256.
pub mod hash {
    pub use crate::hash::{Digest, Hasher};
}

/// Work on several threads outside of an engine.
pub mod parallel {
    pub use crate::parallel::{limit, map};
}

/// The perception module, and flags.
pub mod perception {
    pub use crate::perception::{Perception, PerceptionModule};

    /// Reasons not to trust a study.
    pub mod flags {
        pub use crate::perception::flags::{of_perception, of_radiograph};
    }
}

/// The prompt, as text and as tokens.
pub mod prompt {
    pub use crate::prompt::{
        ADDED_TOKENS, CONTROL_TOKENS, ContextLine, ContextTokens, OBJECT_TOKENS, PROMPT_VERSION, PromptTokenizer, grounded_text, line_text,
    };
}

/// Facts of a radiograph's header, and how a radiograph becomes the network's input.
pub mod radiograph {
    pub use crate::radiograph::{Header, Histogram, Orientation, Preprocess};
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
