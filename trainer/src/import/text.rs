//! Import of the sentence encoder: a folder with a BERT model and its WordPiece tokenizer, such as PubMedBERT.

use super::checkpoint::{Checkpoint, json};
use super::error::ImportError;
use super::names;
use super::tokens;
use crate::models::text::TextConfig;
use serde::Deserialize;
use std::path::Path;
use tokenizers::Tokenizer;

/// Largest accepted size in a configuration.
pub(super) const MAX_SIZE: i64 = 1 << 24;

/// A complete sentence encoder.
pub(super) struct SentenceEncoder {
    pub config: TextConfig,
    pub tokenizer: Tokenizer,
    pub checkpoint: Checkpoint,
}

/// A BERT model's `config.json`, with the defaults of transformers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Bert {
    model_type: String,
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    hidden_act: String,
    layer_norm_eps: f64,
    position_embedding_type: String,
}

impl Default for Bert {
    fn default() -> Self {
        Self {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".into(),
        }
    }
}

impl SentenceEncoder {
    /// Reads and checks configuration, names, shapes and tokenizer.
    pub fn open(folder: &Path) -> Result<Self, ImportError> {
        let config = config(folder)?;
        let checkpoint = Checkpoint::folder(folder)?.renamed(own_name)?;
        checkpoint.check(&names::text(&config))?;
        let tokenizer = tokens::sentence_tokenizer(folder, config.positions as usize)?;
        tokens::check_rows(folder, &tokenizer, config.vocabulary)?;
        Ok(Self { config, tokenizer, checkpoint })
    }
}

/// A tensor's name in a run; `None` for pretraining heads and the pooler, which are not imported.
pub(super) fn own_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    if ["pooler.", "cls.", "embeddings.position_ids"].iter().any(|unused| name.starts_with(unused)) {
        return None;
    }
    // Checkpoints that were converted from TensorFlow have its names of norms.
    let name = match name.strip_suffix(".gamma") {
        Some(norm) => format!("{norm}.weight"),
        None => name.strip_suffix(".beta").map_or_else(|| name.into(), |norm| format!("{norm}.bias")),
    };
    Some(name)
}

pub(super) fn config(folder: &Path) -> Result<TextConfig, ImportError> {
    let path = folder.join("config.json");
    let bert: Bert = json(&path)?;
    let found = [
        (bert.model_type == "bert", format!("model_type {:?}, not \"bert\"", bert.model_type)),
        (bert.hidden_act == "gelu", format!("hidden_act {:?}, not \"gelu\"", bert.hidden_act)),
        (bert.position_embedding_type == "absolute", format!("position_embedding_type {:?}", bert.position_embedding_type)),
        (bert.layer_norm_eps == 1e-12, format!("layer_norm_eps {}, not 1e-12", bert.layer_norm_eps)),
        (bert.type_vocab_size == 2, format!("type_vocab_size {}, not 2", bert.type_vocab_size)),
        (bert.num_hidden_layers <= 1000, format!("num_hidden_layers {}", bert.num_hidden_layers)),
        (
            bert.num_attention_heads > 0 && bert.hidden_size % bert.num_attention_heads == 0,
            format!("hidden_size {} for {} heads", bert.hidden_size, bert.num_attention_heads),
        ),
    ];
    for (supported, what) in found {
        if !supported {
            return Err(ImportError::unsupported(&path, what));
        }
    }
    let sizes = [bert.vocab_size, bert.hidden_size, bert.num_hidden_layers, bert.intermediate_size, bert.max_position_embeddings];
    if let Some(size) = sizes.into_iter().find(|size| !(1..=MAX_SIZE).contains(size)) {
        return Err(ImportError::unsupported(&path, format!("a size of {size}")));
    }
    Ok(TextConfig {
        vocabulary: bert.vocab_size,
        width: bert.hidden_size,
        layers: bert.num_hidden_layers,
        heads: bert.num_attention_heads,
        feed_forward: bert.intermediate_size,
        positions: bert.max_position_embeddings,
        ..Default::default()
    })
}
