//! Codes of errors, the same in every language.

/// The kind of an error. The C interface has a status of the same name for each, and the Python package its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// An argument or an option is out of its range.
    InvalidArgument,
    /// A cancel handle stopped the call.
    Stopped,
    /// The deadline of the call passed.
    Deadline,
    /// The radiograph cannot be used for another reason: several frames, an unsupported transfer syntax, ...
    Radiograph,
    /// The radiograph's file cannot be read.
    RadiographRead,
    /// The file is neither DICOM nor PNG nor JPEG.
    RadiographFormat,
    /// The file is empty, truncated or otherwise damaged.
    RadiographDamaged,
    /// The image or its file is too small or too large, or its sides do not match the number of pixels.
    RadiographSize,
    /// There is not enough memory for the radiograph.
    RadiographMemory,
    /// The radiograph is flagged "not_chest", "not_frontal" or "for_processing", and the question does not accept flags; see
    /// [`Question::accept_flags`](crate::Question::accept_flags).
    RadiographFlagged,
    /// The bundle's manifest cannot be used.
    Bundle,
    /// The bundle's folder, or a file in it, cannot be read.
    BundleRead,
    /// A file of the bundle is missing.
    BundleMissing,
    /// A file of the bundle is not what the manifest says: it has another size or hash, is not a regular file, was changed while the bundle
    /// was being opened, or is a graph that takes weights from a file that the manifest does not list.
    BundleAltered,
    /// The bundle was made for a newer version of this library.
    BundleNewer,
    /// The bundle is not signed by the owner of the engine's public key.
    BundleSignature,
    /// The bundle's sentence database cannot be used.
    Retrieval,
    /// ONNX Runtime failed on a graph.
    Runtime,
    /// ONNX Runtime's library was not found; the message lists the paths tried.
    RuntimeNotFound,
    /// ONNX Runtime's library cannot be loaded, is too old, or is not the one that this process has loaded before.
    RuntimeLibrary,
    /// The requested provider cannot run here; the message and the cause say why.
    RuntimeProvider,
    /// A graph of the bundle cannot be loaded or lacks an input or output.
    RuntimeGraph,
    /// The provider does not reproduce the bundle's golden outputs.
    RuntimeGolden,
    /// The system refuses threads: those of an engine while it is opened, or one that watches deadlines or compiles a JSON schema.
    RuntimeThreads,
    /// A text cannot be tokenized.
    Prompt,
    /// The bundle's tokenizer cannot be used.
    PromptTokenizer,
    /// The question is empty, has more than 8,192 bytes, or holds a control token, a malformed box, or a box outside the image.
    PromptQuestion,
    /// The language model cannot answer; the message says why.
    Decoder,
    /// The JSON schema of a question cannot be used; the message and the cause say why.
    DecoderSchema,
    /// There is not enough memory for a KV cache: within the engine's memory limit, or in the machine.
    DecoderMemory,
    /// The question and the text before it leave no room for an answer.
    DecoderTooLong,
    /// A result cannot be written.
    Output,
    /// Bytes are not a saved study, are damaged, or are not of this bundle or version; or a study cannot be saved.
    Saved,
}

use ErrorCode::*;

impl ErrorCode {
    /// The name: that of the C interface's status in lower case, without `ANX_`.
    pub fn name(self) -> &'static str {
        match self {
            InvalidArgument => "invalid_argument",
            Stopped => "stopped",
            Deadline => "deadline",
            Radiograph => "radiograph",
            RadiographRead => "radiograph_read",
            RadiographFormat => "radiograph_format",
            RadiographDamaged => "radiograph_damaged",
            RadiographSize => "radiograph_size",
            RadiographMemory => "radiograph_memory",
            RadiographFlagged => "radiograph_flagged",
            Bundle => "bundle",
            BundleRead => "bundle_read",
            BundleMissing => "bundle_missing",
            BundleAltered => "bundle_altered",
            BundleNewer => "bundle_newer",
            BundleSignature => "bundle_signature",
            Retrieval => "retrieval",
            Runtime => "runtime",
            RuntimeNotFound => "runtime_not_found",
            RuntimeLibrary => "runtime_library",
            RuntimeProvider => "runtime_provider",
            RuntimeGraph => "runtime_graph",
            RuntimeGolden => "runtime_golden",
            RuntimeThreads => "runtime_threads",
            Prompt => "prompt",
            PromptTokenizer => "prompt_tokenizer",
            PromptQuestion => "prompt_question",
            Decoder => "decoder",
            DecoderSchema => "decoder_schema",
            DecoderMemory => "decoder_memory",
            DecoderTooLong => "decoder_too_long",
            Output => "output",
            Saved => "saved",
        }
    }
}
