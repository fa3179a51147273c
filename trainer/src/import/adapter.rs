//! Fine-tuned parts: adapters, embedding table and output layer if they were trained in full, and projectors. They come from the published
//! checkpoint, where the prefix of projectors is `LM.wrapper` and that of the rest `LM.core_model`, or from the folder of a PEFT adapter.

use super::checkpoint::{Checkpoint, json};
use super::error::ImportError;
use super::language;
use super::names::{self, Shapes};
use super::stored::Stored;
use crate::models::gemma::{EMBEDDING, GemmaConfig, HEAD};
use crate::models::lora::Lora;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// File name of the projectors in a PEFT folder; PEFT itself does not define one.
const PROJECTORS: &str = "projectors.safetensors";

/// Fine-tuned parts that fit their base model.
pub(super) struct Adapter {
    pub lora: Lora,
    /// Whether the output layer differs from the embedding table.
    pub untied: bool,
    /// Whether the checkpoint has projectors.
    pub projectors: bool,
    pub checkpoint: Checkpoint,
}

impl Adapter {
    /// Reads and checks names and shapes. `table` is the base model's embedding table; `widths` are those of image tokens, object
    /// embeddings and the language model.
    pub fn open(path: &Path, base: &GemmaConfig, table: Option<&Stored>, widths: (i64, i64, i64)) -> Result<Self, ImportError> {
        let (checkpoint, settings) = if path.is_dir() { folder(path)? } else { (published(path)?, Peft::default()) };
        let mut checkpoint = checkpoint.renamed(own_name)?;
        let rank = checkpoint.tensors.iter().find(|(name, _)| name.ends_with(".lora_A.weight"));
        let rank = rank.and_then(|(_, stored)| stored.shape.first().copied()).unwrap_or(settings.r as usize) as i64;
        let lora = settings.lora(rank).map_err(|message| ImportError::unsupported(path, message))?;
        let mut expected = names::adapters(base, &lora);
        // Layers without an adapter get one of zeros, which changes nothing.
        for module in settings.modules_without_adapter(&checkpoint) {
            for (name, shape) in expected.iter().filter(|(name, _)| name.contains(&format!(".{module}.lora_"))) {
                let shape = shape.iter().map(|&d| d as usize).collect();
                checkpoint.tensors.insert(name.clone(), Stored::zeros(name.clone(), shape));
            }
        }
        let projectors = has_projectors(&checkpoint);
        if projectors || !path.is_dir() {
            expected.append(&mut names::projectors(widths));
        }
        expected.append(&mut trained_tables(&checkpoint, base));
        checkpoint.check(&expected)?;
        let untied = !base.tie_word_embeddings || untie(&mut checkpoint, table)?;
        Ok(Self { lora, untied, projectors, checkpoint })
    }

    /// Checks that the fine-tuned parts of an existing run fit the base model that is imported. Returns whether they include an output
    /// layer.
    pub fn check_existing(path: &Path, base: &GemmaConfig, lora: &Lora, widths: (i64, i64, i64)) -> Result<bool, ImportError> {
        let checkpoint = Checkpoint::open(path)?;
        let mut expected = trained_tables(&checkpoint, base);
        if checkpoint.tensors.keys().any(|name| name.contains(".lora_")) {
            expected.append(&mut names::adapters(base, lora));
        }
        if has_projectors(&checkpoint) {
            expected.append(&mut names::projectors(widths));
        }
        checkpoint.check(&expected)?;
        let [table, head] = [EMBEDDING, HEAD].map(|name| checkpoint.tensors.contains_key(name));
        if table && !head && !base.tie_word_embeddings {
            let what = "embed_tokens for a model with tied embeddings, but the base model's are not tied; import both at once";
            return Err(ImportError::unsupported(path, what));
        }
        Ok(head)
    }
}

fn has_projectors(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors.keys().any(|name| name.contains("projectionhead."))
}

/// Expected shapes of the embedding table and the output layer, if the checkpoint has them.
fn trained_tables(checkpoint: &Checkpoint, base: &GemmaConfig) -> Shapes {
    let present = [EMBEDDING, HEAD].into_iter().filter(|name| checkpoint.tensors.contains_key(*name));
    present.map(|name| (name.into(), vec![base.vocab_size, base.hidden_size])).collect()
}

/// Whether the checkpoint's output layer differs from its embedding table. An equal one is removed from the checkpoint.
fn untie(checkpoint: &mut Checkpoint, table: Option<&Stored>) -> Result<bool, ImportError> {
    let saved = checkpoint.tensors.get(EMBEDDING);
    let Some(head) = checkpoint.tensors.get(HEAD) else {
        // The base model's output layer would keep its old values.
        return match saved {
            Some(_) => {
                Err(ImportError::unsupported(&checkpoint.path, "embed_tokens without lm_head, but the base model ties the two; save both"))
            }
            None => Ok(false),
        };
    };
    let same = match saved.or(table) {
        Some(table) => head.equals(table).map_err(|e| ImportError::file(&checkpoint.path, e))?,
        None => false,
    };
    if same {
        checkpoint.tensors.remove(HEAD);
    }
    Ok(!same)
}

/// Opens the published file: a pickle in which names have the prefix `LM`, or a flat file of tensors.
fn published(path: &Path) -> Result<Checkpoint, ImportError> {
    let checkpoint = Checkpoint::open(path)?;
    let nested = checkpoint.tensors.keys().any(|name| name.starts_with("LM."));
    checkpoint.renamed(|name| {
        let name = if nested { name.strip_prefix("LM.")? } else { name };
        let name = name.strip_prefix("core_model.").or_else(|| name.strip_prefix("wrapper.")).unwrap_or(name);
        Some(name.into())
    })
}

/// Opens the folder of a PEFT adapter, with [`PROJECTORS`] if the file exists.
fn folder(path: &Path) -> Result<(Checkpoint, Peft), ImportError> {
    let settings: Peft = json(&path.join("adapter_config.json"))?;
    let file = |name: &str| path.join(name);
    let weights = ["adapter_model.safetensors", "adapter_model.bin"].map(file).into_iter().find(|path| path.exists());
    let weights = weights.ok_or_else(|| ImportError::file(path, "it holds neither adapter_model.safetensors nor adapter_model.bin"))?;
    let mut tensors = Checkpoint::open(&weights)?.tensors;
    if file(PROJECTORS).exists() {
        let projectors = Checkpoint::open(&file(PROJECTORS))?.tensors;
        tensors.extend(projectors.into_iter().map(|(name, stored)| (name.strip_prefix("wrapper.").unwrap_or(&name).into(), stored)));
    }
    Ok((Checkpoint { path: path.into(), tensors }, settings))
}

/// A tensor's name in a run; `None` for a tensor that is not imported. PEFT writes `.lora_A.weight` or `.lora_A.ADAPTER.weight`, and keeps
/// the original of each table that was trained in full, which is not imported.
fn own_name(name: &str) -> Option<String> {
    if name.starts_with("image_projectionhead.") || name.starts_with("obj_projectionhead.") {
        return Some(name.into());
    }
    if name.contains(".original_module.") {
        return None;
    }
    let name = language::own_name(name)?;
    for part in [".lora_A.", ".lora_B."] {
        if let Some((layer, rest)) = name.split_once(part) {
            let last = rest.rsplit('.').next().unwrap_or(rest);
            let deep = rest.split('.').count() > 2;
            return Some(if deep { name } else { format!("{layer}{part}{last}") });
        }
    }
    let Some((module, rest)) = name.split_once(".modules_to_save.") else { return Some(name) };
    Some(format!("{module}.{}", rest.split_once('.').map_or(rest, |(_, parameter)| parameter)))
}

/// A PEFT adapter's `adapter_config.json`. The defaults are the settings of the published checkpoint.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Peft {
    peft_type: String,
    r: i64,
    lora_alpha: f64,
    lora_dropout: f64,
    bias: String,
    use_dora: bool,
    use_rslora: bool,
    fan_in_fan_out: bool,
    rank_pattern: BTreeMap<String, i64>,
    alpha_pattern: BTreeMap<String, f64>,
    init_lora_weights: Value,
    layer_replication: Option<Value>,
    /// All other settings; see [`VARIANTS`].
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Settings of LoRA variants that use the same matrices in another way. An adapter with one of them is refused.
const VARIANTS: [&str; 6] = ["use_qalora", "alora_invocation_tokens", "monteclora_config", "velora_config", "kasa_config", "use_bdlora"];
/// Values of `init_lora_weights` that do not change the base model. The other values move a part of its weights into the adapter.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl Default for Peft {
    fn default() -> Self {
        let published = Lora::default();
        Self {
            peft_type: "LORA".into(),
            r: published.rank,
            lora_alpha: published.alpha,
            lora_dropout: published.dropout,
            bias: "none".into(),
            use_dora: false,
            use_rslora: false,
            fan_in_fan_out: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            init_lora_weights: Value::Bool(true),
            layer_replication: None,
            rest: BTreeMap::new(),
        }
    }
}

impl Peft {
    fn lora(&self, rank: i64) -> Result<Lora, String> {
        let unset = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let variant = VARIANTS.into_iter().find(|name| self.rest.get(*name).is_some_and(|value| !unset(value)));
        let initialisation = self.init_lora_weights.as_str().filter(|value| !INITIALISATIONS.contains(value));
        for (unsupported, what) in [
            (self.peft_type != "LORA", format!("an adapter of type {}; only LORA is supported", self.peft_type)),
            (self.bias != "none", format!("trained biases ({:?})", self.bias)),
            (self.use_dora, "DoRA".into()),
            (self.fan_in_fan_out, "fan_in_fan_out".into()),
            (variant.is_some(), variant.unwrap_or_default().into()),
            (
                initialisation.is_some(),
                format!(
                    "init_lora_weights {:?}, which changes the base model too (peft's save_pretrained can convert it)",
                    initialisation.unwrap_or_default()
                ),
            ),
            (self.layer_replication.is_some(), "layer_replication, which repeats layers of the base model".into()),
            (!self.rank_pattern.is_empty() || !self.alpha_pattern.is_empty(), "ranks or scalings of single layers".into()),
            (!(1..=1 << 14).contains(&rank), format!("a rank of {rank}")),
            (!self.lora_alpha.is_finite(), "a scaling that is not a number".into()),
        ] {
            if unsupported {
                return Err(what);
            }
        }
        // A rank-stabilised adapter is scaled by `alpha / sqrt(rank)`.
        let alpha = if self.use_rslora { self.lora_alpha * (rank as f64).sqrt() } else { self.lora_alpha };
        Ok(Lora { rank, alpha, dropout: self.lora_dropout })
    }

    /// Names of the linear layers that have no adapter in any block; none if no layer has one.
    fn modules_without_adapter(&self, checkpoint: &Checkpoint) -> Vec<&'static str> {
        let kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        let adapted = |kind: &str| checkpoint.tensors.keys().any(|name| name.contains(&format!(".{kind}.lora_")));
        if !kinds.into_iter().any(adapted) {
            return Vec::new();
        }
        kinds.into_iter().filter(|kind| !adapted(kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_layouts() {
        for (name, expected) in [
            (
                "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight",
                Some("model.layers.0.self_attn.q_proj.lora_A.weight"),
            ),
            ("base_model.model.model.layers.7.mlp.down_proj.lora_B.weight", Some("model.layers.7.mlp.down_proj.lora_B.weight")),
            ("base_model.model.model.language_model.embed_tokens.modules_to_save.default.weight", Some(EMBEDDING)),
            ("base_model.model.model.language_model.embed_tokens.original_module.weight", None),
            ("base_model.model.lm_head.modules_to_save.default.weight", Some(HEAD)),
            ("base_model.model.lm_head.weight", Some(HEAD)),
            ("base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.default.weight", None),
            ("obj_projectionhead.proj.0.weight", Some("obj_projectionhead.proj.0.weight")),
        ] {
            assert_eq!(own_name(name).as_deref(), expected);
        }
    }
}
