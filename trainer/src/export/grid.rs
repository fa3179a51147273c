//! Rounding of stored figures, so that every machine stores the same bytes.
//!
//! The order of sums depends on processor, libraries and number of threads. Figures in fp64 then differ by 1e-16 of their tensor's largest
//! value on average, and a figure that is this close to a rounding boundary is rounded up on one machine and down on another. If the 33,000
//! figures of the reference bundle were rounded to fp32, one export in a thousand would differ; of a large bundle most would. On a grid of
//! 2^14 steps it is one in 25 million, and for a hundred times as many figures and deeper networks less than one in 10,000. The grid
//! changes a figure by at most 6e-5 of the largest; the golden check allows 1e-3.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Binary logarithm of the number of steps from 0 to the power of two above a tensor's largest value.
const BITS: i32 = 14;

/// Rounds a tensor in fp64 to the grid. The result is in fp32, which represents the grid's values exactly.
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
    // Division and multiplication by a power of two are exact.
    let step = libm::scalbn(1.0, libm::ilogb(largest) + 1 - BITS);
    Ok(((values / step).round() * step).to_kind(Kind::Float).contiguous())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_last_bits_of_fp64_are_not_stored() {
        tch::manual_seed(5);
        let options = (Kind::Double, Device::Cpu);
        let values = Tensor::randn([500, 1000], options) * 3.0;
        let stored = rounded("values", &values).unwrap();
        let largest = values.abs().max().double_value(&[]);
        let moved = (&stored - &values).abs().max().double_value(&[]) / largest;
        assert!(moved > 1e-5 && moved < 6.2e-5, "{moved}");
        // Ten times the difference between kernels. Of half a million figures, none is expected to change.
        let noise = Tensor::randn([500, 1000], options) * (1e-15 * largest);
        let noisy = values + noise;
        assert!(rounded("values", &noisy).unwrap().equal(&stored));
    }

    #[test]
    fn zeros_stay_and_infinite_values_are_errors() {
        let zeros = Tensor::zeros([3], (Kind::Double, Device::Cpu));
        assert!(rounded("values", &zeros).unwrap().equal(&zeros.to_kind(Kind::Float)));
        for bad in [f64::NAN, f64::INFINITY] {
            let error = rounded("logits", &Tensor::from_slice(&[1.0, bad])).unwrap_err().to_string();
            assert!(error.contains("logits"), "{error}");
        }
    }
}
