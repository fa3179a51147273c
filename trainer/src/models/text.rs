//! The sentence encoder: BERT with mean pooling, and the projection that is trained to match object embeddings (paper, eq. 5 and 6).

use super::sizes::check_sizes;
use crate::graph::{Activation, Attention, Init, Linear, Ops};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Configuration of the encoder. The defaults are those of BERT base, whose architecture PubMedBERT has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Rows of the embedding table.
    pub vocabulary: i64,
    /// Width.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub feed_forward: i64,
    /// Largest number of tokens of a sentence.
    pub positions: i64,
    /// Dropout.
    pub dropout: f64,
    /// Inner width of the projection.
    pub projection: i64,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self { vocabulary: 30522, width: 768, layers: 12, heads: 12, feed_forward: 3072, positions: 512, dropout: 0.1, projection: 512 }
    }
}

impl TextConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// If they do not; the message names the first size that does not fit.
    pub fn check(&self) -> Result<()> {
        check_sizes(&[
            ("text.vocabulary", self.vocabulary),
            ("text.width", self.width),
            ("text.layers", self.layers),
            ("text.heads", self.heads),
            ("text.feed_forward", self.feed_forward),
            ("text.positions", self.positions),
            ("text.projection", self.projection),
        ])?;
        ensure!(self.width % self.heads == 0, "text.width {} is not a multiple of text.heads {}", self.width, self.heads);
        Ok(())
    }
}

/// A batch of `B` sentences, padded to `T` tokens. The caller looks the token embeddings up in [`token_table`].
pub struct TextInput<T> {
    /// Token embeddings `[B, T, D]`.
    pub tokens: T,
    /// Attention mask `[B, 1, 1, T]`: 0 for a token, a large negative number for padding.
    pub mask: T,
    /// Weights of mean pooling `[B, 1, T]`: one over the sentence's number of tokens for a token, 0 for padding.
    pub pooling: T,
    /// Number of tokens `T`.
    pub length: i64,
}

/// The table of token embeddings, `[vocabulary, D]`.
pub fn token_table<O: Ops>(ops: &O, config: &TextConfig) -> O::Tensor {
    ops.weight("embeddings.word_embeddings.weight", &[config.vocabulary, config.width], Init::Normal(0.02))
}

/// Hidden states of the last layer, `[B, T, D]`.
pub fn bert<O: Ops>(ops: &O, config: &TextConfig, input: &TextInput<O::Tensor>) -> O::Tensor {
    let (width, epsilon) = (config.width, 1e-12);
    let square = Linear::new(width, width);
    let positions = ops.weight("embeddings.position_embeddings.weight", &[config.positions, width], Init::Normal(0.02));
    let types = ops.weight("embeddings.token_type_embeddings.weight", &[2, width], Init::Normal(0.02));
    let mut x = ops.add(&input.tokens, &ops.reshape(&ops.slice(&positions, 0, 0, input.length), &[1, input.length, width]));
    x = ops.add(&x, &ops.reshape(&ops.slice(&types, 0, 0, 1), &[1, 1, width]));
    x = ops.dropout(&ops.layer_norm(&x, "embeddings.LayerNorm", width, epsilon), config.dropout);
    for layer in 0..config.layers {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let project = |part: &str| ops.linear(&x, &name(&format!("attention.self.{part}")), square);
        let how = Attention { heads: config.heads, width, mask: Some(&input.mask), dropout: 0.0 };
        let mixed = ops.attention(&project("query"), &project("key"), &project("value"), &how);
        let mixed = ops.dropout(&ops.linear(&mixed, &name("attention.output.dense"), square), config.dropout);
        x = ops.layer_norm(&ops.add(&x, &mixed), &name("attention.output.LayerNorm"), width, epsilon);
        let hidden = ops.linear(&x, &name("intermediate.dense"), Linear::new(width, config.feed_forward));
        let hidden = ops.activate(&hidden, Activation::Gelu);
        let out = ops.linear(&hidden, &name("output.dense"), Linear::new(config.feed_forward, width));
        x = ops.layer_norm(&ops.add(&x, &ops.dropout(&out, config.dropout)), &name("output.LayerNorm"), width, epsilon);
    }
    x
}

/// Mean of the hidden states over the tokens, `[B, D]`.
pub fn sentence_embedding<O: Ops>(ops: &O, config: &TextConfig, input: &TextInput<O::Tensor>) -> O::Tensor {
    let hidden = bert(ops, config, input);
    ops.reshape(&ops.matmul(&input.pooling, &hidden), &[-1, config.width])
}

/// Projection to the width of object embeddings: `[N, D]` to `[N, embedding]`.
pub fn project<O: Ops>(ops: &O, config: &TextConfig, embedding: i64, sentences: &O::Tensor) -> O::Tensor {
    let first = Linear::new(config.width, config.projection);
    let hidden = ops.activate(&ops.linear(sentences, "project_head.proj.0", first), Activation::Relu);
    ops.linear(&hidden, "project_head.proj.2", Linear::new(config.projection, embedding))
}
