//! The transformer (paper, section 3.1; Carion et al. 2020), with norms after each residual sum. A class token stands before the patches,
//! and each query is one structure.

use super::attention::multi_head;
use super::config::ApmConfig;
use crate::graph::{Activation, Attention, Init, Layer, Linear, Ops};
use anatomix::STRUCTURE_COUNT;

const EPSILON: f64 = 1e-5;
/// How every matrix of the transformer begins, the class token and its position included.
const MATRIX: Init = Init::Xavier;

/// Sizes of the transformer.
#[derive(Clone, Copy)]
pub struct Transformer {
    width: i64,
    heads: i64,
    feed_forward: i64,
    encoder_layers: i64,
    decoder_layers: i64,
    dropout: f64,
}

impl Transformer {
    pub fn of(config: &ApmConfig) -> Self {
        let &ApmConfig { width, heads, feed_forward, encoder_layers, decoder_layers, dropout, .. } = config;
        Self { width, heads, feed_forward, encoder_layers, decoder_layers, dropout }
    }

    /// Encodes the patches `[B, P, D]` with positions `[1, P, D]`: the class token `[B, 1, D]` and the image memory `[B, P, D]`.
    pub fn encode<O: Ops>(self, ops: &O, patches: &O::Tensor, sine: &O::Tensor, count: i64) -> (O::Tensor, O::Tensor) {
        ops.scope("encoder");
        let cls = ops.weight("transformer.cls_token", &[1, 1, self.width], MATRIX);
        let cls_position = ops.weight("transformer.cls_pos", &[1, 1, self.width], MATRIX);
        // [B, 1 + P, D]
        let mut x = ops.concat(&[&ops.repeat_batch(&cls, patches), patches], 1);
        let positions = ops.concat(&[&cls_position, sine], 1);
        for layer in 0..self.encoder_layers {
            let layer = EncoderLayer { of: self, name: format!("transformer.encoder.layers.{layer}") };
            x = ops.layer(layer, [&x, &positions]);
        }
        (ops.slice(&x, 1, 0, 1), ops.slice(&x, 1, 1, 1 + count))
    }

    /// Decodes the 36 queries over the image memory `[B, P, D]`: `[B, 36, D]`, and, if `all` is true, those of the layers before the last.
    /// One norm is shared by all layers' outputs.
    pub fn decode<O: Ops>(self, ops: &O, memory: &O::Tensor, sine: &O::Tensor, all: bool) -> (O::Tensor, Vec<O::Tensor>) {
        ops.scope("decoder");
        let structures = STRUCTURE_COUNT as i64;
        let queries = ops.weight("query_embed.weight", &[structures, self.width], Init::Normal(1.0));
        let queries = ops.repeat_batch(&ops.reshape(&queries, &[1, structures, self.width]), memory);
        let keys = ops.add(memory, sine);
        // The target begins at zero.
        let mut target = ops.scale(&queries, 0.0);
        let mut earlier = Vec::new();
        let norm = |target: &O::Tensor| ops.layer_norm(target, "transformer.decoder.norm", self.width, EPSILON);
        for layer in 0..self.decoder_layers {
            if all && layer > 0 {
                earlier.push(norm(&target));
            }
            let layer = DecoderLayer { of: self, name: format!("transformer.decoder.layers.{layer}") };
            target = ops.layer(layer, [&target, &queries, &keys, memory]);
        }
        (norm(&target), earlier)
    }

    /// How its layers attend. Dropout is applied to attention weights, too.
    fn attention<T>(&self) -> Attention<'_, T> {
        Attention { heads: self.heads, width: self.width, mask: None, dropout: self.dropout }
    }

    /// `norm(x + dropout(out))`.
    fn add_and_norm<O: Ops>(&self, ops: &O, norm: &str, x: &O::Tensor, out: &O::Tensor) -> O::Tensor {
        ops.layer_norm(&ops.add(x, &ops.dropout(out, self.dropout)), norm, self.width, EPSILON)
    }

    fn feed_forward<O: Ops>(&self, ops: &O, name: &str, x: &O::Tensor) -> O::Tensor {
        let (inputs, outputs) = (self.width, self.feed_forward);
        let hidden = ops.linear(x, &format!("{name}.linear1"), Linear::new(inputs, outputs).begins(MATRIX));
        let hidden = ops.dropout(&ops.activate(&hidden, Activation::Relu), self.dropout);
        ops.linear(&hidden, &format!("{name}.linear2"), Linear::new(outputs, inputs).begins(MATRIX))
    }
}

/// Of `x` `[B, 1 + P, D]` and positions `[1, 1 + P, D]`, which are added to queries and keys only.
struct EncoderLayer {
    of: Transformer,
    name: String,
}

impl Layer<2> for EncoderLayer {
    fn run<O: Ops>(&self, ops: &O, [x, positions]: [&O::Tensor; 2]) -> O::Tensor {
        let Self { of, name } = self;
        let positioned = ops.add(x, positions);
        let seen = multi_head(ops, &format!("{name}.self_attn"), &of.attention(), MATRIX, [&positioned, &positioned, x]);
        let x = of.add_and_norm(ops, &format!("{name}.norm1"), x, &seen);
        let out = of.feed_forward(ops, name, &x);
        of.add_and_norm(ops, &format!("{name}.norm2"), &x, &out)
    }
}

/// Of `x` `[B, 36, D]`, queries `[B, 36, D]`, keys `[B, P, D]` (the memory with its positions) and memory `[B, P, D]`: attention among the
/// structures, then from each structure to the patches.
struct DecoderLayer {
    of: Transformer,
    name: String,
}

impl Layer<4> for DecoderLayer {
    fn run<O: Ops>(&self, ops: &O, [x, queries, keys, memory]: [&O::Tensor; 4]) -> O::Tensor {
        let Self { of, name } = self;
        let positioned = ops.add(x, queries);
        let own = multi_head(ops, &format!("{name}.self_attn"), &of.attention(), MATRIX, [&positioned, &positioned, x]);
        let x = of.add_and_norm(ops, &format!("{name}.norm1"), x, &own);
        let positioned = ops.add(&x, queries);
        let seen = multi_head(ops, &format!("{name}.multihead_attn"), &of.attention(), MATRIX, [&positioned, keys, memory]);
        let x = of.add_and_norm(ops, &format!("{name}.norm2"), &x, &seen);
        let out = of.feed_forward(ops, name, &x);
        of.add_and_norm(ops, &format!("{name}.norm3"), &x, &out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Params, Torch, TorchTensor};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn every_matrix_begins_xavier_uniform() {
        let config = ApmConfig { width: 96, feed_forward: 400, encoder_layers: 1, decoder_layers: 1, ..Default::default() };
        let params = Params::create(Device::Cpu);
        let ops = Torch::new(&params);
        let zeros = |shape: &[i64]| TorchTensor(Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
        let (_, memory) = Transformer::of(&config).encode(&ops, &zeros(&[1, 4, 96]), &zeros(&[1, 4, 96]), 4);
        Transformer::of(&config).decode(&ops, &memory, &zeros(&[1, 4, 96]), false);
        let mut seen = 0;
        for (name, tensor) in params.named().into_iter().filter(|(name, tensor)| name.starts_with("transformer.") && tensor.dim() > 1) {
            let size = tensor.size();
            let inner: i64 = size[2..].iter().product();
            let limit = (6.0 / ((size[0] + size[1]) * inner) as f64).sqrt();
            let largest = tensor.abs().max().double_value(&[]);
            assert!(largest <= limit && largest > 0.9 * limit, "{name}: {largest} instead of up to {limit}");
            seen += 1;
        }
        // Two tokens, four matrices of a layer with one attention, and six of one with two.
        assert_eq!(seen, 2 + 4 + 6);
    }
}
