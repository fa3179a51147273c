//! Low-rank adapters on the decoder's linear layers (paper, section 3.2; Hu et al. 2022).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings of the adapters. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    pub rank: i64,
    /// The adapter's output is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 16.0, dropout: 0.05 }
    }
}

impl Lora {
    /// Whether the linear layer of this name has an adapter. All linear layers inside the decoder's blocks have one.
    pub fn adapts(&self, name: &str) -> bool {
        name.starts_with("model.layers.")
    }

    /// Factor of the adapter's output.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Merges the adapter `a` `[rank, in]`, `b` `[out, rank]` into a weight `[out, in]`; all are in fp32. Sums over the rank are in fp64
    /// and in a fixed order, so that exports from different machines are equal. A library's matrix product depends on the processor.
    pub fn merged(&self, weight: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
        let values = |x: &Tensor| {
            let mut values = vec![0f32; x.numel()];
            x.contiguous().copy_data(&mut values, x.numel());
            values
        };
        let (mut merged, a, b) = (values(weight), values(a), values(b));
        let inputs = weight.size()[1] as usize;
        let rows = merged.par_chunks_mut(inputs).zip(b.par_chunks(self.rank as usize));
        rows.for_each_init(
            || vec![0f64; inputs],
            |sums, (row, b)| {
                sums.fill(0.0);
                for (&b, a) in b.iter().zip(a.chunks_exact(inputs)) {
                    sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
                }
                row.iter_mut().zip(sums).for_each(|(value, sum)| *value = (f64::from(*value) + self.scale() * *sum) as f32);
            },
        );
        Tensor::from_slice(&merged).view_as(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn merged_weights_are_the_sum_rounded_once() {
        tch::manual_seed(3);
        let lora = Lora { rank: 5, alpha: 3.0, dropout: 0.0 };
        let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (weight, a, b) = (random([40, 70]), random([5, 70]), random([40, 5]));
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let expected = double(&b).matmul(&double(&a)) * 0.6 + double(&weight);
        let merged = lora.merged(&weight, &a, &b);
        assert_eq!(merged.size(), [40, 70]);
        // The tolerance is half a unit in the last place of fp32 for values below 16.
        let difference = (double(&merged) - expected).abs().max().double_value(&[]);
        assert!(difference <= 8.0 * f64::from(f32::EPSILON) / 2.0, "{difference}");
    }
}
