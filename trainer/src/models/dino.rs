//! DINOv3's vision transformer as the image encoder, an ablation of the paper (section S5). Parameter names are those of the Hugging Face
//! checkpoints, with the prefix [`BODY`].

use crate::graph::{Activation, Attention, Init, Linear, Ops};
use serde::{Deserialize, Serialize};

/// Prefix of the encoder's parameter names in the module.
pub const BODY: &str = "backbone.0.body";
/// Mean of each colour channel in pretraining. A grey image has the same values in all three channels.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of each colour channel in pretraining.
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// Configuration of the encoder. The defaults are those of ViT-S.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinoConfig {
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Width.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub feed_forward: i64,
    /// Number of register tokens.
    pub registers: i64,
    /// Whether the feed-forward layers are gated (SwiGLU).
    pub gated: bool,
    /// Whether queries, keys and values have a bias.
    pub biases: [bool; 3],
}

impl Default for DinoConfig {
    fn default() -> Self {
        Self { patch: 16, width: 384, layers: 12, heads: 6, feed_forward: 1536, registers: 4, gated: false, biases: [true, false, true] }
    }
}

/// Rotary position embedding: cosines and signed sines, see [`angles`].
struct Rotary<T> {
    cos: T,
    sin: T,
}

/// Features of the patches in row-major order: images `[B, 1, S, S]` with values 0..1 to `[B, P, width]`.
pub fn dinov3<O: Ops>(ops: &O, config: &DinoConfig, image_size: i64, image: &O::Tensor) -> O::Tensor {
    let (width, patch, grid) = (config.width, config.patch, image_size / config.patch);
    ops.scope("backbone/patches");
    // [B, 1, S, S] -> [B, P, patch * patch], then normalised for each colour channel
    let cut = ops.transpose(&ops.reshape(image, &[0, grid, patch, grid, patch]), &[0, 1, 3, 2, 4]);
    let cut = ops.reshape(&cut, &[0, grid * grid, patch * patch]);
    let channels: Vec<O::Tensor> = (0..3)
        .map(|c| {
            let shift = ops.constant(&format!("channel_shift.{c}"), &[(-MEAN[c] / DEVIATION[c]) as f32], &[1, 1, 1]);
            ops.add(&ops.scale(&cut, 1.0 / DEVIATION[c]), &shift)
        })
        .collect();
    let pixels = ops.concat(&channels.iter().collect::<Vec<_>>(), 2);
    let kernel = ops.weight(&name("embeddings.patch_embeddings.weight"), &[width, 3, patch, patch], Init::Fan);
    let kernel = ops.transpose(&ops.reshape(&kernel, &[width, 3 * patch * patch]), &[1, 0]);
    let bias = ops.weight(&name("embeddings.patch_embeddings.bias"), &[width], Init::Zeros);
    let patches = ops.add(&ops.matmul(&pixels, &kernel), &bias);
    let mut before = vec![ops.weight(&name("embeddings.cls_token"), &[1, 1, width], Init::Normal(0.02))];
    if config.registers > 0 {
        before.push(ops.weight(&name("embeddings.register_tokens"), &[1, config.registers, width], Init::Normal(0.02)));
    }
    let mut tokens: Vec<O::Tensor> = before.iter().map(|token| ops.repeat_batch(token, &patches)).collect();
    tokens.push(patches);
    let mut x = ops.concat(&tokens.iter().collect::<Vec<_>>(), 1);

    let skipped = 1 + config.registers;
    let (cos, sin) = angles(grid as usize, skipped as usize, (width / config.heads) as usize);
    let shape = [1, skipped + grid * grid, 1, width / config.heads];
    let rotary = Rotary { cos: ops.constant("rotary_cos", &cos, &shape), sin: ops.constant("rotary_sin", &sin, &shape) };
    for index in 0..config.layers {
        ops.scope(&format!("backbone/layer.{index}"));
        x = layer(ops, config, &name(&format!("layer.{index}")), &rotary, &x);
    }
    let x = ops.layer_norm(&x, &name("norm"), width, 1e-5);
    ops.slice(&x, 1, skipped, skipped + grid * grid)
}

fn name(part: &str) -> String {
    format!("{BODY}.{part}")
}

/// Pre-norm layer. Both residual branches are scaled channel by channel (LayerScale).
fn layer<O: Ops>(ops: &O, config: &DinoConfig, name: &str, rotary: &Rotary<O::Tensor>, x: &O::Tensor) -> O::Tensor {
    let (width, inner) = (config.width, config.feed_forward);
    let scaled = |x: &O::Tensor, part: &str| ops.mul(x, &ops.weight(&format!("{name}.{part}.lambda1"), &[width], Init::Ones));
    let input = ops.layer_norm(x, &format!("{name}.norm1"), width, 1e-5);
    let project = |part: &str, bias| ops.linear(&input, &format!("{name}.attention.{part}"), Linear { bias, ..Linear::new(width, width) });
    let [q, k, v] = config.biases;
    let rotated = |x: O::Tensor| rotate(ops, config, rotary, &x);
    let how = Attention { heads: config.heads, width, mask: None, dropout: 0.0 };
    let mixed = ops.attention(&rotated(project("q_proj", q)), &rotated(project("k_proj", k)), &project("v_proj", v), &how);
    let mixed = ops.linear(&mixed, &format!("{name}.attention.o_proj"), Linear::new(width, width));
    let x = ops.add(x, &scaled(&mixed, "layer_scale1"));

    let input = ops.layer_norm(&x, &format!("{name}.norm2"), width, 1e-5);
    let up = |part: &str| ops.linear(&input, &format!("{name}.mlp.{part}"), Linear::new(width, inner));
    let hidden = if config.gated {
        // SiLU is `x * sigmoid(x)`.
        let gate = up("gate_proj");
        ops.mul(&ops.mul(&gate, &ops.activate(&gate, Activation::Sigmoid)), &up("up_proj"))
    } else {
        ops.activate(&up("up_proj"), Activation::Gelu)
    };
    let out = ops.linear(&hidden, &format!("{name}.mlp.down_proj"), Linear::new(inner, width));
    ops.add(&x, &scaled(&out, "layer_scale2"))
}

/// Applies the rotary position embedding to each head: `[B, N, width]` to `[B, N, width]`.
fn rotate<O: Ops>(ops: &O, config: &DinoConfig, rotary: &Rotary<O::Tensor>, x: &O::Tensor) -> O::Tensor {
    let head = config.width / config.heads;
    let split = ops.reshape(x, &[0, -1, config.heads, head]);
    let half = |from: i64| ops.slice(&split, 3, from, from + head / 2);
    let swapped = ops.concat(&[&half(head / 2), &half(0)], 3);
    let turned = ops.add(&ops.mul(&split, &rotary.cos), &ops.mul(&swapped, &rotary.sin));
    ops.reshape(&turned, &[0, -1, config.width])
}

/// Cosines and signed sines `[tokens, head]`. The first `skipped` tokens are not rotated. Positions are the patches' centres in -1..1, y
/// before x. Sines in the first half of the channels are negated, because the rotation subtracts there.
fn angles(grid: usize, skipped: usize, head: usize) -> (Vec<f32>, Vec<f32>) {
    let quarter = head / 4;
    let (mut cos, mut sin) = (vec![1f32; skipped * head], vec![0f32; skipped * head]);
    let at = |i: usize| 2.0 * (i as f64 + 0.5) / grid as f64 - 1.0;
    for (y, x) in (0..grid).flat_map(|y| (0..grid).map(move |x| (y, x))) {
        for channel in 0..head {
            let index = channel % (2 * quarter);
            let frequency = libm::pow(100.0, -((index % quarter) as f64) / quarter as f64);
            let angle = std::f64::consts::TAU * if index < quarter { at(y) } else { at(x) } * frequency;
            let (sine, cosine) = libm::sincos(angle);
            cos.push(cosine as f32);
            sin.push(if channel < head / 2 { -sine } else { sine } as f32);
        }
    }
    (cos, sin)
}
