//! Projectors from perception's outputs to visual features (paper, section 3.2): one for image tokens, one for object embeddings.

use crate::graph::{Activation, Linear, Ops};

/// Inner width of both projectors.
pub const INNER: i64 = 512;

/// `image_tokens` `[B, P, width]` and `object_embeddings` `[B, 36, embedding]` to `[B, P + 36, hidden]`.
pub fn projector<O: Ops>(ops: &O, widths: (i64, i64, i64), image_tokens: &O::Tensor, object_embeddings: &O::Tensor) -> O::Tensor {
    let (width, embedding, hidden) = widths;
    let project = |name: &str, x: &O::Tensor, inputs: i64| {
        let x = ops.linear(x, &format!("{name}.proj.0"), Linear { inputs, outputs: INNER, bias: true });
        let x = ops.layer_norm(&ops.activate(&x, Activation::Gelu), &format!("{name}.proj.2"), INNER, 1e-5);
        ops.linear(&x, &format!("{name}.proj.3"), Linear { inputs: INNER, outputs: hidden, bias: true })
    };
    let image = project("image_projectionhead", image_tokens, width);
    let objects = project("obj_projectionhead", object_embeddings, embedding);
    ops.concat(&[&image, &objects], 1)
}
