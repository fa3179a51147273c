//! The language model: a Gemma 3 decoder, in whose input visual features replace the embeddings of some tokens (paper, section 3.2).

use super::sizes::check_sizes;
use crate::graph::{Activation, CausalAttention, Layer, Linear, Ops};
use anyhow::{Result, ensure};
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

impl GemmaConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// If they do not; the message names the first size that does not fit.
    pub fn check(&self) -> Result<()> {
        check_sizes(&[
            ("language.vocab_size", self.vocab_size),
            ("language.hidden_size", self.hidden_size),
            ("language.intermediate_size", self.intermediate_size),
            ("language.num_hidden_layers", self.num_hidden_layers),
            ("language.num_attention_heads", self.num_attention_heads),
            ("language.num_key_value_heads", self.num_key_value_heads),
            ("language.head_dim", self.head_dim),
            ("language.max_position_embeddings", self.max_position_embeddings),
        ])?;
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        ensure!(heads % shared == 0, "language.num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}");
        ensure!(self.head_dim % 2 == 0, "language.head_dim {} is not even", self.head_dim);
        Ok(())
    }
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
    // [B, T, hidden]
    let mut x = ops.embed_tokens(EMBEDDING, table, (hidden as f64).sqrt());
    for layer in 0..config.num_hidden_layers {
        x = ops.layer(Block::of(config, layer), [&x]);
    }
    ops.scope("head");
    // [selected, hidden] -> [selected, vocabulary]
    let x = ops.rms_norm(&ops.select_positions(&x), "model.norm", hidden, config.rms_norm_eps);
    ops.logits(&x, if config.tie_word_embeddings { EMBEDDING } else { HEAD }, table)
}

/// A layer, `[B, T, hidden]` to `[B, T, hidden]`: causal attention and a gated feed-forward network, each between two norms and with a
/// residual sum.
struct Block {
    hidden: i64,
    wide: i64,
    epsilon: f64,
    attention: CausalAttention,
}

impl Block {
    fn of(config: &GemmaConfig, layer: i64) -> Self {
        let &GemmaConfig { hidden_size: hidden, intermediate_size: wide, rms_norm_eps: epsilon, .. } = config;
        Self { hidden, wide, epsilon, attention: config.attention(layer) }
    }

    /// The full name of a part of the layer.
    fn name(&self, part: &str) -> String {
        format!("model.layers.{}.{part}", self.attention.layer)
    }

    fn norm<O: Ops>(&self, ops: &O, x: &O::Tensor, part: &str) -> O::Tensor {
        ops.rms_norm(x, &self.name(part), self.hidden, self.epsilon)
    }

    /// Norm of each head, before the rotary embedding: `[B, T, heads * head_dim]`.
    fn head_norm<O: Ops>(&self, ops: &O, x: &O::Tensor, part: &str, heads: i64) -> O::Tensor {
        let width = self.attention.head_dim;
        let split = ops.reshape(x, &[0, -1, heads, width]);
        ops.reshape(&ops.rms_norm(&split, &self.name(part), width, self.epsilon), &[0, -1, heads * width])
    }

    fn self_attention<O: Ops>(&self, ops: &O, x: &O::Tensor) -> O::Tensor {
        let &CausalAttention { heads, kv_heads, head_dim, .. } = &self.attention;
        let (queries, pairs) = (heads * head_dim, kv_heads * head_dim);
        let parts = [("q_proj", queries), ("k_proj", pairs), ("v_proj", pairs)];
        let parts = parts.map(|(part, outputs)| (self.name(&format!("self_attn.{part}")), outputs));
        let [q, k, v] = ops.linears(x, &self.name("self_attn.qkv_proj"), self.hidden, parts);
        let q = self.head_norm(ops, &q, "self_attn.q_norm", heads);
        let k = self.head_norm(ops, &k, "self_attn.k_norm", kv_heads);
        let mixed = ops.causal_attention(&q, &k, &v, &self.attention);
        ops.linear(&mixed, &self.name("self_attn.o_proj"), Linear::new(queries, self.hidden).without_bias())
    }

    /// `down(gelu(gate(x)) * up(x))`.
    fn feed_forward<O: Ops>(&self, ops: &O, x: &O::Tensor) -> O::Tensor {
        let parts = ["gate_proj", "up_proj"].map(|part| (self.name(&format!("mlp.{part}")), self.wide));
        let [gate, up] = ops.linears(x, &self.name("mlp.gate_up_proj"), self.hidden, parts);
        let gated = ops.mul(&ops.activate(&gate, Activation::GeluTanh), &up);
        ops.linear(&gated, &self.name("mlp.down_proj"), Linear::new(self.wide, self.hidden).without_bias())
    }
}

impl Layer<1> for Block {
    fn run<O: Ops>(&self, ops: &O, [x]: [&O::Tensor; 1]) -> O::Tensor {
        ops.scope(&format!("layers.{}", self.attention.layer));
        let mixed = self.self_attention(ops, &self.norm(ops, x, "input_layernorm"));
        let x = ops.add(x, &self.norm(ops, &mixed, "post_attention_layernorm"));
        let out = self.feed_forward(ops, &self.norm(ops, &x, "pre_feedforward_layernorm"));
        ops.add(&x, &self.norm(ops, &out, "post_feedforward_layernorm"))
    }
}
