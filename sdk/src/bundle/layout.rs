//! What lies in a bundle's folder, by name, and how large it may be.

/// The manifest's schema that this SDK writes and reads.
pub const SCHEMA: u32 = 1;
/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The perception module.
pub const APM: &str = "apm.onnx";
/// The projectors.
pub const PROJECTOR: &str = "projector.onnx";
/// The language model.
pub const DECODER: &str = "decoder.onnx";
/// The sentence database.
pub const SENTENCES: &str = "sentences.safetensors";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// An input with its outputs, which every provider must reproduce.
pub const GOLDEN: &str = "golden.safetensors";

/// The decoder's input that says what layers without a window see.
pub const FULL_ATTENTION_BIAS: &str = "full_attention_bias";
/// The decoder's input that says what layers with a window see.
pub const SLIDING_ATTENTION_BIAS: &str = "sliding_attention_bias";
/// What a decoder calls the places of a cache that may be given from any place on: as many of the last ones are used as that input
/// has columns.
pub const SLIDING_PLACES: &str = "sliding_capacity";

/// Files that a bundle must list.
pub(crate) const REQUIRED: [&str; 6] = [APM, PROJECTOR, DECODER, SENTENCES, TOKENIZER, GOLDEN];
/// The graphs among them.
pub(crate) const GRAPHS: [&str; 3] = [APM, PROJECTOR, DECODER];
/// Largest accepted manifest in bytes.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
/// Largest accepted size in bytes of a graph, whose weights are in other files.
pub(crate) const MAX_GRAPH: u64 = 64 << 20;
/// Largest accepted size in bytes of the golden input, which is read whole.
pub(crate) const MAX_GOLDEN: u64 = 256 << 20;
/// Bundles up to this size in bytes are hashed whole when they are opened; larger ones by `bundle verify` only.
pub(crate) const HASHED_ON_OPEN: u64 = 256 << 20;
/// Sentence databases up to this size in bytes are hashed when they are opened. Of larger ones no more than the header is read.
pub(crate) const DATABASE_HASHED_ON_OPEN: u64 = 1 << 20;
