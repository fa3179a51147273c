//! Import of the base language model: a Hugging Face folder with a Gemma 3 decoder. A vision tower in it is not imported.

use super::checkpoint::{Checkpoint, json};
use super::error::ImportError;
use super::names;
use super::tokens;
use crate::models::gemma::{EMBEDDING, GemmaConfig, HEAD};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use tokenizers::Tokenizer;

/// Largest accepted size in a configuration.
const MAX_SIZE: i64 = 1 << 24;
/// Largest number of rows that are added to a table: for the prompt's tokens, and for tokens that a tokenizer has beyond its model's table.
const MAX_ADDED_ROWS: i64 = 1024;
/// Largest number of tokens that a run supports, context and answer together.
const MAX_POSITIONS: i64 = 8192;

/// A complete language model, whose embedding table has a row for each of the prompt's tokens.
pub(super) struct LanguageModel {
    pub config: GemmaConfig,
    pub tokenizer: Tokenizer,
    pub chat_template: Option<String>,
    pub checkpoint: Checkpoint,
    /// Number of rows that were added to the embedding table.
    pub added_rows: i64,
}

impl LanguageModel {
    /// Reads and checks configuration, names, shapes and tokenizer.
    pub fn open(folder: &Path) -> Result<Self, ImportError> {
        let mut config = config(folder)?;
        let tokenizer = tokens::language_tokenizer(folder)?;
        let chat_template = tokens::chat_template(folder)?;
        let mut checkpoint = Checkpoint::folder(folder)?.renamed(own_name)?;
        // As in transformers, an output layer that differs from the embedding table is not tied to it, whatever the configuration says.
        let head = checkpoint.tensors.get(HEAD);
        if let (true, Some(table), Some(head)) = (config.tie_word_embeddings, checkpoint.tensors.get(EMBEDDING), head) {
            if head.equals(table).map_err(|e| ImportError::file(folder, e))? {
                checkpoint.tensors.remove(HEAD);
            } else {
                config.tie_word_embeddings = false;
            }
        }
        checkpoint.check(&names::language(&config))?;
        let added_rows = (tokens::rows(&tokenizer) - config.vocab_size).max(0);
        if added_rows > MAX_ADDED_ROWS {
            return Err(tokens::other_model(folder, &tokenizer, config.vocab_size));
        }
        if added_rows > 0 {
            for name in [EMBEDDING, HEAD] {
                if let Some(table) = checkpoint.tensors.remove(name) {
                    let table = table.with_mean_rows(added_rows as usize).map_err(|e| ImportError::file(folder, e))?;
                    checkpoint.tensors.insert(name.into(), table);
                }
            }
            config.vocab_size += added_rows;
        }
        Ok(Self { config, tokenizer, chat_template, checkpoint, added_rows })
    }
}

/// A tensor's name in a run, for all published layouts; `None` for the vision tower and for computed rotary tables.
pub(super) fn own_name(name: &str) -> Option<String> {
    let mut core = name;
    while let Some(rest) = ["base_model.", "model.", "language_model."].iter().find_map(|prefix| core.strip_prefix(prefix)) {
        core = rest;
    }
    let unused = ["vision_tower.", "multi_modal_projector."].iter().any(|tower| core.starts_with(tower)) || core.contains("rotary_emb.");
    (!unused).then(|| if core.starts_with("lm_head.") { core.into() } else { format!("model.{core}") })
}

/// A Gemma 3 text model's configuration, with the defaults of transformers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Gemma {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: i64,
    head_dim: i64,
    hidden_activation: String,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    query_pre_attn_scalar: f64,
    sliding_window: Option<i64>,
    sliding_window_pattern: Option<i64>,
    layer_types: Option<Vec<String>>,
    rope_theta: f64,
    rope_local_base_freq: f64,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<RopeOfLayers>,
    attention_bias: bool,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    use_bidirectional_attention: Option<bool>,
    tie_word_embeddings: Option<bool>,
}

impl Default for Gemma {
    fn default() -> Self {
        Self {
            vocab_size: 262_208,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: "gelu_pytorch_tanh".into(),
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-6,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            sliding_window_pattern: None,
            layer_types: None,
            rope_theta: 1e6,
            rope_local_base_freq: 1e4,
            rope_scaling: None,
            rope_parameters: None,
            attention_bias: false,
            final_logit_softcapping: None,
            attn_logit_softcapping: None,
            use_bidirectional_attention: None,
            tie_word_embeddings: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    rope_theta: Option<f64>,
}

impl Rope {
    /// Divisor of the positions.
    fn divisor(&self) -> Result<f64, String> {
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(1.0),
            Some("linear") => Ok(self.factor.unwrap_or(1.0)),
            Some(other) => Err(format!("rope_type {other:?}; only \"default\" and \"linear\" are supported")),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RopeOfLayers {
    full_attention: Option<Rope>,
    sliding_attention: Option<Rope>,
}

fn config(folder: &Path) -> Result<GemmaConfig, ImportError> {
    let path = folder.join("config.json");
    let whole: Value = json(&path)?;
    let model_type = whole.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let text = match model_type {
        "gemma3_text" => &whole,
        "gemma3" => whole.get("text_config").unwrap_or(&Value::Null),
        other => return Err(ImportError::unsupported(&path, format!("model_type {other:?}; Gemma 3 is \"gemma3\" or \"gemma3_text\""))),
    };
    let text: Gemma = serde_json::from_value(text.clone()).map_err(|e| ImportError::file(&path, e))?;
    let tied = whole.get("tie_word_embeddings").and_then(Value::as_bool).or(text.tie_word_embeddings).unwrap_or(true);
    let config = text.model(tied).map_err(|message| ImportError::unsupported(&path, message))?;
    Ok(config)
}

impl Gemma {
    fn model(&self, tie_word_embeddings: bool) -> Result<GemmaConfig, String> {
        for (unsupported, name) in [
            (self.hidden_activation != "gelu_pytorch_tanh", "another hidden_activation than gelu_pytorch_tanh"),
            (self.attention_bias, "attention_bias"),
            (self.final_logit_softcapping.is_some(), "final_logit_softcapping"),
            (self.attn_logit_softcapping.is_some(), "attn_logit_softcapping"),
            (self.use_bidirectional_attention == Some(true), "use_bidirectional_attention"),
        ] {
            if unsupported {
                return Err(format!("{name}, which this decoder does not have"));
            }
        }
        let layers = self.num_hidden_layers;
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.max_position_embeddings,
        ];
        if let Some(size) = sizes.into_iter().find(|size| !(1..=MAX_SIZE).contains(size)) {
            return Err(format!("a size of {size}"));
        }
        if layers > 1000 || self.head_dim % 2 != 0 || self.num_attention_heads % self.num_key_value_heads != 0 {
            let heads = (self.num_attention_heads, self.num_key_value_heads, self.head_dim);
            return Err(format!("{layers} layers with (heads, key and value heads, width of a head) of {heads:?}"));
        }
        let rope = self.rope_parameters.clone().unwrap_or_default();
        let full = self.rope_scaling.clone().or(rope.full_attention).unwrap_or_default();
        let sliding = rope.sliding_attention.unwrap_or_default();
        if sliding.divisor()? != 1.0 {
            return Err("scaled rotary position embeddings in sliding layers".into());
        }
        let config = GemmaConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            query_pre_attn_scalar: self.query_pre_attn_scalar,
            sliding_window: self.sliding_window.unwrap_or(self.max_position_embeddings),
            sliding_window_pattern: self.pattern()?,
            rope_theta: full.rope_theta.unwrap_or(self.rope_theta),
            rope_factor: full.divisor()?,
            rope_local_base_freq: sliding.rope_theta.unwrap_or(self.rope_local_base_freq),
            rms_norm_eps: self.rms_norm_eps,
            tie_word_embeddings,
            max_position_embeddings: self.max_position_embeddings.min(MAX_POSITIONS),
        };
        let positive = [config.query_pre_attn_scalar, config.rope_theta, config.rope_factor, config.rope_local_base_freq];
        if !positive.into_iter().all(|x| x.is_finite() && x > 0.0) || config.sliding_window < 1 {
            return Err("a query_pre_attn_scalar, a rotary base or factor, or a sliding_window that is not positive".into());
        }
        Ok(config)
    }

    /// The distance between two full layers, see [`GemmaConfig::sliding_window_pattern`].
    fn pattern(&self) -> Result<i64, String> {
        let layers = self.num_hidden_layers;
        let Some(types) = &self.layer_types else {
            let pattern = self.sliding_window_pattern.unwrap_or(6);
            return if pattern > 0 { Ok(pattern) } else { Err(format!("a sliding_window_pattern of {pattern}")) };
        };
        let full = |name: &str| name == "full_attention";
        let pattern = types.iter().position(|t| full(t)).map_or(layers + 1, |first| first as i64 + 1);
        let regular = (1..).zip(types).all(|(i, t)| full(t) == (i % pattern == 0) && (full(t) || t == "sliding_attention"));
        if !regular || types.len() as i64 != layers {
            return Err("layer_types without a regular pattern of sliding layers and one full layer".into());
        }
        Ok(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<GemmaConfig, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        config(folder.path())
    }

    #[test]
    fn published_configuration() {
        // Keys that are missing in the published file have the defaults of transformers.
        let hub = r#"{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "mm_tokens_per_image": 256,
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {"hidden_size": 1152}}"#;
        assert_eq!(parsed(hub).unwrap(), GemmaConfig::default());
        let newer = r#"{"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 7,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention",
            "full_attention", "sliding_attention"], "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}, "sliding_window": 512, "tie_word_embeddings": false}"#;
        let newer = parsed(newer).unwrap();
        assert_eq!((newer.sliding_window_pattern, newer.rope_theta, newer.rope_factor), (3, 5e5, 1.0));
        assert_eq!((newer.rope_local_base_freq, newer.tie_word_embeddings, newer.sliding_window), (2e4, false, 512));
    }

    #[test]
    fn unsupported_configurations_are_refused() {
        for (text, expected) in [
            (r#"{"model_type": "llama"}"#, "llama"),
            (r#"{"model_type": "gemma3_text", "final_logit_softcapping": 30.0}"#, "final_logit_softcapping"),
            (
                r#"{"model_type": "gemma3_text", "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}"#,
                "layer_types",
            ),
            (r#"{"model_type": "gemma3_text", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}"#, "yarn"),
            (r#"{"model_type": "gemma3_text", "num_key_value_heads": 0}"#, "a size of 0"),
            (r#"{"model_type": "gemma3_text", "hidden_size": 9223372036854775807}"#, "a size of"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn names_of_all_layouts() {
        for (name, expected) in [
            ("language_model.model.layers.3.mlp.up_proj.weight", Some("model.layers.3.mlp.up_proj.weight")),
            ("model.language_model.embed_tokens.weight", Some("model.embed_tokens.weight")),
            ("model.norm.weight", Some("model.norm.weight")),
            ("language_model.lm_head.weight", Some("lm_head.weight")),
            ("vision_tower.vision_model.embeddings.patch_embedding.weight", None),
            ("model.multi_modal_projector.mm_input_projection_weight", None),
        ] {
            assert_eq!(own_name(name).as_deref(), expected);
        }
    }
}
