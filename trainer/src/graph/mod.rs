//! Models are functions over the operations of [`Ops`]. [`Torch`] computes a model, and `onnx::Writer` writes it as an ONNX graph.
//!
//! A parameter is declared where it is used, with its published name, shape and initialisation. There is no other list of parameters:
//! [`Params`] creates, loads or checks each one when the model requests it.

pub mod adamw;
mod error;
pub mod onnx;
mod params;
mod recompute;
pub(crate) mod source;
mod torch;

use anatomix::parts::bundle::{FULL_ATTENTION_BIAS, SLIDING_ATTENTION_BIAS};
pub use error::ParamsError;
pub use params::{Init, Params, write_tensors};
use std::ops::Range;
use tch::{Device, Kind, Tensor};
pub use torch::{CausalBatch, Tape, Torch, TorchTensor};

/// Initialisation of embedding tables.
const TABLE: Init = Init::Normal(0.02);
/// Epsilon of every batch norm.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Tensor operations of models. In shapes, `-1` is an inferred dimension and `0` an unchanged one.
pub trait Ops {
    /// A tensor, which is cheap to clone.
    type Tensor: Clone;

    /// A parameter.
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Self::Tensor;
    /// A constant.
    fn constant(&self, name: &str, values: &[f32], shape: &[i64]) -> Self::Tensor;
    /// Linear layer `x W^T + b`, where `name.weight` is `[out, in]`. LoRA adapters apply to it.
    fn linear(&self, x: &Self::Tensor, name: &str, size: Linear) -> Self::Tensor;
    /// Linear layers of one input `x`, without biases, each with its name and number of outputs. An export merges them into one matrix
    /// product, whose weight is named `merged`.
    fn linears<const N: usize>(&self, x: &Self::Tensor, merged: &str, inputs: i64, layers: [(String, i64); N]) -> [Self::Tensor; N] {
        let _ = merged;
        layers.map(|(name, outputs)| self.linear(x, &name, Linear::new(inputs, outputs).without_bias()))
    }
    /// `x W^T + b` with the rows `part` of a weight and a bias; `names` are their names, `size` is the weight's `[rows, inputs]`.
    fn linear_part(&self, x: &Self::Tensor, names: [&str; 2], size: [i64; 2], part: Range<i64>) -> Self::Tensor;
    /// Convolution without bias, followed by the batch norm `norm`, which an export folds into the convolution.
    fn conv_norm(&self, x: &Self::Tensor, name: &str, norm: &str, size: Conv) -> Self::Tensor;
    /// Convolution with bias and a kernel of 1 x 1, with flattened pixels: `[B, inputs, H, W]` to `[B, H W, outputs]`.
    fn pixels(&self, x: &Self::Tensor, name: &str, size: Linear) -> Self::Tensor;
    /// Max pooling, 3x3 with stride 2 and padding 1.
    fn max_pool(&self, x: &Self::Tensor) -> Self::Tensor;
    /// Layer norm over the last dimension.
    fn layer_norm(&self, x: &Self::Tensor, name: &str, width: i64, epsilon: f64) -> Self::Tensor;
    /// Root-mean-square norm over the last dimension, scaled by `1 + name.weight` as in Gemma.
    fn rms_norm(&self, x: &Self::Tensor, name: &str, width: i64, epsilon: f64) -> Self::Tensor;
    /// Activation function.
    fn activate(&self, x: &Self::Tensor, activation: Activation) -> Self::Tensor;
    /// Softmax over the last dimension.
    fn softmax(&self, x: &Self::Tensor) -> Self::Tensor;
    /// Sum, with broadcasting.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Product, with broadcasting.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Product with a scalar.
    fn scale(&self, x: &Self::Tensor, factor: f64) -> Self::Tensor;
    /// Matrix product over the last two dimensions.
    fn matmul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// The same values in another shape.
    fn reshape(&self, x: &Self::Tensor, shape: &[i64]) -> Self::Tensor;
    /// Permutation of the dimensions.
    fn transpose(&self, x: &Self::Tensor, order: &[i64]) -> Self::Tensor;
    /// Concatenation.
    fn concat(&self, parts: &[&Self::Tensor], axis: i64) -> Self::Tensor;
    /// The range `from..to` of a dimension.
    fn slice(&self, x: &Self::Tensor, axis: i64, from: i64, to: i64) -> Self::Tensor;
    /// Repeats `x`, whose batch size is 1, to the batch size of `like`.
    fn repeat_batch(&self, x: &Self::Tensor, like: &Self::Tensor) -> Self::Tensor;
    /// Dropout; the identity outside of training.
    fn dropout(&self, x: &Self::Tensor, probability: f64) -> Self::Tensor;
    /// Sets the name of the following operations in an exported graph.
    fn scope(&self, name: &str);

    /// Embeddings of the decoder's tokens: rows of the table `name`, `[rows, width]`, times `scale`. Visual features replace the rows of
    /// the tokens that stand for them.
    fn embed_tokens(&self, name: &str, size: [i64; 2], scale: f64) -> Self::Tensor;
    /// Logits `x W^T` with the table `name`, `[rows, width]`, which may be the table of [`Ops::embed_tokens`].
    fn logits(&self, x: &Self::Tensor, name: &str, size: [i64; 2]) -> Self::Tensor;
    /// Grouped-query causal attention of the decoder with rotary position embeddings; an exported graph uses the KV cache.
    /// `q` is `[B, T, heads * head_dim]`, `k` and `v` are `[B, T, kv_heads * head_dim]`. The result has the shape of `q`.
    fn causal_attention(&self, q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, spec: &CausalAttention) -> Self::Tensor;
    /// Selects the positions whose logits are computed.
    fn select_positions(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Runs a layer. In a training its inner values may be computed again in the backward pass instead of being kept.
    fn layer<const N: usize>(&self, layer: impl Layer<N>, inputs: [&Self::Tensor; N]) -> Self::Tensor
    where
        Self: Sized,
    {
        layer.run(self, inputs)
    }

    /// Multi-head attention: `q` is `[B, N, D]`, `k` and `v` are `[B, M, D]`.
    fn attention(&self, q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, how: &Attention<Self::Tensor>) -> Self::Tensor {
        let &Attention { heads, width, mask, .. } = how;
        let head = width / heads;
        let split = |x| self.transpose(&self.reshape(x, &[0, -1, heads, head]), &[0, 2, 1, 3]);
        let keys = self.transpose(&self.reshape(k, &[0, -1, heads, head]), &[0, 2, 3, 1]);
        let mut scores = self.scale(&self.matmul(&split(q), &keys), 1.0 / (head as f64).sqrt());
        if let Some(mask) = mask {
            scores = self.add(&scores, mask);
        }
        let mixed = self.matmul(&self.softmax(&scores), &split(v));
        self.reshape(&self.transpose(&mixed, &[0, 2, 1, 3]), &[0, -1, width])
    }
}

/// A layer of a network, as a function of `N` tensors that can be run again.
pub trait Layer<const N: usize>: 'static {
    /// Runs it.
    fn run<O: Ops>(&self, ops: &O, inputs: [&O::Tensor; N]) -> O::Tensor;
}

/// How [`Ops::attention`] attends.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a, T> {
    /// Number of heads.
    pub heads: i64,
    /// Width of queries, keys and values.
    pub width: i64,
    /// What is added to the scores.
    pub mask: Option<&'a T>,
    /// Probability in training that an attention weight is 0.
    pub dropout: f64,
}

/// Size of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Number of inputs.
    pub inputs: i64,
    /// Number of outputs.
    pub outputs: i64,
    /// Whether the layer has a bias.
    pub bias: bool,
    /// How its weight begins; a bias begins at zero.
    pub init: Init,
}

impl Linear {
    /// A layer with a bias that begins as PyTorch's.
    pub fn new(inputs: i64, outputs: i64) -> Self {
        Self { inputs, outputs, bias: true, init: Init::Fan }
    }

    /// The layer without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// The layer with another initialisation of its weight.
    pub fn begins(self, init: Init) -> Self {
        Self { init, ..self }
    }
}

/// Size of a square convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Number of input channels.
    pub inputs: i64,
    /// Number of output channels.
    pub outputs: i64,
    /// Side of the kernel. The padding is `kernel / 2`, rounded down.
    pub kernel: i64,
    /// Stride.
    pub stride: i64,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Activation {
    Relu,
    Gelu,
    GeluTanh,
    Sigmoid,
}

/// Configuration of a decoder layer's attention.
#[derive(Clone, Debug)]
pub struct CausalAttention {
    /// Index of the layer, which is part of the names of its KV cache.
    pub layer: i64,
    /// Number of query heads.
    pub heads: i64,
    /// Number of key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Factor of the attention scores.
    pub scale: f64,
    /// Sliding window of a sliding layer in tokens, including the token itself; `None` for a full layer.
    pub window: Option<i64>,
    /// Base of the rotary position embedding.
    pub theta: f64,
    /// Divisor of the positions (linear scaling).
    pub factor: f64,
}

/// Attention bias `[1, 1, count, past + count]` of `count` tokens after `past` tokens: -1e30 before the sliding window, otherwise 0. Later
/// tokens are not masked here, because the decoder's attention is causal itself.
pub fn causal_bias(past: i64, count: i64, window: Option<i64>) -> Tensor {
    let positions = |from: i64, to: i64| Tensor::arange_start(from, to, (Kind::Float, Device::Cpu));
    let distance = positions(past, past + count).unsqueeze(1) - positions(0, past + count);
    let masked = window.map_or_else(|| distance.zeros_like(), |window| distance.ge(window as f64).to_kind(Kind::Float));
    (masked * -1e30).unsqueeze(0).unsqueeze(0)
}

impl CausalAttention {
    /// Name of the decoder's input with this layer's attention bias.
    pub fn bias(&self) -> &'static str {
        if self.window.is_some() { SLIDING_ATTENTION_BIAS } else { FULL_ATTENTION_BIAS }
    }

    /// Rotary angles of position 1, `head_dim / 2` values. They come from the crate `libm`, because the last bits of the system's library
    /// depend on its version and on the processor.
    pub fn frequencies(&self) -> Vec<f64> {
        let half = self.head_dim / 2;
        (0..half).map(|i| libm::pow(self.theta, -2.0 * i as f64 / self.head_dim as f64) / self.factor).collect()
    }
}
