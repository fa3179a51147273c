//! Import of DINOv3 as the image encoder, from its Hugging Face folder or from inside a perception module.

use super::checkpoint::{Checkpoint, json};
use super::error::ImportError;
use super::names;
use crate::models::dino::{BODY, DinoConfig};
use serde::Deserialize;
use std::path::Path;

/// Largest accepted size in a configuration.
const MAX_SIZE: i64 = 1 << 16;

/// A complete image encoder.
pub(super) struct ImageEncoder {
    pub config: DinoConfig,
    pub checkpoint: Checkpoint,
}

impl ImageEncoder {
    /// Reads and checks configuration, names and shapes.
    pub fn open(folder: &Path) -> Result<Self, ImportError> {
        let config = config(folder)?;
        let checkpoint = Checkpoint::folder(folder)?.renamed(|name| own_name(&format!("{BODY}.{name}")))?;
        checkpoint.check(&names::dino(&config))?;
        Ok(Self { config, checkpoint })
    }
}

/// A tensor's name in a run; `None` for the mask token of pretraining and for computed rotary tables.
pub(super) fn own_name(name: &str) -> Option<String> {
    let Some(part) = name.strip_prefix(BODY).and_then(|part| part.strip_prefix('.')) else { return Some(name.into()) };
    let unused = part == "embeddings.mask_token" || part.starts_with("rope_embeddings.");
    (!unused).then(|| format!("{BODY}.{}", part.strip_prefix("model.").unwrap_or(part)))
}

/// Configuration of the encoder inside a perception module; `None` for a module with a ResNet. The width of a head is 64, and 128 in the
/// largest published model.
pub(super) fn sizes(checkpoint: &Checkpoint) -> Option<DinoConfig> {
    let size = |part: &str, dimension| checkpoint.size(&format!("{BODY}.{part}"), dimension);
    let has = |part: &str| checkpoint.tensors.contains_key(&format!("{BODY}.layer.0.{part}"));
    let (width, patch) = (size("embeddings.patch_embeddings.weight", 0)?, size("embeddings.patch_embeddings.weight", 2)?);
    Some(DinoConfig {
        patch,
        width,
        layers: checkpoint.count(&format!("{BODY}.layer.")).unwrap_or(1),
        heads: (width / if width >= 4096 { 128 } else { 64 }).max(1),
        feed_forward: size("layer.0.mlp.up_proj.weight", 0).unwrap_or(4 * width),
        registers: size("embeddings.register_tokens", 1).unwrap_or(0),
        gated: has("mlp.gate_proj.weight"),
        biases: ["q", "k", "v"].map(|x| has(&format!("attention.{x}_proj.bias"))),
    })
}

/// A DINOv3 model's `config.json`, with the defaults of transformers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Vit {
    model_type: String,
    patch_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_register_tokens: i64,
    num_channels: i64,
    hidden_act: String,
    layer_norm_eps: f64,
    rope_theta: f64,
    query_bias: bool,
    key_bias: bool,
    value_bias: bool,
    proj_bias: bool,
    mlp_bias: bool,
    use_gated_mlp: bool,
}

impl Default for Vit {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            patch_size: 16,
            hidden_size: 384,
            intermediate_size: 1536,
            num_hidden_layers: 12,
            num_attention_heads: 6,
            num_register_tokens: 0,
            num_channels: 3,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-5,
            rope_theta: 100.0,
            query_bias: true,
            key_bias: false,
            value_bias: true,
            proj_bias: true,
            mlp_bias: true,
            use_gated_mlp: false,
        }
    }
}

fn config(folder: &Path) -> Result<DinoConfig, ImportError> {
    let path = folder.join("config.json");
    let vit: Vit = json(&path)?;
    let activation = if vit.use_gated_mlp { "silu" } else { "gelu" };
    let sizes = [vit.patch_size, vit.hidden_size, vit.intermediate_size, vit.num_hidden_layers, vit.num_attention_heads];
    for (supported, what) in [
        (vit.model_type == "dinov3_vit", format!("model_type {:?}, not \"dinov3_vit\"", vit.model_type)),
        (vit.hidden_act == activation, format!("hidden_act {:?}, not {activation:?}", vit.hidden_act)),
        (vit.layer_norm_eps == 1e-5, format!("layer_norm_eps {}, not 1e-5", vit.layer_norm_eps)),
        (vit.rope_theta == 100.0, format!("rope_theta {}, not 100", vit.rope_theta)),
        (vit.num_channels == 3, format!("{} channels, not 3", vit.num_channels)),
        (vit.proj_bias && vit.mlp_bias, "output or feed-forward layers without a bias".into()),
        (sizes.into_iter().all(|size| (1..=MAX_SIZE).contains(&size)), format!("sizes of {sizes:?}")),
        ((0..=MAX_SIZE).contains(&vit.num_register_tokens) && vit.num_hidden_layers <= 1000, "too many registers or layers".into()),
        (vit.hidden_size % (4 * vit.num_attention_heads.max(1)) == 0, "heads whose width is not a multiple of 4".into()),
    ] {
        if !supported {
            return Err(ImportError::unsupported(&path, what));
        }
    }
    Ok(DinoConfig {
        patch: vit.patch_size,
        width: vit.hidden_size,
        layers: vit.num_hidden_layers,
        heads: vit.num_attention_heads,
        feed_forward: vit.intermediate_size,
        registers: vit.num_register_tokens,
        gated: vit.use_gated_mlp,
        biases: [vit.query_bias, vit.key_bias, vit.value_bias],
    })
}
