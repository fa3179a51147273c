//! Names and size limits of a bundle's files.

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
/// The golden input: an input with the outputs that every provider must reproduce.
pub const GOLDEN: &str = "golden.safetensors";

/// The decoder's input with the attention bias of layers without a sliding window.
pub const FULL_ATTENTION_BIAS: &str = "full_attention_bias";
/// The decoder's input with the attention bias of layers with a sliding window.
pub const SLIDING_ATTENTION_BIAS: &str = "sliding_attention_bias";
/// The symbolic name of a KV cache's length in graphs whose layers with a sliding window accept a part of the cache: such a layer attends
/// to the last places of what it is given, as many as the attention bias has columns.
pub const SLIDING_PLACES: &str = "sliding_capacity";

/// The signature of the manifest, if there is one; minisign gives it this name.
pub const SIGNATURE: &str = "manifest.json.minisig";

/// Files that every manifest must list.
pub(crate) const REQUIRED: [&str; 6] = [APM, PROJECTOR, DECODER, SENTENCES, TOKENIZER, GOLDEN];
/// The graphs among these files.
pub(crate) const GRAPHS: [&str; 3] = [APM, PROJECTOR, DECODER];
/// Largest accepted manifest in bytes.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
/// Largest accepted signature in bytes.
pub(crate) const MAX_SIGNATURE: u64 = 4096;
/// Largest accepted size of a graph in bytes; weights are in other files.
pub(crate) const MAX_GRAPH: u64 = 64 << 20;
/// Largest accepted size of the golden input in bytes.
pub(crate) const MAX_GOLDEN: u64 = 256 << 20;
/// Opening a bundle of at most this size in bytes compares the hashes of its files. Larger bundles are hashed by `bundle verify` only.
pub(crate) const HASHED_ON_OPEN: u64 = 256 << 20;
/// A sentence database of at most this size in bytes is hashed with the other files. Of a larger one, opening reads the header only.
pub(crate) const DATABASE_HASHED_ON_OPEN: u64 = 1 << 20;
