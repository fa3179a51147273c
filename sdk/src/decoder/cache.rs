//! The KV cache of a study: keys and values of the tokens that were computed.
//!
//! A full layer holds all tokens. A sliding layer has a sliding window, and holds only tokens that later tokens can attend to.
//! [`Layout::shape`] both counts and allocates the memory of a layer, so that what is reserved is what is allocated.
//!
//! A place is the index of a token in the cache. The first places hold the context of the study. It is computed once, and a rewind into it
//! removes all of it, so a sliding layer holds only the end of the context.

use super::budget::Reserved;
use super::error::failed;
use super::slots::{Branch, Slot, Slots};
use crate::bundle::DecoderSizes;
use crate::runtime::{Binding, rows_from};
use half::bf16;
use ort::memory::{AllocationDevice, Allocator};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Largest number of tokens of a run on the CPU; a longer text is computed in several runs. In a single run, attention would compute the
/// scores of early tokens with later ones, too, which are masked. Shorter runs are no faster.
pub(super) const MAX_RUN: usize = 128;

/// The precision of a decoder whose KV cache is not in fp32.
pub(super) const BF16: &str = "bf16";

/// Whether keys and values are in bf16. Otherwise they are in fp32.
fn is_bf16(sizes: &DecoderSizes) -> bool {
    sizes.precision == BF16
}

/// Bytes of one value of the keys and values.
fn value_bytes(sizes: &DecoderSizes) -> u64 {
    if is_bf16(sizes) { size_of::<bf16>() as u64 } else { size_of::<f32>() as u64 }
}

/// The places that the tensors of a layer have room for: `capacity` places from `from` on.
#[derive(Clone, Copy, Debug)]
struct Part {
    from: usize,
    capacity: usize,
}

/// The capacity of a cache is a multiple of this number of tokens.
const GROWTH: usize = 128;

/// The memory layout of a decoder's KV caches.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    sizes: DecoderSizes,
    /// The layers whose cache holds only what the window reaches: the sliding layers, except on a GPU.
    sliding: Arc<[bool]>,
    /// The GPU that holds the caches; `None` for the CPU.
    device: Option<i32>,
}

impl Layout {
    pub fn new(sizes: &DecoderSizes, sliding: Arc<[bool]>, device: Option<i32>) -> Self {
        Self { sizes: sizes.clone(), sliding, device }
    }

    /// The GPU that holds the caches; `None` for the CPU.
    pub fn device(&self) -> Option<i32> {
        self.device
    }

    /// Length of the sliding window in tokens. It includes the token itself.
    fn window(&self) -> usize {
        self.sizes.sliding_window.unwrap_or(usize::MAX)
    }

    /// Length of the sliding window; `None` if there are no sliding layers.
    pub fn sliding_window(&self) -> Option<usize> {
        self.sizes.sliding_window.filter(|_| self.sliding.contains(&true))
    }

    /// The first place that a sliding layer needs to compute the token after `length` tokens.
    fn first_needed(&self, length: usize) -> usize {
        (length + 1).saturating_sub(self.window())
    }

    /// The capacity of a cache for `tokens` tokens.
    pub fn capacity(&self, tokens: usize) -> usize {
        tokens.checked_next_multiple_of(GROWTH).unwrap_or(usize::MAX).min(self.sizes.max_context)
    }

    /// Number of places that a layer has room for, in a cache for `capacity` tokens after a context of `context` tokens. A sliding layer
    /// has room for all places that a token after the context attends to, and for the longest run.
    fn places(&self, slides: bool, capacity: usize, context: usize) -> usize {
        if !slides {
            return capacity;
        }
        (capacity - self.first_needed(context).min(capacity)).max(self.window().saturating_add(MAX_RUN)).min(capacity)
    }

    /// Bytes that [`Cache::new`] allocates.
    pub fn bytes(&self, capacity: usize, context: usize) -> u64 {
        let layer = |&slides: &bool| 2 * self.tensor_bytes(slides, self.places(slides, capacity, context));
        self.sliding.iter().map(layer).fold(0, u64::saturating_add)
    }

    /// Bytes of the keys of a layer, or of its values.
    fn tensor_bytes(&self, slides: bool, places: usize) -> u64 {
        self.shape(slides, places).iter().fold(value_bytes(&self.sizes), |bytes, &side| bytes.saturating_mul(side as u64))
    }

    /// Shape of the keys of a layer, or of its values. The heads of a sliding layer lie one after the other in one row of places. A run
    /// binds a view of that row that begins at a later place. Spare places after the last head keep the view inside the tensor; there are
    /// as many as the latest first place of a view.
    fn shape(&self, slides: bool, capacity: usize) -> [usize; 4] {
        let DecoderSizes { kv_heads, head_dim, .. } = self.sizes;
        if slides { [1, 1, kv_heads * capacity + self.latest_start(capacity), head_dim] } else { [1, kv_heads, capacity, head_dim] }
    }

    /// The latest first place of a view of a sliding layer with `capacity` places.
    fn latest_start(&self, capacity: usize) -> usize {
        capacity.saturating_sub(self.window())
    }
}

/// The keys of a layer, or its values; see [`Layout::shape`].
struct LayerTensor {
    tensor: DynTensor,
    /// Number of places of each head.
    capacity: usize,
}

/// The KV cache of one study. Its tensors are bound as past and as present of the decoder, so that keys and values are written once.
pub struct Cache {
    layout: Layout,
    /// Keys and values of each layer, in turn.
    tensors: Vec<LayerTensor>,
    /// The places of full layers.
    full: Part,
    /// The places of sliding layers.
    sliding: Part,
    /// Number of tokens of the context.
    context: usize,
    slots: Slots,
    /// The memory of `tensors`, reserved in the engine's budget.
    reserved: Reserved,
}

impl Cache {
    /// An empty cache for `capacity` tokens. Its memory ([`Layout::bytes`]) is reserved already.
    ///
    /// # Errors
    /// If allocation fails. The reservation is released.
    pub(super) fn new(allocator: &Allocator, layout: &Layout, capacity: usize, context: usize, reserved: Reserved) -> ort::Result<Self> {
        let part = |slides| Part { from: 0, capacity: layout.places(slides, capacity, context) };
        let element = if is_bf16(&layout.sizes) { TensorElementType::Bfloat16 } else { TensorElementType::Float32 };
        let allocate = |index: usize| {
            let slides = layout.sliding[index / 2];
            let Part { capacity, .. } = part(slides);
            Ok(LayerTensor { tensor: DynTensor::new(allocator, element, layout.shape(slides, capacity))?, capacity })
        };
        let tensors = (0..2 * layout.sizes.layers).map(allocate).collect::<ort::Result<_>>()?;
        let (full, sliding) = (part(false), part(true));
        Ok(Self { layout: layout.clone(), tensors, full, sliding, context, slots: Slots::default(), reserved })
    }

    /// Bytes of all tensors, from their shapes.
    pub(super) fn allocated(&self) -> u64 {
        let bytes = |keys: &LayerTensor| (keys.tensor.shape().num_elements() as u64).saturating_mul(value_bytes(&self.layout.sizes));
        self.tensors.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Bytes that have to be reserved before [`Cache::grow`].
    pub(super) fn bytes_to_grow(&self, capacity: usize) -> u64 {
        self.layout.bytes(capacity, self.context).saturating_sub(self.reserved.bytes())
    }

    /// Number of places that are taken, by tokens and by gaps that removed tokens left.
    pub fn length(&self) -> usize {
        self.slots().len()
    }

    /// The slot of each place.
    pub fn slots(&self) -> &[Slot] {
        self.slots.as_slice()
    }

    /// Largest number of places.
    pub fn capacity(&self) -> usize {
        self.full.capacity
    }

    /// Removes all places from `length` on. If a sliding layer no longer holds what the next token attends to, all places are removed.
    pub fn rewind(&mut self, length: usize) {
        let is_held = self.sliding.from <= self.layout.first_needed(length);
        self.slots.truncate(if is_held { length } else { 0 });
        if self.slots().is_empty() {
            self.sliding.from = 0;
        }
    }

    /// Removes the tokens of a branch from a position on.
    pub fn remove(&mut self, branch: Branch, position: usize) {
        self.slots.remove(branch, position);
    }

    /// Appends places for tokens that are about to be computed.
    pub(super) fn advance(&mut self, slots: &[Slot]) {
        self.slots.extend(slots);
    }

    /// Makes room in sliding layers for the last `count` places, which are about to be computed and attend to no place before `start`. Keys
    /// and values that no later token attends to are dropped.
    pub(super) fn slide(&mut self, count: usize, start: usize) -> ort::Result<()> {
        if self.length() - self.sliding.from <= self.sliding.capacity {
            return Ok(());
        }
        let from = start.min(self.layout.first_needed(self.context));
        let kept: Vec<usize> = (from..self.length() - count).map(|place| place - self.sliding.from).collect();
        for index in 0..self.tensors.len() {
            if self.layout.sliding[index / 2] {
                self.move_rows(index, &kept)?;
            }
        }
        self.sliding.from = from;
        Ok(())
    }

    /// Closes the gaps that removed tokens left.
    pub(super) fn compact(&mut self) -> ort::Result<()> {
        let Some(kept) = self.slots.compact() else { return Ok(()) };
        for index in 0..self.tensors.len() {
            // Places that a sliding layer has dropped are before all gaps.
            let from = self.part(index).from;
            let kept: Vec<usize> = kept.iter().filter(|&&place| place >= from).map(|place| place - from).collect();
            self.move_rows(index, &kept)?;
        }
        Ok(())
    }

    /// Enlarges the cache to `capacity` tokens. The memory that this adds ([`Cache::bytes_to_grow`]) is reserved already. For one layer at
    /// a time, the old and the new tensors are held together.
    ///
    /// # Errors
    /// If allocation fails. The cache can still be used, and layers that have grown shrink again. If the allocation of the smaller tensors
    /// fails, too, the layer stays larger, and its memory stays reserved.
    pub(super) fn grow(&mut self, capacity: usize, reserved: Reserved) -> ort::Result<()> {
        self.reserved.join(reserved);
        let old = [self.full.capacity, self.sliding.capacity];
        let new = [capacity, self.layout.places(true, capacity, self.context)];
        let layers = 0..self.layout.sizes.layers;
        let grown = layers.clone().try_for_each(|layer| self.resize(layer, new));
        if grown.is_ok() {
            [self.full.capacity, self.sliding.capacity] = new;
        } else {
            layers.for_each(|layer| drop(self.resize(layer, old)));
        }
        self.reserved.shrink(self.allocated());
        grown
    }

    /// Changes the capacity of a layer's keys and values: to `full` for a full layer, to `sliding` for a sliding one.
    fn resize(&mut self, layer: usize, [full, sliding]: [usize; 2]) -> ort::Result<()> {
        let slides = self.layout.sliding[layer];
        let capacity = if slides { sliding } else { full };
        if self.tensors[2 * layer].capacity == capacity {
            return Ok(());
        }
        let from = self.part(2 * layer).from;
        let resized = |index| filled(&self.layout, slides, &self.rows(index, from..self.length())?, 0, capacity);
        let (keys, values) = (resized(2 * layer)?, resized(2 * layer + 1)?);
        self.tensors[2 * layer] = keys;
        self.tensors[2 * layer + 1] = values;
        Ok(())
    }

    /// The places that a tensor must hold to compute the token after the first `length`.
    pub(super) fn needed(&self, index: usize, length: usize) -> Range<usize> {
        let length = length.min(self.length());
        (if self.layout.sliding[index / 2] { self.layout.first_needed(length) } else { 0 })..length
    }

    /// Fills an empty cache, tensor by tensor, with a text of `length` tokens that fits. `rows` returns keys or values of the last tokens
    /// of the text, as [`Cache::rows`] does: at least those that are [needed](Cache::needed).
    pub(super) fn fill(&mut self, length: usize, mut rows: impl FnMut(usize) -> crate::Result<Vec<f32>>) -> crate::Result<()> {
        let DecoderSizes { kv_heads, head_dim, .. } = self.layout.sizes;
        let (head, first_needed) = (kv_heads * head_dim, self.layout.first_needed(length));
        for index in 0..self.tensors.len() {
            let rows = rows(index)?;
            let (slides, count) = (self.layout.sliding[index / 2], rows.len() / head);
            // A sliding layer holds places from the first needed one on.
            let surplus = if slides { first_needed - (length - count) } else { 0 };
            let heads = rows.chunks_exact((count * head_dim).max(1)).flat_map(|head| &head[surplus * head_dim..]);
            let rows: Vec<f32> = heads.copied().collect();
            let (at, capacity) = (if slides { 0 } else { length - count }, self.part(index).capacity);
            self.tensors[index] = filled(&self.layout, slides, &rows, at, capacity).map_err(failed)?;
        }
        self.sliding.from = first_needed;
        self.slots = Slots::default();
        self.slots.extend(&Slot::consecutive(Branch::TRUNK, 0, length).collect::<Vec<_>>());
        Ok(())
    }

    /// Binds the tensors as past and present of the decoder: those of sliding layers from the place `start` on.
    pub(super) fn bind(&mut self, binding: &mut Binding, start: usize) -> ort::Result<()> {
        let DecoderSizes { layers, kv_heads, .. } = self.layout.sizes;
        let names = names("past_key_values", layers).zip(names("present", layers));
        for (index, ((past, present), LayerTensor { tensor, capacity })) in names.zip(&mut self.tensors).enumerate() {
            if self.layout.sliding[index / 2] {
                let mut rest = rows_from(tensor, [kv_heads, *capacity], start - self.sliding.from)?;
                binding.input(past, &rest)?;
                binding.output(present, &mut rest)?;
            } else {
                binding.input(past, tensor)?;
                binding.output(present, tensor)?;
            }
        }
        Ok(())
    }

    /// The places of the tensor with this index.
    fn part(&self, index: usize) -> Part {
        if self.layout.sliding[index / 2] { self.sliding } else { self.full }
    }

    /// Keys or values of these places, head by head: `[kv_heads, places, head_dim]`.
    pub(super) fn rows(&self, index: usize, places: Range<usize>) -> ort::Result<Vec<f32>> {
        let (LayerTensor { tensor, capacity }, part, sizes) = (&self.tensors[index], self.part(index), &self.layout.sizes);
        let copied = self.layout.device.map(|_| tensor.to(AllocationDevice::CPU, 0)).transpose()?;
        let tensor = copied.as_ref().unwrap_or(tensor);
        let used = (places.start - part.from) * sizes.head_dim..(places.end - part.from) * sizes.head_dim;
        let head = capacity * sizes.head_dim;
        let mut rows = Vec::new();
        rows.try_reserve_exact(sizes.kv_heads * used.len()).map_err(|e| ort::Error::new(e.to_string()))?;
        if is_bf16(sizes) {
            let heads = tensor.try_extract_tensor::<bf16>()?.1.chunks_exact(head).take(sizes.kv_heads);
            rows.extend(heads.flat_map(|head| &head[used.clone()]).map(|value| value.to_f32()));
        } else {
            let heads = tensor.try_extract_tensor::<f32>()?.1.chunks_exact(head).take(sizes.kv_heads);
            rows.extend(heads.flat_map(|head| &head[used.clone()]));
        }
        Ok(rows)
    }

    /// Moves these rows of each head, given in ascending order, to its front.
    fn move_rows(&mut self, index: usize, kept: &[usize]) -> ort::Result<()> {
        let layout = &self.layout;
        let LayerTensor { tensor, capacity } = &mut self.tensors[index];
        match layout.device {
            None => move_rows(tensor, kept, &layout.sizes, *capacity),
            Some(device) => {
                let mut copied = tensor.to(AllocationDevice::CPU, 0)?;
                move_rows(&mut copied, kept, &layout.sizes, *capacity)?;
                *tensor = copied.to(AllocationDevice::CUDA, device)?;
                Ok(())
            }
        }
    }
}

/// [`Cache::move_rows`] on the CPU.
fn move_rows(tensor: &mut DynTensor, kept: &[usize], sizes: &DecoderSizes, capacity: usize) -> ort::Result<()> {
    fn within<T: Copy>(values: &mut [T], kept: &[usize], sizes: &DecoderSizes, capacity: usize) {
        let width = sizes.head_dim;
        for head in values.chunks_exact_mut(capacity * width).take(sizes.kv_heads) {
            for (to, &from) in kept.iter().enumerate().filter(|&(to, &from)| to != from) {
                head.copy_within(from * width..(from + 1) * width, to * width);
            }
        }
    }
    if is_bf16(sizes) {
        within(tensor.try_extract_tensor_mut::<bf16>()?.1, kept, sizes, capacity);
    } else {
        within(tensor.try_extract_tensor_mut::<f32>()?.1, kept, sizes, capacity);
    }
    Ok(())
}

/// A tensor whose heads hold `rows` from row `at` on, and zeros before.
fn filled(layout: &Layout, slides: bool, rows: &[f32], at: usize, capacity: usize) -> ort::Result<LayerTensor> {
    let (shape, DecoderSizes { kv_heads, head_dim, .. }) = (layout.shape(slides, capacity), &layout.sizes);
    let heads = [rows.len() / (kv_heads * head_dim), capacity].map(|rows| rows * head_dim);
    let tensor = if is_bf16(&layout.sizes) {
        filled_with(rows, shape, heads, at * head_dim, bf16::from_f32)?
    } else {
        filled_with::<f32>(rows, shape, heads, at * head_dim, |value| value)?
    };
    let tensor = match layout.device {
        None => tensor,
        Some(device) => tensor.to(AllocationDevice::CUDA, device)?,
    };
    Ok(LayerTensor { tensor, capacity })
}

/// [`filled`] on the CPU for one type of values. A head has `given` values in `rows` and `held` values in the tensor.
fn filled_with<T: PrimitiveTensorElementType + Debug>(
    rows: &[f32],
    shape: [usize; 4],
    [given, held]: [usize; 2],
    at: usize,
    value: impl Fn(f32) -> T,
) -> ort::Result<DynTensor> {
    let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
    for (head, rows) in tensor.extract_tensor_mut().1.chunks_exact_mut(held).zip(rows.chunks_exact(given.max(1))) {
        let (before, places) = head.split_at_mut(at);
        before.iter_mut().for_each(|place| *place = value(0.0));
        places.iter_mut().zip(rows).for_each(|(place, &row)| *place = value(row));
    }
    Ok(tensor.upcast())
}

/// Names of the keys and values of all layers, in the order of [`Cache`].
pub(super) fn names(what: &str, layers: usize) -> impl Iterator<Item = String> {
    (0..layers).flat_map(move |layer| [format!("{what}.{layer}.key"), format!("{what}.{layer}.value")])
}

#[cfg(test)]
mod tests;
