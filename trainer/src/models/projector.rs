//! Projectors from perception's outputs to visual features (paper, section 3.2): one for image tokens, one for object embeddings.

use crate::graph::{Activation, Linear, Ops};

/// Inner width of both projectors.
pub const INNER: i64 = 512;

/// `image_tokens` `[B, P, width]` and `object_embeddings` `[B, 36, embedding]` to `[B, P + 36, hidden]`.
pub fn projector<O: Ops>(ops: &O, widths: (i64, i64, i64), image_tokens: &O::Tensor, object_embeddings: &O::Tensor) -> O::Tensor {
    let (width, embedding, hidden) = widths;
    let project = |name: &str, x: &O::Tensor, inputs: i64| {
        let x = ops.linear(x, &format!("{name}.proj.0"), Linear::new(inputs, INNER));
        let x = ops.layer_norm(&ops.activate(&x, Activation::Gelu), &format!("{name}.proj.2"), INNER, 1e-5);
        ops.linear(&x, &format!("{name}.proj.3"), Linear::new(INNER, hidden))
    };
    let image = project("image_projectionhead", image_tokens, width);
    let objects = project("obj_projectionhead", object_embeddings, embedding);
    ops.concat(&[&image, &objects], 1)
}

/// Means of image tokens `[B, G G, width]` over squares of `pool` times `pool` patches: `[B, (G / pool)^2, width]`.
pub fn pooled<O: Ops>(ops: &O, image_tokens: &O::Tensor, [grid, width]: [i64; 2], pool: i64) -> O::Tensor {
    if pool == 1 {
        return image_tokens.clone();
    }
    let side = grid / pool;
    // [B, N, pool, M] to the sums [B, N, 1, M]
    let summed = |x: &O::Tensor| {
        let part = |i: i64| ops.slice(x, 2, i, i + 1);
        (1..pool).fold(part(0), |sum, i| ops.add(&sum, &part(i)))
    };
    let rows = summed(&ops.reshape(image_tokens, &[0, side, pool, grid * width]));
    let squares = summed(&ops.reshape(&rows, &[0, side * side, pool, width]));
    ops.scale(&ops.reshape(&squares, &[0, side * side, width]), 1.0 / (pool * pool) as f64)
}
