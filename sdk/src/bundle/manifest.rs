//! The manifest: the settings and sizes that belong to a model's weights, and the list of the bundle's files.

use super::error::BundleError;
use super::layout::{APM, DECODER, GOLDEN, MANIFEST, MAX_GOLDEN, MAX_GRAPH, PROJECTOR, TOKENIZER};
use crate::prompt::{MAX_TOKENIZER, PROMPT_VERSION, PromptForm};
use crate::radiograph::Preprocess;
use crate::text::brief;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest accepted side of the network's input, number of patches, number of tokens, and number of layers. Memory is allocated by these
/// sizes.
const MAX_SIZES: [usize; 4] = [4096, 65_536, 262_144, 1024];
/// Largest accepted length of a text and of a file's name, in bytes.
const MAX_TEXT: usize = 200;
const MAX_NAME: usize = 100;
/// Largest accepted number of kinds of processors.
const MAX_PROCESSORS: usize = 64;

/// Names of precisions, and of the operators of a decoder.
const PRECISIONS: [&str; 5] = ["fp32", "fp16", "bf16", "int8", "int4"];
const OPERATORS: [&str; 2] = ["fused", "portable"];

/// The description of a bundle. Unknown fields are ignored, so that a newer trainer can add fields to the same schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Manifest {
    /// Version of the manifest's format.
    pub schema: u32,
    /// The bundle's name.
    pub name: String,
    /// The program that wrote it.
    pub created_by: String,
    /// How a radiograph is turned into the network's input.
    pub preprocess: Preprocess,
    /// Sizes of the perception module.
    pub apm: ApmSizes,
    /// Settings of the prompt.
    pub prompt: PromptSettings,
    /// Sizes of the language model.
    pub decoder: DecoderSizes,
    /// Kinds of processors, by the names of [`crate::runtime::PROCESSORS`], on which the bundle's author checked that it computes the
    /// same. An option of the export sets it, not the machine that the export runs on, so that exports of one training have the same
    /// bytes everywhere. It is empty in older bundles and if nothing was checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checked_on: Vec<String>,
    /// How the graphs were written; `None` for fp32 with operators of ONNX Runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphs: Option<GraphSettings>,
    /// All other files of the bundle, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// Sizes of the perception module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApmSizes {
    /// Number of image tokens.
    pub patches: usize,
    /// Width of an image token.
    pub token_width: usize,
    /// Width of an object embedding.
    pub embedding_width: usize,
}

/// Settings of the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PromptSettings {
    /// Version of the prompt's format: 1 for the published form, 2 for any other.
    pub version: u32,
    /// The form.
    #[serde(flatten)]
    pub form: PromptForm,
}

impl From<PromptForm> for PromptSettings {
    fn from(form: PromptForm) -> Self {
        Self { version: form.version(), form }
    }
}

/// Sizes of the language model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DecoderSizes {
    /// Number of layers.
    pub layers: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Length of the sliding window in tokens, the current token included; `None` if no layer has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Largest number of tokens of context, question and answer together.
    pub max_context: usize,
    /// Precision of the stored weights.
    pub precision: String,
}

/// How graphs were written. Without these settings they compute in fp32, and the decoder uses operators of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GraphSettings {
    /// Precision that the perception module computes in: `fp32`, `fp16` or `int8`.
    pub apm_precision: String,
    /// Operators of the decoder: `fused` for operators of ONNX Runtime, `portable` for operators of the ONNX standard only. Inputs and
    /// outputs are the same.
    pub decoder_operators: String,
    /// Allowed difference of the perception module's outputs from the golden outputs, relative to a tensor's largest value.
    pub apm_tolerance: f32,
    /// Allowed difference of the decoder's logits from the golden logits, relative to the largest one.
    pub decoder_tolerance: f32,
}

/// Allowed difference from golden outputs, relative to a tensor's largest value, for bundles without [`GraphSettings`].
pub const TOLERANCE: f32 = 1e-3;
/// Largest difference that a bundle may allow.
const MAX_TOLERANCE: f32 = 0.25;

/// Size and hash of a file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-fA-F]{64}$")))]
    pub sha256: String,
}

impl FileEntry {
    fn check(&self, name: &str, path: &Path) -> Result<(), BundleError> {
        let plain = Path::new(name).file_name().is_some_and(|own| own == name) && name.len() <= MAX_NAME;
        if !plain || name == MANIFEST {
            return Err(BundleError::Name { path: path.into(), name: brief(name) });
        }
        let invalid = |message: String| Err(BundleError::Manifest { path: path.into(), message, source: None });
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return invalid(format!("the SHA-256 of {} is not 64 hexadecimal digits", brief(name)));
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
    /// Allowed differences from golden outputs: of the perception module and of the decoder.
    pub fn tolerances(&self) -> (f32, f32) {
        self.graphs.as_ref().map_or((TOLERANCE, TOLERANCE), |g| (g.apm_tolerance, g.decoder_tolerance))
    }

    /// Number of rows of visual features that an image has: its patches, or fewer if the prompt pools them.
    pub(crate) fn image_features(&self) -> usize {
        self.prompt.form.image_features(self.apm.patches)
    }

    /// A note for an engine on a CPU of this kind, on one line, if the bundle was checked on other kinds of processors only.
    pub fn processor_note(&self, processor: &str) -> Option<String> {
        let others = &self.checked_on;
        if others.is_empty() || others.iter().any(|one| one == processor) {
            return None;
        }
        Some(format!(
            "the bundle {} was checked on {}, not on {processor}, the kind of this processor; the golden input checks that it computes \
             the same here",
            brief(&self.name),
            brief(others.join(", "))
        ))
    }

    /// Checks versions, sizes, texts, settings, and names of files.
    pub(super) fn check(&self, path: &Path) -> Result<(), BundleError> {
        let versions = [("the preprocessing", self.preprocess.version, 1..=1), ("the prompt", self.prompt.version, 1..=PROMPT_VERSION)];
        for (what, found, known) in versions {
            if found < *known.start() {
                return Err(BundleError::OlderVersion { path: path.into(), what, found, known: *known.start() });
            }
            if found > *known.end() {
                return Err(BundleError::NewerVersion { path: path.into(), what, found, known: *known.end() });
            }
        }
        let invalid = |message: String| Err(BundleError::Manifest { path: path.into(), message, source: None });
        let (apm, decoder) = (&self.apm, &self.decoder);
        let [side, patches, tokens, small] = MAX_SIZES;
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
        let form = &self.prompt.form;
        form.check(apm.patches).or_else(|problem| invalid(format!("prompt.{problem}")))?;
        if self.prompt.version < form.version() {
            return invalid(format!("prompt.version is {}, but its form needs version {}", self.prompt.version, form.version()));
        }
        let texts = [("name", &self.name), ("created_by", &self.created_by)];
        let kinds = self.checked_on.iter().map(|kind| ("checked_on", kind));
        if let Some((name, text)) = texts.into_iter().chain(kinds).find(|(_, text)| text.len() > MAX_TEXT) {
            return invalid(format!("{name} has {} bytes, more than {MAX_TEXT}", text.len()));
        }
        if self.name.trim().is_empty() {
            return invalid("name is empty".into());
        }
        let graphs = self.graphs.iter().flat_map(|graphs| {
            [
                ("graphs.apm_precision", &graphs.apm_precision, &PRECISIONS[..]),
                ("graphs.decoder_operators", &graphs.decoder_operators, &OPERATORS[..]),
            ]
        });
        let settings = [("decoder.precision", &decoder.precision, &PRECISIONS[..])].into_iter().chain(graphs);
        for (name, value, known) in settings {
            if !known.contains(&value.as_str()) {
                return invalid(format!("{name} is {:?}, which this SDK does not know; it knows {}", brief(value), known.join(", ")));
            }
        }
        if self.checked_on.len() > MAX_PROCESSORS {
            return invalid(format!("checked_on has {} entries, more than {MAX_PROCESSORS}", self.checked_on.len()));
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
        // An older manifest has no such field: there is no note, and the field is not written.
        let manifest = read(&value);
        assert_eq!(manifest.processor_note("x86-64"), None);
        assert!(!serde_json::to_string(&manifest).unwrap().contains("checked_on"));
        value["checked_on"] = serde_json::json!(["x86-64 AVX2", "x86-64 AVX-512 VNNI"]);
        let manifest = read(&value);
        assert_eq!(manifest.processor_note("x86-64 AVX2"), None);
        let note = manifest.processor_note("x86-64").unwrap();
        assert!(note.contains("was checked on x86-64 AVX2, x86-64 AVX-512 VNNI, not on x86-64,"), "{note}");
        value["name"] = serde_json::json!("two\nlines\u{1b}[2J");
        let note = read(&value).processor_note("x86-64").unwrap();
        assert!(note.contains(r"two lines\u{1b}[2J") && !note.contains(char::is_control), "{note}");
    }
}
