//! Keys and values of the tokens that were computed already, and the memory that all studies' together may take.

use super::DecoderError;
use super::slots::{Branch, Slot, Slots};
use crate::bundle::DecoderSizes;
use crate::runtime::rows_from;
use half::bf16;
use ort::memory::{AllocationDevice, Allocator};
use ort::session::IoBinding;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The precision of a decoder whose cache is not of fp32.
pub(super) const BF16: &str = "bf16";

/// The memory of an engine's caches.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: limit.unwrap_or(u64::MAX) })
    }

    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, DecoderError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reserved { budget: Arc::clone(self), bytes }),
            Err(used) => Err(DecoderError::Memory { needed: bytes, used, limit: self.limit }),
        }
    }
}

/// A part of the budget; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Whether keys and values are of bf16, as the decoder's computations; of fp32 otherwise.
fn is_bf16(sizes: &DecoderSizes) -> bool {
    sizes.precision == BF16
}

/// Bytes that a token's keys and values take.
pub(super) fn token_bytes(sizes: &DecoderSizes) -> u64 {
    let value = if is_bf16(sizes) { size_of::<bf16>() } else { size_of::<f32>() };
    [2, sizes.layers, sizes.kv_heads, sizes.head_dim, value].iter().fold(1, |bytes, &n| bytes.saturating_mul(n as u64))
}

/// The cache of one study. Past and present are the same buffers: a token's keys and values are written once and stay.
pub struct Cache {
    /// Keys and values of each layer, `[1, kv_heads, capacity, head_dim]`, of the type that the decoder computes in; one head more,
    /// which is never touched, where the layer slides.
    tensors: Vec<DynTensor>,
    /// Which layers' graphs may be given the cache from any place on: what begins later must not end behind the memory.
    sliding: Arc<[bool]>,
    capacity: usize,
    slots: Slots,
    /// Of its memory; several after it has grown.
    reserved: Vec<Reserved>,
}

impl Cache {
    pub(super) fn new(
        allocator: &Allocator,
        sizes: &DecoderSizes,
        sliding: &Arc<[bool]>,
        capacity: usize,
        reserved: Reserved,
    ) -> ort::Result<Self> {
        let element = if is_bf16(sizes) { TensorElementType::Bfloat16 } else { TensorElementType::Float32 };
        let tensor = |index: usize| {
            let heads = sizes.kv_heads + usize::from(sliding[index / 2]);
            DynTensor::new(allocator, element, [1, heads, capacity, sizes.head_dim])
        };
        let tensors = (0..2 * sizes.layers).map(tensor).collect::<ort::Result<_>>()?;
        Ok(Self { tensors, sliding: Arc::clone(sliding), capacity, slots: Slots::default(), reserved: vec![reserved] })
    }

    /// How many places are taken, by tokens and by gaps that forgotten ones left.
    pub fn length(&self) -> usize {
        self.slots().len()
    }

    /// What stands where.
    pub fn slots(&self) -> &[Slot] {
        self.slots.as_slice()
    }

    /// How many tokens fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets what stands from the place `length` on.
    pub fn rewind(&mut self, length: usize) {
        self.slots.truncate(length);
    }

    /// Forgets a branch's tokens from a position on.
    pub fn forget(&mut self, branch: Branch, position: usize) {
        self.slots.forget(branch, position);
    }

    pub(super) fn advance(&mut self, slots: &[Slot]) {
        self.slots.extend(slots);
    }

    /// Closes the gaps that forgotten tokens left.
    pub(super) fn compact(&mut self, sizes: &DecoderSizes, device: Option<i32>) -> ort::Result<()> {
        let Some(kept) = self.slots.compact() else { return Ok(()) };
        for tensor in &mut self.tensors {
            match device {
                None => close_gaps(tensor, &kept, sizes, self.capacity)?,
                Some(device) => {
                    let mut copied = tensor.to(AllocationDevice::CPU, 0)?;
                    close_gaps(&mut copied, &kept, sizes, self.capacity)?;
                    *tensor = copied.to(AllocationDevice::CUDA, device)?;
                }
            }
        }
        Ok(())
    }

    /// Gives it room for more tokens. `device` is the GPU that it lies on.
    pub(super) fn grow(&mut self, sizes: &DecoderSizes, capacity: usize, device: Option<i32>, reserved: Reserved) -> ort::Result<()> {
        let grown = self.tensors.iter().enumerate().map(|(index, tensor)| {
            let rows = self.rows(tensor, sizes, self.length(), device)?;
            place(&rows, sizes, self.sliding[index / 2], self.length(), capacity, device)
        });
        // Nothing is changed before all of it is there.
        self.tensors = grown.collect::<ort::Result<_>>()?;
        self.capacity = capacity;
        self.reserved.push(reserved);
        Ok(())
    }

    /// Keys and values of the first `length` tokens, `[kv_heads, length, head_dim]` for each layer's keys, then its values.
    pub(super) fn read(&self, sizes: &DecoderSizes, length: usize, device: Option<i32>) -> ort::Result<Vec<Vec<f32>>> {
        self.tensors.iter().map(|tensor| self.rows(tensor, sizes, length.min(self.length()), device)).collect()
    }

    fn rows(&self, tensor: &DynTensor, sizes: &DecoderSizes, length: usize, device: Option<i32>) -> ort::Result<Vec<f32>> {
        let copied = device.map(|_| tensor.to(AllocationDevice::CPU, 0)).transpose()?;
        let tensor = copied.as_ref().unwrap_or(tensor);
        let (used, whole) = (length * sizes.head_dim, self.capacity * sizes.head_dim);
        Ok(if is_bf16(sizes) {
            let heads = tensor.try_extract_tensor::<bf16>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            heads.flat_map(|head| &head[..used]).map(|value| value.to_f32()).collect()
        } else {
            let heads = tensor.try_extract_tensor::<f32>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            heads.flat_map(|head| &head[..used]).copied().collect()
        })
    }

    /// Fills an empty cache with what [`Cache::read`] gave; the rows must be of `length` tokens, which fit.
    pub(super) fn fill(&mut self, rows: &[Vec<f32>], sizes: &DecoderSizes, length: usize, device: Option<i32>) -> ort::Result<()> {
        let filled = rows.iter().enumerate();
        let filled = filled.map(|(index, rows)| place(rows, sizes, self.sliding[index / 2], length, self.capacity, device));
        self.tensors = filled.collect::<ort::Result<_>>()?;
        self.slots = Slots::default();
        self.slots.extend(&Slot::run(Branch::TRUNK, 0, length).collect::<Vec<_>>());
        Ok(())
    }

    /// Binds it as past and present. Of layers that slide, the first `start` places are left out.
    pub(super) fn bind(&mut self, binding: &mut IoBinding, start: usize) -> ort::Result<()> {
        let layers = self.tensors.len() / 2;
        let names = names("past_key_values", layers).zip(names("present", layers));
        for (index, ((past, present), tensor)) in names.zip(&mut self.tensors).enumerate() {
            if self.sliding[index / 2] {
                let mut rest = rows_from(tensor, start)?;
                binding.bind_input(past, &rest)?;
                binding.bind_output(present, &mut rest)?;
            } else {
                binding.bind_input(past, tensor)?;
                binding.bind_output(present, tensor)?;
            }
        }
        Ok(())
    }
}

/// Moves the rows of these places to the front of each head, on the CPU.
fn close_gaps(tensor: &mut DynTensor, kept: &[usize], sizes: &DecoderSizes, capacity: usize) -> ort::Result<()> {
    if is_bf16(sizes) {
        move_rows(tensor.try_extract_tensor_mut::<bf16>()?.1, kept, sizes, capacity);
    } else {
        move_rows(tensor.try_extract_tensor_mut::<f32>()?.1, kept, sizes, capacity);
    }
    Ok(())
}

fn move_rows<T: Copy>(values: &mut [T], kept: &[usize], sizes: &DecoderSizes, capacity: usize) {
    let width = sizes.head_dim;
    for head in values.chunks_exact_mut(capacity * width).take(sizes.kv_heads) {
        for (to, &from) in kept.iter().enumerate().filter(|&(to, &from)| to != from) {
            head.copy_within(from * width..(from + 1) * width, to * width);
        }
    }
}

/// A tensor as [`Cache`] holds it, whose heads begin with these rows.
fn place(rows: &[f32], sizes: &DecoderSizes, slides: bool, length: usize, capacity: usize, device: Option<i32>) -> ort::Result<DynTensor> {
    let shape = [1, sizes.kv_heads + usize::from(slides), capacity, sizes.head_dim];
    let tensor =
        if is_bf16(sizes) { typed(rows, shape, length, bf16::from_f32)? } else { typed::<f32>(rows, shape, length, |value| value)? };
    match device {
        None => Ok(tensor),
        Some(device) => tensor.to(AllocationDevice::CUDA, device),
    }
}

fn typed<T: PrimitiveTensorElementType + Debug>(
    rows: &[f32],
    shape: [usize; 4],
    length: usize,
    value: impl Fn(f32) -> T,
) -> ort::Result<DynTensor> {
    let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
    let [_, _, capacity, width] = shape;
    for (head, rows) in tensor.extract_tensor_mut().1.chunks_exact_mut(capacity * width).zip(rows.chunks_exact((length * width).max(1))) {
        head.iter_mut().zip(rows).for_each(|(place, &row)| *place = value(row));
    }
    Ok(tensor.upcast())
}

/// Names of all layers' keys and values, layer by layer.
pub(super) fn names(what: &str, layers: usize) -> impl Iterator<Item = String> {
    (0..layers).flat_map(move |layer| [format!("{what}.{layer}.key"), format!("{what}.{layer}.value")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_comes_back() {
        let budget = Budget::new(Some(100));
        let first = budget.reserve(60).unwrap();
        let error = budget.reserve(41).unwrap_err();
        assert!(matches!(error, DecoderError::Memory { needed: 41, used: 60, limit: 100 }), "{error}");
        let second = budget.reserve(40).unwrap();
        drop(first);
        assert!(budget.reserve(61).is_err() && budget.reserve(60).is_ok());
        drop(second);
        assert!(budget.reserve(100).is_ok());
        assert!(Budget::new(None).reserve(u64::MAX).is_ok());
    }
}
