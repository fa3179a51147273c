//! The manifest: what belongs to the weights and is therefore data, not code.

use super::error::BundleError;
use super::layout::{APM, DECODER, GOLDEN, MANIFEST, MAX_GOLDEN, MAX_GRAPH, PROJECTOR, TOKENIZER};
use crate::prompt::{MAX_TOKENIZER, PROMPT_VERSION};
use crate::radiograph::Preprocess;
use crate::text::brief;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest accepted side of the network's input, number of patches, of tokens, of layers: sizes are allocated from these.
const LIMITS: [usize; 4] = [4096, 65_536, 262_144, 1024];
/// Longest accepted text, and longest name of a file, in bytes.
const LONGEST_TEXT: usize = 200;
const LONGEST_NAME: usize = 100;
/// Most accepted kinds of processors.
const MOST_PROCESSORS: usize = 64;

/// A bundle's description. Unknown fields are ignored, so that a newer writer of the same schema can add some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this description.
    pub schema: u32,
    /// The bundle's name.
    pub name: String,
    /// What made it.
    pub created_by: String,
    /// How a radiograph becomes the network's input.
    pub preprocess: Preprocess,
    /// Sizes of the perception module.
    pub apm: ApmSizes,
    /// The prompt.
    pub prompt: PromptSettings,
    /// Sizes of the language model.
    pub decoder: DecoderSizes,
    /// Kinds of processors on which whoever exported the bundle says that it computes the same, by the names of
    /// [`crate::runtime::PROCESSORS`]. It is what was said at the export, not where the export ran: equal runs give equal bytes on
    /// every machine. Nothing is said where it is empty, as in bundles of before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checked_on: Vec<String>,
    /// How the graphs were written, where that is not the usual way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphs: Option<GraphSettings>,
    /// Every other file of the bundle.
    pub files: BTreeMap<String, FileEntry>,
}

/// Sizes of the perception module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApmSizes {
    /// Image tokens.
    pub patches: usize,
    /// Width of an image token.
    pub token_width: usize,
    /// Width of an object embedding.
    pub embedding_width: usize,
}

/// The prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptSettings {
    /// Version of its text.
    pub version: u32,
}

/// Sizes of the language model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderSizes {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of a token's features.
    pub hidden: usize,
    /// Rows of the vocabulary.
    pub vocabulary: usize,
    /// How many tokens back a local layer sees, itself included; `None` where there is no such layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Longest context in tokens, answer included.
    pub max_context: usize,
    /// How weights are stored.
    pub precision: String,
}

/// How graphs were written. Without it they compute in fp32, the decoder in operators of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphSettings {
    /// What the perception module computes in: `fp32`, `fp16` or `int8`.
    pub apm_precision: String,
    /// What the decoder is written in: `fused`, with operators of ONNX Runtime, or `portable`, of the ONNX standard only. Inputs,
    /// outputs and the cache that is past and present are the same.
    pub decoder_operators: String,
    /// How far the perception module's outputs may be from the golden ones, relative to a tensor's largest value.
    pub apm_tolerance: f32,
    /// The same for the logits.
    pub decoder_tolerance: f32,
}

/// Allowed difference from golden outputs, relative to a tensor's largest value, where a bundle does not say.
pub const TOLERANCE: f32 = 1e-3;
/// No bundle may allow more than this.
const MAX_TOLERANCE: f32 = 0.25;

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl FileEntry {
    fn check(&self, name: &str, path: &Path) -> Result<(), BundleError> {
        let plain = Path::new(name).file_name().is_some_and(|own| own == name) && name.len() <= LONGEST_NAME;
        if !plain || name == MANIFEST {
            return Err(BundleError::Name { path: path.into(), name: brief(name) });
        }
        let invalid = |message: String| Err(BundleError::Manifest { path: path.into(), message, source: None });
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return invalid(format!("the SHA-256 of {name} is not 64 hexadecimal digits"));
        }
        let limit = match name {
            APM | PROJECTOR | DECODER => MAX_GRAPH,
            TOKENIZER => MAX_TOKENIZER,
            GOLDEN => MAX_GOLDEN,
            _ => u64::MAX,
        };
        if self.bytes > limit {
            return invalid(format!("{name} has {} bytes, but may have at most {limit}", self.bytes));
        }
        Ok(())
    }
}

impl Manifest {
    /// Allowed differences from golden outputs: the perception module's and the decoder's.
    pub fn tolerances(&self) -> (f32, f32) {
        self.graphs.as_ref().map_or((TOLERANCE, TOLERANCE), |g| (g.apm_tolerance, g.decoder_tolerance))
    }

    /// What an engine on the CPU of this kind of processor has to say about the bundle: a line where the bundle was checked on
    /// others only.
    pub fn processor_note(&self, processor: &str) -> Option<String> {
        let others = &self.checked_on;
        if others.is_empty() || others.iter().any(|one| one == processor) {
            return None;
        }
        Some(format!(
            "the bundle {} was checked on {}, not on {processor}, which this processor is; its golden input tells whether it computes \
             the same here",
            self.name,
            others.join(", ")
        ))
    }

    /// Checks what does not follow from the types: versions, sizes, the lengths of texts, and the names of files.
    pub(super) fn check(&self, path: &Path) -> Result<(), BundleError> {
        for (what, found, known) in [("the preprocessing", self.preprocess.version, 1), ("the prompt", self.prompt.version, PROMPT_VERSION)]
        {
            match found.cmp(&known) {
                Ordering::Less => return Err(BundleError::OlderVersion { path: path.into(), what, found, known }),
                Ordering::Greater => return Err(BundleError::NewerVersion { path: path.into(), what, found, known }),
                Ordering::Equal => {}
            }
        }
        let invalid = |message: String| Err(BundleError::Manifest { path: path.into(), message, source: None });
        let (apm, decoder) = (&self.apm, &self.decoder);
        let [side, patches, tokens, small] = LIMITS;
        for (name, value, limit) in [
            ("preprocess.size", self.preprocess.size as usize, side),
            ("apm.patches", apm.patches, patches),
            ("apm.token_width", apm.token_width, patches),
            ("apm.embedding_width", apm.embedding_width, small),
            ("decoder.layers", decoder.layers, small),
            ("decoder.kv_heads", decoder.kv_heads, small),
            ("decoder.head_dim", decoder.head_dim, small),
            ("decoder.hidden", decoder.hidden, patches),
            ("decoder.vocabulary", decoder.vocabulary, 1 << 24),
            ("decoder.sliding_window", decoder.sliding_window.unwrap_or(1), 1 << 24),
            ("decoder.max_context", decoder.max_context, tokens),
        ] {
            if !(1..=limit).contains(&value) {
                return invalid(format!("{name} is {value}, but must lie between 1 and {limit}"));
            }
        }
        let graphs = self.graphs.iter();
        let graphs = graphs.flat_map(|g| [("graphs.apm_precision", &g.apm_precision), ("graphs.decoder_operators", &g.decoder_operators)]);
        let texts = [("name", &self.name), ("created_by", &self.created_by), ("decoder.precision", &decoder.precision)];
        let kinds = self.checked_on.iter().map(|kind| ("checked_on", kind));
        if let Some((name, text)) = texts.into_iter().chain(graphs).chain(kinds).find(|(_, text)| text.len() > LONGEST_TEXT) {
            return invalid(format!("{name} has {} bytes, more than {LONGEST_TEXT}", text.len()));
        }
        if self.checked_on.len() > MOST_PROCESSORS {
            return invalid(format!("checked_on has {} entries, more than {MOST_PROCESSORS}", self.checked_on.len()));
        }
        let (apm, decoder) = self.tolerances();
        if let Some(value) = [apm, decoder].into_iter().find(|v| !(0.0..=MAX_TOLERANCE).contains(v)) {
            return invalid(format!("a tolerance is {value}, but must lie between 0 and {MAX_TOLERANCE}"));
        }
        self.files.iter().try_for_each(|(name, entry)| entry.check(name, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_a_bundle_was_checked_on() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle/manifest.json");
        let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        value.as_object_mut().unwrap().remove("checked_on");
        let read = |value: &serde_json::Value| serde_json::from_value::<Manifest>(value.clone()).unwrap();
        // A manifest of before says nothing, so nothing is said about it; nor is anything written where nothing was said.
        let manifest = read(&value);
        assert_eq!(manifest.processor_note("x86-64"), None);
        assert!(!serde_json::to_string(&manifest).unwrap().contains("checked_on"));
        value["checked_on"] = serde_json::json!(["x86-64 AVX2", "x86-64 AVX-512 VNNI"]);
        let manifest = read(&value);
        assert_eq!(manifest.processor_note("x86-64 AVX2"), None);
        let note = manifest.processor_note("x86-64").unwrap();
        assert!(note.contains("was checked on x86-64 AVX2, x86-64 AVX-512 VNNI, not on x86-64,"), "{note}");
    }
}
