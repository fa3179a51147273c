//! How figures are stored so that every machine stores the same bytes.
//!
//! Processors, libraries and thread counts add up in different orders. Figures that are computed in fp64 then differ by 1e-16 of their
//! tensor's largest value on average, and a figure that lies this close to a boundary between two stored values is stored as one here and
//! as the other there. Of the 33,000 figures of the reference bundle, one in a thousand exports would differ somewhere if they were
//! rounded to fp32, of a large bundle most would; on a grid of 2^14 steps it is one in 25 million, and for a hundred times as many figures
//! and deeper networks still less than one in 10,000. The grid moves a figure by at most 6e-5 of the largest; the golden check allows 1e-3.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Steps of the grid up to the power of two above a tensor's largest value, as a power of two.
const BITS: i32 = 14;

/// A tensor that was computed in fp64, rounded to the grid, in fp32, which holds the grid's values exactly.
///
/// # Errors
/// If a value is not finite.
pub(super) fn rounded(name: &str, values: &Tensor) -> Result<Tensor> {
    debug_assert_eq!(values.kind(), Kind::Double);
    let largest = values.abs().max().double_value(&[]);
    ensure!(largest.is_finite(), "the {name} are not finite; the run's training has diverged");
    if largest == 0.0 {
        return Ok(values.to_kind(Kind::Float).contiguous());
    }
    // A power of two: dividing by it and multiplying with it are exact.
    let step = libm::scalbn(1.0, libm::ilogb(largest) + 1 - BITS);
    Ok(((values / step).round() * step).to_kind(Kind::Float).contiguous())
}
