//! Multi-head attention with PyTorch's parameters.

use crate::graph::{Attention, Init, Linear, Ops};

/// PyTorch's `nn.MultiheadAttention`, whose `in_proj_weight` `[3 D, D]` projects queries, keys and values: queries `[B, N, D]`, keys and
/// values `[B, M, D]` to `[B, N, D]`. `out` says how the projection of the result begins.
pub fn multi_head<O: Ops>(ops: &O, name: &str, how: &Attention<O::Tensor>, out: Init, [q, k, v]: [&O::Tensor; 3]) -> O::Tensor {
    let width = how.width;
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.in_proj_{part}"));
    let project = |x: &O::Tensor, part: i64| ops.linear_part(x, [&weight, &bias], [3 * width, width], part * width..(part + 1) * width);
    let mixed = ops.attention(&project(q, 0), &project(k, 1), &project(v, 2), how);
    ops.linear(&mixed, &format!("{name}.out_proj"), Linear::new(width, width).begins(out))
}
