//! Gradient checkpointing (Chen et al. 2016): of a layer only the inputs are kept, and its inner values are computed again in the backward
//! pass. Memory then grows with one activation for each layer instead of dozens, and a step takes one more forward pass of the layers.

use super::torch::{Recorded, Tape};
use super::{Layer, Torch, TorchTensor};
use tch::{Device, Kind, Tensor};

impl Tape {
    /// Runs a layer without keeping its inner values.
    pub(super) fn record<const N: usize>(&self, ops: &Torch, layer: impl Layer<N>, inputs: [&TorchTensor; N]) -> TorchTensor {
        let seed = Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0]);
        tch::manual_seed(seed);
        let plain = Torch { tape: None, ..*ops };
        let output = tch::no_grad(|| layer.run(&plain, inputs)).0.set_requires_grad(true);
        self.layers.borrow_mut().push(Recorded {
            run: Box::new(move |ops, inputs| layer.run(ops, std::array::from_fn(|i| &inputs[i]))),
            inputs: inputs.map(|input| input.0.shallow_clone()).into(),
            output: output.shallow_clone(),
            seed,
        });
        TorchTensor(output)
    }

    /// Adds the gradients of the recorded layers, and of what their inputs were computed from, to those of the parameters. `ops` is the one
    /// that recorded them, and the backward pass of the loss is done.
    ///
    /// Values between layers may go to several layers, whose gradients pass them one after the other. So operations between layers must be
    /// such that need no values in their backward pass: sums, slices, concatenations.
    pub fn backward(&self, ops: &Torch) {
        let plain = Torch { tape: None, ..*ops };
        for Recorded { run, inputs, output, seed } in self.layers.take().into_iter().rev() {
            let gradient = output.grad();
            if !gradient.defined() {
                continue;
            }
            let leaves: Vec<TorchTensor> =
                inputs.iter().map(|input| TorchTensor(input.detach().set_requires_grad(input.requires_grad()))).collect();
            tch::manual_seed(seed);
            // The gradient of this sum with regard to the output is the output's gradient.
            (run(&plain, &leaves).0 * gradient).sum(output.kind()).backward();
            let reached = inputs.iter().zip(&leaves).filter(|(input, leaf)| input.requires_grad() && leaf.0.grad().defined());
            let sums: Vec<Tensor> = reached.map(|(input, leaf)| (input * leaf.0.grad()).sum(output.kind())).collect();
            if !sums.is_empty() {
                Tensor::stack(&sums, 0).sum(output.kind()).backward();
            }
        }
    }
}
