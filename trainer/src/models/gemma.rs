//! The language model: a Gemma 3 decoder, in whose input visual features replace the embeddings of some tokens (paper, section 3.2).

use crate::graph::{Activation, CausalAttention, Linear, Ops};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Configuration, with the names of a Hugging Face `config.json`. The defaults are those of MedGemma-4b-it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GemmaConfig {
    /// Rows of the embedding table.
    pub vocab_size: i64,
    /// Width of the hidden states.
    pub hidden_size: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of query heads.
    pub num_attention_heads: i64,
    /// Number of key and value heads.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Attention scores are divided by the square root of this.
    pub query_pre_attn_scalar: f64,
    /// Sliding window in tokens, including the token itself.
    pub sliding_window: i64,
    /// Layer `i` is a full layer if `i + 1` is a multiple of this, otherwise a sliding one.
    pub sliding_window_pattern: i64,
    /// Base of the rotary position embedding in full layers.
    pub rope_theta: f64,
    /// Linear scaling of the positions in full layers.
    pub rope_factor: f64,
    /// Base of the rotary position embedding in sliding layers.
    pub rope_local_base_freq: f64,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Whether the output layer shares the embedding table.
    pub tie_word_embeddings: bool,
    /// Largest number of tokens, context and answer together, for which an export holds rotary tables.
    pub max_position_embeddings: i64,
}

impl Default for GemmaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 262208,
            hidden_size: 2560,
            intermediate_size: 10240,
            num_hidden_layers: 34,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            query_pre_attn_scalar: 256.0,
            sliding_window: 1024,
            sliding_window_pattern: 6,
            rope_theta: 1e6,
            rope_factor: 8.0,
            rope_local_base_freq: 1e4,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            max_position_embeddings: 8192,
        }
    }
}

impl GemmaConfig {
    /// Number of weights in all matrices.
    pub fn weights(&self) -> i64 {
        let attention = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim;
        let layer = self.hidden_size * (attention + 3 * self.intermediate_size);
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * layer + tables * self.vocab_size * self.hidden_size
    }

    /// The decoder's attention bias inputs by name, each with its sliding window; `None` for full layers.
    pub fn biases(&self) -> BTreeMap<&'static str, Option<i64>> {
        (0..self.num_hidden_layers).map(|layer| self.attention(layer)).map(|spec| (spec.bias(), spec.window)).collect()
    }

    /// Configuration of a layer's attention.
    pub fn attention(&self, layer: i64) -> CausalAttention {
        let full = (layer + 1) % self.sliding_window_pattern == 0;
        CausalAttention {
            layer,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: self.query_pre_attn_scalar.sqrt().recip(),
            window: (!full).then_some(self.sliding_window),
            theta: if full { self.rope_theta } else { self.rope_local_base_freq },
            factor: if full { self.rope_factor } else { 1.0 },
        }
    }
}

/// Parameter name of the embedding table.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Parameter name of an output layer that does not share the embedding table.
pub const HEAD: &str = "lm_head.weight";

/// Logits of the selected positions; `ops` holds the tokens.
pub fn gemma<O: Ops>(ops: &O, config: &GemmaConfig) -> O::Tensor {
    let hidden = config.hidden_size;
    ops.scope("embed");
    let table = [config.vocab_size, hidden];
    let mut x = ops.embed_tokens(EMBEDDING, table, (hidden as f64).sqrt());
    for layer in 0..config.num_hidden_layers {
        ops.scope(&format!("layers.{layer}"));
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = |x: &O::Tensor, part: &str| ops.rms_norm(x, &name(part), hidden, config.rms_norm_eps);
        let linear = |x: &O::Tensor, part: &str, inputs, outputs| ops.linear(x, &name(part), Linear { inputs, outputs, bias: false });

        let spec = config.attention(layer);
        let (queries, pairs) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let input = norm(&x, "input_layernorm");
        // Queries and keys are normalised head by head, before the rotary embedding.
        let head_norm = |x: &O::Tensor, part: &str, heads: i64| {
            let split = ops.reshape(x, &[0, -1, heads, spec.head_dim]);
            let normed = ops.rms_norm(&split, &name(part), spec.head_dim, config.rms_norm_eps);
            ops.reshape(&normed, &[0, -1, heads * spec.head_dim])
        };
        let [q, k, v] = ops.linears(
            &input,
            &name("self_attn.qkv_proj"),
            hidden,
            [(name("self_attn.q_proj"), queries), (name("self_attn.k_proj"), pairs), (name("self_attn.v_proj"), pairs)],
        );
        let q = head_norm(&q, "self_attn.q_norm", spec.heads);
        let k = head_norm(&k, "self_attn.k_norm", spec.kv_heads);
        let mixed = ops.causal_attention(&q, &k, &v, &spec);
        let mixed = linear(&mixed, "self_attn.o_proj", queries, hidden);
        x = ops.add(&x, &norm(&mixed, "post_attention_layernorm"));

        let input = norm(&x, "pre_feedforward_layernorm");
        let wide = config.intermediate_size;
        let [gate, up] =
            ops.linears(&input, &name("mlp.gate_up_proj"), hidden, [(name("mlp.gate_proj"), wide), (name("mlp.up_proj"), wide)]);
        let gate = ops.activate(&gate, Activation::GeluTanh);
        let out = linear(&ops.mul(&gate, &up), "mlp.down_proj", wide, hidden);
        x = ops.add(&x, &norm(&out, "post_feedforward_layernorm"));
    }
    ops.scope("head");
    let x = ops.rms_norm(&ops.select_positions(&x), "model.norm", hidden, config.rms_norm_eps);
    ops.logits(&x, if config.tie_word_embeddings { EMBEDDING } else { HEAD }, table)
}
