//! BERT encoders in a user's folder, for judging texts: BERT and DistilBERT models with their WordPiece tokenizer.

use super::checkpoint::{Checkpoint, json};
use super::error::ImportError;
use super::names;
use super::stored::Stored;
use super::text;
use super::tokens;
use crate::graph::Params;
use crate::models::text::TextConfig;
use safetensors::Dtype;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Name of the table of token types, which DistilBERT does not have.
const TYPES: &str = "embeddings.token_type_embeddings.weight";

/// An encoder with its parameters in memory, in fp32.
pub struct Encoder {
    /// Its sizes.
    pub config: TextConfig,
    /// Its tokenizer, which truncates texts to the encoder's positions.
    pub tokenizer: Tokenizer,
    /// Its parameters by the names of BERT, and those of heads.
    pub params: Params,
}

/// A DistilBERT model's `config.json`, with the defaults of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct Distilled {
    vocab_size: i64,
    dim: i64,
    n_layers: i64,
    n_heads: i64,
    hidden_dim: i64,
    max_position_embeddings: i64,
    activation: String,
}

impl Default for Distilled {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            activation: "gelu".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Described {
    model_type: String,
}

impl Default for Described {
    fn default() -> Self {
        Self { model_type: "bert".into() }
    }
}

/// What is opened of a folder.
pub struct Wanted<'a> {
    /// Number of layers that are used, from the first; `None` for all.
    pub layers: Option<i64>,
    /// File of the parameters; `None` for those of a Hugging Face folder.
    pub file: Option<PathBuf>,
    /// The name of a tensor, from its name in the file; `None` for one that is not used.
    pub rename: &'a dyn Fn(&str) -> Option<String>,
    /// Names and shapes of heads, from the encoder's width.
    pub heads: &'a dyn Fn(i64) -> Vec<(String, Vec<i64>)>,
}

/// Whether a folder holds a DistilBERT.
///
/// # Errors
/// If its `config.json` cannot be read.
pub fn is_distilled(folder: &Path) -> Result<bool, ImportError> {
    let path = folder.join("config.json");
    let described: Described = if path.exists() { json(&path)? } else { Described::default() };
    Ok(described.model_type == "distilbert")
}

/// Opens an encoder. Without a `config.json` it has the sizes of BERT base.
///
/// # Errors
/// If a file is missing, or names, shapes or sizes are not those of such an encoder.
pub fn open(folder: &Path, wanted: &Wanted) -> Result<Encoder, ImportError> {
    let path = folder.join("config.json");
    let is_distilled = is_distilled(folder)?;
    let mut config = match (path.exists(), is_distilled) {
        (true, true) => distilled(&path)?,
        (true, false) => text::config(folder)?,
        (false, _) => TextConfig::default(),
    };
    if let Some(layers) = wanted.layers {
        if layers > config.layers {
            return Err(ImportError::unsupported(folder, format!("{} layers, of which {layers} are needed", config.layers)));
        }
        config.layers = layers;
    }
    let stored = match &wanted.file {
        Some(file) => Checkpoint::open(file)?,
        None => Checkpoint::folder(folder)?,
    };
    let used = |name: &str| {
        let name = (wanted.rename)(name)?;
        let name = if is_distilled { bert_name(&name)? } else { text::own_name(&name)? };
        let layer = name.strip_prefix("encoder.layer.").and_then(|rest| rest.split('.').next()?.parse::<i64>().ok());
        layer.is_none_or(|layer| layer < config.layers).then_some(name)
    };
    let mut checkpoint = stored.renamed(used)?;
    if is_distilled {
        checkpoint.tensors.insert(TYPES.into(), Stored::zeros(TYPES.into(), vec![2, config.width as usize]));
    }
    let mut expected = names::text(&config);
    expected.extend((wanted.heads)(config.width));
    checkpoint.check(&expected)?;
    let tokenizer = tokens::sentence_tokenizer(folder, config.positions as usize)?;
    tokens::check_rows(folder, &tokenizer, config.vocabulary)?;
    let params = Params::create(Device::Cpu);
    for (name, stored) in &checkpoint.tensors {
        params.insert(name, tensor(&checkpoint.path, stored)?);
    }
    Ok(Encoder { config, tokenizer, params })
}

/// The values of a tensor in fp32.
fn tensor(path: &Path, stored: &Stored) -> Result<Tensor, ImportError> {
    let failed = |message: String| ImportError::file(path, format!("{}: {message}", stored.source));
    let mut bytes = Vec::with_capacity(stored.bytes() as usize);
    let read = stored.read(&mut |block| {
        bytes.extend_from_slice(block);
        Ok(())
    });
    read.map_err(|e| failed(e.to_string()))?;
    let kind = match stored.dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        _ => Kind::Float,
    };
    let shape: Vec<i64> = stored.shape.iter().map(|&side| side as i64).collect();
    Ok(Tensor::f_from_data_size(&bytes, &shape, kind).map_err(|e| failed(e.to_string()))?.to_kind(Kind::Float))
}

fn distilled(path: &Path) -> Result<TextConfig, ImportError> {
    let found: Distilled = json(path)?;
    if found.activation != "gelu" {
        return Err(ImportError::unsupported(path, format!("activation {:?}, not \"gelu\"", found.activation)));
    }
    let sizes = [found.vocab_size, found.dim, found.n_layers, found.n_heads, found.hidden_dim, found.max_position_embeddings];
    if let Some(size) = sizes.into_iter().find(|size| !(1..=text::MAX_SIZE).contains(size)) {
        return Err(ImportError::unsupported(path, format!("a size of {size}")));
    }
    if found.n_layers > 1000 || found.dim % found.n_heads != 0 {
        return Err(ImportError::unsupported(path, format!("{} layers, dim {} for {} heads", found.n_layers, found.dim, found.n_heads)));
    }
    Ok(TextConfig {
        vocabulary: found.vocab_size,
        width: found.dim,
        layers: found.n_layers,
        heads: found.n_heads,
        feed_forward: found.hidden_dim,
        positions: found.max_position_embeddings,
        ..TextConfig::default()
    })
}

/// BERT's name of a tensor of DistilBERT; `None` for its pretraining head.
fn bert_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("distilbert.").unwrap_or(name);
    if ["vocab_", "embeddings.position_ids"].iter().any(|unused| name.starts_with(unused)) {
        return None;
    }
    let Some((number, part)) = name.strip_prefix("transformer.layer.").and_then(|rest| rest.split_once('.')) else {
        return Some(name.into());
    };
    let parts = [
        ("attention.q_lin", "attention.self.query"),
        ("attention.k_lin", "attention.self.key"),
        ("attention.v_lin", "attention.self.value"),
        ("attention.out_lin", "attention.output.dense"),
        ("sa_layer_norm", "attention.output.LayerNorm"),
        ("ffn.lin1", "intermediate.dense"),
        ("ffn.lin2", "output.dense"),
        ("output_layer_norm", "output.LayerNorm"),
    ];
    let renamed = parts.iter().find_map(|(own, bert)| Some(format!("{bert}{}", part.strip_prefix(own)?)));
    Some(format!("encoder.layer.{number}.{}", renamed.unwrap_or_else(|| part.into())))
}
