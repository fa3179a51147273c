//! Status numbers, and the number of each error.

use crate::error::{Error, ErrorCode};

/// How a call ended. Every number but ANX_OK is a failure. Numbers keep their meaning, and later versions may add some. Treat an unknown
/// number from 100 on like the multiple of 100 below it, the general code of its group (123 like ANX_RADIOGRAPH), and one below 100 as a
/// call that failed for an unknown reason. The error's message always says what failed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_status {
    /// The call did what it says.
    ANX_OK = 0,

    /// An argument or an option cannot be used, such as NULL for a needed pointer; the message names it.
    ANX_INVALID_ARGUMENT = 1,
    /// A defect of the library stopped the call, which has no result. If the call was on a study, the study is poisoned; an engine can be
    /// used as before.
    ANX_PANIC = 2,
    /// An earlier call on this study ended with ANX_PANIC; free it and make a new one.
    ANX_POISONED = 3,
    /// Another call is using this study: from another thread, or from anx_ask_options.piece of its running ask.
    ANX_BUSY = 4,
    /// The call was stopped by a cancel handle before it was finished.
    ANX_STOPPED = 5,
    /// The call was not finished when its deadline passed.
    ANX_DEADLINE = 6,

    /// The radiograph cannot be used, for a reason that has no number of its own: several frames, an unsupported transfer syntax, ...
    ANX_RADIOGRAPH = 100,
    /// The radiograph's file cannot be read.
    ANX_RADIOGRAPH_READ = 101,
    /// The file is neither DICOM nor PNG nor JPEG.
    ANX_RADIOGRAPH_FORMAT = 102,
    /// The file is empty, truncated or otherwise damaged.
    ANX_RADIOGRAPH_DAMAGED = 103,
    /// The image or its file is too small or too large, or its sides do not match the number of pixels.
    ANX_RADIOGRAPH_SIZE = 104,
    /// There is not enough memory for the radiograph.
    ANX_RADIOGRAPH_MEMORY = 105,
    /// The radiograph is flagged "not_chest", "not_frontal" or "for_processing", and the question does not accept flags; see
    /// anx_ask_options.accept_flags.
    ANX_RADIOGRAPH_FLAGGED = 106,

    /// The bundle's manifest cannot be used.
    ANX_BUNDLE = 200,
    /// The bundle's folder, or a file in it, cannot be read.
    ANX_BUNDLE_READ = 201,
    /// A file of the bundle is missing.
    ANX_BUNDLE_MISSING = 202,
    /// A file of the bundle is not what the manifest says: it has another size or hash, is not a regular file, was changed while the bundle
    /// was being opened, or is a graph that takes weights from a file that the manifest does not list.
    ANX_BUNDLE_ALTERED = 203,
    /// The bundle was made for a newer version of this library.
    ANX_BUNDLE_NEWER = 204,
    /// The bundle is not signed by the owner of anx_engine_options.public_key.
    ANX_BUNDLE_SIGNATURE = 205,

    /// The bundle's sentence database cannot be used.
    ANX_RETRIEVAL = 300,

    /// ONNX Runtime failed on a graph.
    ANX_RUNTIME = 400,
    /// ONNX Runtime's library was not found; the message lists the paths tried.
    ANX_RUNTIME_NOT_FOUND = 401,
    /// ONNX Runtime's library cannot be loaded, is too old, or is not the one that this process has loaded before.
    ANX_RUNTIME_LIBRARY = 402,
    /// The requested provider cannot run here; the message and the cause say why.
    ANX_RUNTIME_PROVIDER = 403,
    /// A graph of the bundle cannot be loaded or lacks an input or output.
    ANX_RUNTIME_GRAPH = 404,
    /// The provider does not reproduce the bundle's golden outputs.
    ANX_RUNTIME_GOLDEN = 405,

    /// The system refuses threads: those of an engine while it is opened, or one that watches deadlines or compiles a JSON schema.
    ANX_RUNTIME_THREADS = 406,

    /// A text cannot be tokenized.
    ANX_PROMPT = 500,
    /// The bundle's tokenizer cannot be used.
    ANX_PROMPT_TOKENIZER = 501,
    /// The question is empty, has more than 8,192 bytes, or holds a control token, a malformed box, or a box outside the image.
    ANX_PROMPT_QUESTION = 502,

    /// The language model cannot answer; the message says why.
    ANX_DECODER = 600,
    /// The JSON schema of a question cannot be used; the message and the cause say why.
    ANX_DECODER_SCHEMA = 601,
    /// There is not enough memory for a KV cache: within the engine's memory_limit, or in the machine.
    ANX_DECODER_MEMORY = 602,
    /// The question and the text before it leave no room for an answer.
    ANX_DECODER_TOO_LONG = 603,

    /// A result cannot be written.
    ANX_OUTPUT = 700,

    /// Bytes are not a saved study, are damaged, or are not of this bundle or version; or a study cannot be saved.
    ANX_SAVED = 800,
}

use anx_status::*;

impl anx_status {
    /// The number of an error.
    pub(super) fn of(error: &Error) -> Self {
        match error.code() {
            ErrorCode::InvalidArgument => ANX_INVALID_ARGUMENT,
            ErrorCode::Stopped => ANX_STOPPED,
            ErrorCode::Deadline => ANX_DEADLINE,
            ErrorCode::Radiograph => ANX_RADIOGRAPH,
            ErrorCode::RadiographRead => ANX_RADIOGRAPH_READ,
            ErrorCode::RadiographFormat => ANX_RADIOGRAPH_FORMAT,
            ErrorCode::RadiographDamaged => ANX_RADIOGRAPH_DAMAGED,
            ErrorCode::RadiographSize => ANX_RADIOGRAPH_SIZE,
            ErrorCode::RadiographMemory => ANX_RADIOGRAPH_MEMORY,
            ErrorCode::RadiographFlagged => ANX_RADIOGRAPH_FLAGGED,
            ErrorCode::Bundle => ANX_BUNDLE,
            ErrorCode::BundleRead => ANX_BUNDLE_READ,
            ErrorCode::BundleMissing => ANX_BUNDLE_MISSING,
            ErrorCode::BundleAltered => ANX_BUNDLE_ALTERED,
            ErrorCode::BundleNewer => ANX_BUNDLE_NEWER,
            ErrorCode::BundleSignature => ANX_BUNDLE_SIGNATURE,
            ErrorCode::Retrieval => ANX_RETRIEVAL,
            ErrorCode::Runtime => ANX_RUNTIME,
            ErrorCode::RuntimeNotFound => ANX_RUNTIME_NOT_FOUND,
            ErrorCode::RuntimeLibrary => ANX_RUNTIME_LIBRARY,
            ErrorCode::RuntimeProvider => ANX_RUNTIME_PROVIDER,
            ErrorCode::RuntimeGraph => ANX_RUNTIME_GRAPH,
            ErrorCode::RuntimeGolden => ANX_RUNTIME_GOLDEN,
            ErrorCode::RuntimeThreads => ANX_RUNTIME_THREADS,
            ErrorCode::Prompt => ANX_PROMPT,
            ErrorCode::PromptTokenizer => ANX_PROMPT_TOKENIZER,
            ErrorCode::PromptQuestion => ANX_PROMPT_QUESTION,
            ErrorCode::Decoder => ANX_DECODER,
            ErrorCode::DecoderSchema => ANX_DECODER_SCHEMA,
            ErrorCode::DecoderMemory => ANX_DECODER_MEMORY,
            ErrorCode::DecoderTooLong => ANX_DECODER_TOO_LONG,
            ErrorCode::Output => ANX_OUTPUT,
            ErrorCode::Saved => ANX_SAVED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DecoderError, QuestionError, RadiographError};
    use crate::{Radiograph, Sampling};

    /// The name of a code is that of the status.
    #[track_caller]
    fn named(error: impl Into<Error>, name: &str) {
        let error = error.into();
        assert_eq!(error.code().name(), name);
        assert_eq!(format!("{:?}", anx_status::of(&error)), format!("ANX_{}", name.to_uppercase()));
    }

    #[test]
    fn names_are_those_of_the_header() {
        named(Radiograph::open("no/such.dcm").unwrap_err(), "radiograph_read");
        named(RadiographError::Memory { name: "a.dcm".into(), bytes: 1 }, "radiograph_memory");
        named(Sampling { top_p: 0.0, ..Sampling::default() }.check().unwrap_err(), "invalid_argument");
        named(QuestionError::FollowUps, "invalid_argument");
        named(DecoderError::Grammar { source: crate::cause::source("x") }, "decoder");
    }
}
