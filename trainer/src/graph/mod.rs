//! One network, two readers: models are functions over [`Ops`], which [`Torch`] computes and the exporter writes as ONNX.
//!
//! A parameter is declared where it is used, with its published name, its shape and its initialisation. So a model's
//! function is its own list of parameters: [`Params`] creates, loads or checks them as the function asks for them.

pub mod adamw;
mod error;
pub mod onnx;
mod params;
pub(crate) mod source;
mod torch;

use anatomix::bundle::{FULL_ATTENTION_BIAS, SLIDING_ATTENTION_BIAS};
pub use error::ParamsError;
pub use params::{Init, Params};
use std::ops::Range;
use tch::{Device, Kind, Tensor};
pub use torch::{CausalBatch, Torch, TorchTensor};

/// How embedding tables start.
const TABLE: Init = Init::Normal(0.02);
/// Epsilon of every batch norm.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Tensor operations that models are written in. Shapes are row-major; `-1` in a shape is inferred, `0` kept.
pub trait Ops {
    /// A tensor, cheap to clone.
    type Tensor: Clone;

    /// A parameter.
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Self::Tensor;
    /// A constant.
    fn constant(&self, name: &str, values: &[f32], shape: &[i64]) -> Self::Tensor;
    /// `x W^T + b`, where `name.weight` is `[out, in]`; the place where LoRA acts.
    fn linear(&self, x: &Self::Tensor, name: &str, size: Linear) -> Self::Tensor;
    /// Linear layers of `x`, each by its name and number of outputs, without biases; on export one product of the name `merged`.
    fn linears<const N: usize>(&self, x: &Self::Tensor, merged: &str, inputs: i64, layers: [(String, i64); N]) -> [Self::Tensor; N] {
        let _ = merged;
        layers.map(|(name, outputs)| self.linear(x, &name, Linear { inputs, outputs, bias: false }))
    }
    /// `x W^T + b` with a part of the rows of a weight `[rows, inputs]` and of a bias `[rows]`, by their names.
    fn linear_part(&self, x: &Self::Tensor, names: [&str; 2], size: [i64; 2], part: Range<i64>) -> Self::Tensor;
    /// Convolution without bias, followed by the batch norm `norm` (folded on export).
    fn conv_norm(&self, x: &Self::Tensor, name: &str, norm: &str, size: Conv) -> Self::Tensor;
    /// A linear layer with bias of each pixel, its weight the kernel of a convolution: `[B, inputs, H, W]` to `[B, H W, outputs]`.
    fn pixels(&self, x: &Self::Tensor, name: &str, size: Linear) -> Self::Tensor;
    /// Max pooling, 3x3 with stride 2 and padding 1.
    fn max_pool(&self, x: &Self::Tensor) -> Self::Tensor;
    /// Layer norm over the last dimension.
    fn layer_norm(&self, x: &Self::Tensor, name: &str, width: i64, epsilon: f64) -> Self::Tensor;
    /// Root-mean-square norm over the last dimension, scaled by `1 + name.weight` as Gemma does.
    fn rms_norm(&self, x: &Self::Tensor, name: &str, width: i64, epsilon: f64) -> Self::Tensor;
    /// ReLU, GELU (exact or by tanh), sigmoid.
    fn activate(&self, x: &Self::Tensor, activation: Activation) -> Self::Tensor;
    /// Softmax over the last dimension.
    fn softmax(&self, x: &Self::Tensor) -> Self::Tensor;
    /// Sum, with broadcasting.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Product, with broadcasting.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Product with a number.
    fn scale(&self, x: &Self::Tensor, factor: f64) -> Self::Tensor;
    /// Matrix product of the last two dimensions.
    fn matmul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Another shape of the same values.
    fn reshape(&self, x: &Self::Tensor, shape: &[i64]) -> Self::Tensor;
    /// Permuted dimensions.
    fn transpose(&self, x: &Self::Tensor, order: &[i64]) -> Self::Tensor;
    /// Concatenation.
    fn concat(&self, parts: &[&Self::Tensor], axis: i64) -> Self::Tensor;
    /// Part `from..to` of a dimension.
    fn slice(&self, x: &Self::Tensor, axis: i64, from: i64, to: i64) -> Self::Tensor;
    /// `x` of batch 1 repeated to the batch of `like`.
    fn repeat_batch(&self, x: &Self::Tensor, like: &Self::Tensor) -> Self::Tensor;
    /// Dropout; nothing outside training.
    fn dropout(&self, x: &Self::Tensor, probability: f64) -> Self::Tensor;
    /// Names what follows, for readable graphs.
    fn scope(&self, name: &str);

    /// Rows of the embedding table `name`, `[rows, width]`, for the decoder's token ids, scaled, with visual features where they
    /// belong.
    fn embed_tokens(&self, name: &str, size: [i64; 2], scale: f64) -> Self::Tensor;
    /// `x W^T` with a table `name`, `[rows, width]`: the logits. It may be the table that tokens were embedded with.
    fn logits(&self, x: &Self::Tensor, name: &str, size: [i64; 2]) -> Self::Tensor;
    /// Causal attention of the decoder, grouped-query with rotary positions; on export over the key-value cache.
    /// `q` is `[B, T, heads * head_dim]`, `k` and `v` `[B, T, kv_heads * head_dim]`; gives the shape of `q`.
    fn causal_attention(&self, q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, spec: &CausalAttention) -> Self::Tensor;
    /// The positions whose logits are wanted.
    fn select_positions(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Attention of `heads` heads: `q` `[B, N, D]`, `k` and `v` `[B, M, D]`.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: i64,
        width: i64,
        mask: Option<&Self::Tensor>,
    ) -> Self::Tensor {
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

/// Size of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Inputs.
    pub inputs: i64,
    /// Outputs.
    pub outputs: i64,
    /// Whether it has a bias.
    pub bias: bool,
}

/// Size of a square convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Channels in.
    pub inputs: i64,
    /// Channels out.
    pub outputs: i64,
    /// Side of the kernel; the padding is half of it.
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

/// What a decoder layer's attention needs to know.
#[derive(Clone, Debug)]
pub struct CausalAttention {
    /// Which layer, for the names of its cache.
    pub layer: i64,
    /// Query heads.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Factor on the scores.
    pub scale: f64,
    /// How many tokens back a local layer sees, itself included; `None` for a global layer.
    pub window: Option<i64>,
    /// Base of the rotary positions.
    pub theta: f64,
    /// Divisor of the positions (linear scaling).
    pub factor: f64,
}

/// What `count` tokens behind `past` others see of all of them, `[1, 1, count, past + count]`: 0, or very little behind a window.
pub fn causal_bias(past: i64, count: i64, window: Option<i64>) -> Tensor {
    let places = |from: i64, to: i64| Tensor::arange_start(from, to, (Kind::Float, Device::Cpu));
    let distance = places(past, past + count).unsqueeze(1) - places(0, past + count);
    let unseen = window.map_or_else(|| distance.zeros_like(), |window| distance.ge(window as f64).to_kind(Kind::Float));
    (unseen * -1e30).unsqueeze(0).unsqueeze(0)
}

impl CausalAttention {
    /// The decoder's input that says what this layer sees.
    pub fn bias(&self) -> &'static str {
        if self.window.is_some() { SLIDING_ATTENTION_BIAS } else { FULL_ATTENTION_BIAS }
    }

    /// Angles of the rotary positions for one position: `head_dim / 2` values.
    pub fn frequencies(&self) -> Vec<f64> {
        let half = self.head_dim / 2;
        (0..half).map(|i| self.theta.powf(-2.0 * i as f64 / self.head_dim as f64) / self.factor).collect()
    }
}
