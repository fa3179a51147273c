//! Keys and values of the tokens that were computed already.

use crate::bundle::DecoderSizes;
use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::Tensor;

/// The cache of one study. Past and present are the same buffers: a token's keys and values are written once and stay.
pub struct Cache {
    /// Keys and values of each layer, `[1, kv_heads, capacity, head_dim]`.
    tensors: Vec<Tensor<f32>>,
    capacity: usize,
    length: usize,
}

impl Cache {
    pub(super) fn new(allocator: &Allocator, sizes: &DecoderSizes, capacity: usize) -> ort::Result<Self> {
        let shape = [1, sizes.kv_heads, capacity, sizes.head_dim];
        let tensors = (0..2 * sizes.layers).map(|_| Tensor::<f32>::new(allocator, shape)).collect::<ort::Result<_>>()?;
        Ok(Self { tensors, capacity, length: 0 })
    }

    /// How many tokens it holds.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many tokens fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens from `length` on.
    pub fn rewind(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }

    pub(super) fn bind(&mut self, binding: &mut IoBinding) -> ort::Result<()> {
        let layers = self.tensors.len() / 2;
        let names = names("past_key_values", layers).zip(names("present", layers));
        for ((past, present), tensor) in names.zip(&mut self.tensors) {
            binding.bind_input(past, tensor)?;
            binding.bind_output(present, tensor)?;
        }
        Ok(())
    }
}

/// Names of all layers' keys and values, layer by layer.
pub(super) fn names(what: &str, layers: usize) -> impl Iterator<Item = String> {
    (0..layers).flat_map(move |layer| [format!("{what}.{layer}.key"), format!("{what}.{layer}.value")])
}
