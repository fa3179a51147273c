//! The KV cache of a study: keys and values of the tokens that were computed already.
//!
//! A layer without a sliding window holds all tokens. A layer with one holds the tokens that later tokens can still see. The memory that
//! both take is counted by one function, [`Layout::shape`], which also allocates it: what is reserved is what is allocated.

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

/// Longest run in tokens. A longer text is computed in several, of which each looks back only on what is there: at once, the first
/// tokens' scores with the last ones would be computed too, and thrown away. On the CPU shorter ones cost no time and less memory.
pub(super) const LONGEST_RUN: usize = 128;

/// The precision of a decoder whose cache is not of fp32.
pub(super) const BF16: &str = "bf16";

/// Whether keys and values are of bf16, as the decoder's computations; of fp32 otherwise.
fn is_bf16(sizes: &DecoderSizes) -> bool {
    sizes.precision == BF16
}

/// The places of a cache that a layer's tensors hold: `capacity` of them, beginning with `from`.
#[derive(Clone, Copy, Debug)]
struct Part {
    from: usize,
    capacity: usize,
}

/// Caches grow by a multiple of this many tokens.
const GROWTH: usize = 128;

/// How a decoder's caches are laid out.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    sizes: DecoderSizes,
    /// Which layers' graphs may be given the cache from any place on. Such a layer holds what its window reaches and no more.
    sliding: Arc<[bool]>,
    /// The GPU that it lies on.
    device: Option<i32>,
}

impl Layout {
    pub fn new(sizes: &DecoderSizes, sliding: Arc<[bool]>, device: Option<i32>) -> Self {
        Self { sizes: sizes.clone(), sliding, device }
    }

    /// The GPU that caches lie on.
    pub fn device(&self) -> Option<i32> {
        self.device
    }

    /// Tokens that a layer that slides sees, itself included.
    fn window(&self) -> usize {
        self.sizes.sliding_window.unwrap_or(usize::MAX)
    }

    /// The window of layers that slide, if any do.
    pub fn slides(&self) -> Option<usize> {
        self.sizes.sliding_window.filter(|_| self.sliding.contains(&true))
    }

    /// The first place that a layer with a window needs in order to go on behind `length` tokens.
    fn needed_from(&self, length: usize) -> usize {
        (length + 1).saturating_sub(self.window())
    }

    /// How many tokens a cache for `tokens` tokens has room for.
    pub fn capacity(&self, tokens: usize) -> usize {
        tokens.checked_next_multiple_of(GROWTH).unwrap_or(usize::MAX).min(self.sizes.max_context)
    }

    /// How many places a layer holds of a cache with room for `capacity` tokens, which is never rewound into its first `floor` tokens. A
    /// layer with a window holds what the tokens behind the floor see, and has room for the longest run.
    fn places(&self, slides: bool, capacity: usize, floor: usize) -> usize {
        if !slides {
            return capacity;
        }
        (capacity - self.needed_from(floor).min(capacity)).max(self.window().saturating_add(LONGEST_RUN)).min(capacity)
    }

    /// Bytes that a cache takes, as [`Cache::new`] allocates it.
    pub fn bytes(&self, capacity: usize, floor: usize) -> u64 {
        let layer = |&slides: &bool| 2 * self.tensor_bytes(slides, self.places(slides, capacity, floor));
        self.sliding.iter().map(layer).fold(0, u64::saturating_add)
    }

    /// Bytes that a cache for `tokens` tokens takes at most, all but the last `turn` of which are computed once. The price never falls
    /// with the number of tokens: it reckons with the smallest floor of all numbers that are rounded up to the same capacity.
    pub fn price(&self, tokens: usize, turn: usize) -> u64 {
        let capacity = self.capacity(tokens);
        self.bytes(capacity, capacity.saturating_sub(turn + GROWTH - 1))
    }

    /// Bytes of a layer's keys, or of its values.
    fn tensor_bytes(&self, slides: bool, places: usize) -> u64 {
        let value = if is_bf16(&self.sizes) { size_of::<bf16>() } else { size_of::<f32>() };
        self.shape(slides, places).iter().fold(value as u64, |bytes, &side| bytes.saturating_mul(side as u64))
    }

    /// Shape of a layer's keys, or of its values. Where the layer has a window, its heads lie in one row of places, with more places
    /// behind the last head: a run is given the tensor from a later place on, and must not reach behind its end. No run begins so late
    /// that less than a window is left.
    fn shape(&self, slides: bool, capacity: usize) -> [usize; 4] {
        let DecoderSizes { kv_heads, head_dim, .. } = self.sizes;
        if slides { [1, 1, kv_heads * capacity + self.latest(capacity), head_dim] } else { [1, kv_heads, capacity, head_dim] }
    }

    /// The latest place from which a layer with a window is given its tensor of `capacity` places.
    fn latest(&self, capacity: usize) -> usize {
        capacity.saturating_sub(self.window())
    }
}

/// A layer's keys or values, see [`Layout::shape`], of the type that the decoder computes in.
struct Held {
    tensor: DynTensor,
    /// Places of each head.
    capacity: usize,
}

/// The cache of one study. Past and present are the same buffers: a token's keys and values are written once and stay.
pub struct Cache {
    layout: Layout,
    /// Keys and values of each layer.
    held: Vec<Held>,
    /// The places that layers without a window hold.
    whole: Part,
    /// The places that layers with a window hold.
    sliding: Part,
    /// How many tokens were computed once for all that follow. A rewind into them forgets them all.
    floor: usize,
    slots: Slots,
    /// The memory of `held`, taken from the engine's budget.
    reserved: Reserved,
}

impl Cache {
    /// An empty cache for `capacity` tokens, over memory that was reserved ([`Layout::bytes`]).
    ///
    /// # Errors
    /// If the memory cannot be had; the reservation is given back.
    pub(super) fn new(allocator: &Allocator, layout: &Layout, capacity: usize, floor: usize, reserved: Reserved) -> ort::Result<Self> {
        let part = |slides| Part { from: 0, capacity: layout.places(slides, capacity, floor) };
        let element = if is_bf16(&layout.sizes) { TensorElementType::Bfloat16 } else { TensorElementType::Float32 };
        let held = |index: usize| {
            let slides = layout.sliding[index / 2];
            let Part { capacity, .. } = part(slides);
            Ok(Held { tensor: DynTensor::new(allocator, element, layout.shape(slides, capacity))?, capacity })
        };
        let held = (0..2 * layout.sizes.layers).map(held).collect::<ort::Result<_>>()?;
        let (whole, sliding) = (part(false), part(true));
        Ok(Self { layout: layout.clone(), held, whole, sliding, floor, slots: Slots::default(), reserved })
    }

    /// Bytes that its tensors take.
    fn allocated(&self) -> u64 {
        let bytes = |(index, held): (usize, &Held)| self.layout.tensor_bytes(self.layout.sliding[index / 2], held.capacity);
        self.held.iter().enumerate().map(bytes).fold(0, u64::saturating_add)
    }

    /// Bytes that have to be reserved for [`Cache::grow`].
    pub(super) fn missing(&self, capacity: usize) -> u64 {
        self.layout.bytes(capacity, self.floor).saturating_sub(self.reserved.bytes())
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
        self.whole.capacity
    }

    /// Forgets what stands from the place `length` on; and all of it, where what would go on from there is no longer held.
    pub fn rewind(&mut self, length: usize) {
        let held = self.sliding.from <= self.layout.needed_from(length);
        self.slots.truncate(if held { length } else { 0 });
        if self.slots().is_empty() {
            self.sliding.from = 0;
        }
    }

    /// Forgets a branch's tokens from a position on.
    pub fn forget(&mut self, branch: Branch, position: usize) {
        self.slots.forget(branch, position);
    }

    pub(super) fn advance(&mut self, slots: &[Slot]) {
        self.slots.extend(slots);
    }

    /// Makes room for the last `count` tokens, which are about to be computed and see nothing before the place `start` in layers that
    /// slide: these let go of what nobody will see again.
    pub(super) fn slide(&mut self, count: usize, start: usize) -> ort::Result<()> {
        if self.length() - self.sliding.from <= self.sliding.capacity {
            return Ok(());
        }
        let from = start.min(self.layout.needed_from(self.floor));
        let kept: Vec<usize> = (from..self.length() - count).map(|place| place - self.sliding.from).collect();
        for index in 0..self.held.len() {
            if self.layout.sliding[index / 2] {
                self.move_rows(index, &kept)?;
            }
        }
        self.sliding.from = from;
        Ok(())
    }

    /// Closes the gaps that forgotten tokens left.
    pub(super) fn compact(&mut self) -> ort::Result<()> {
        let Some(kept) = self.slots.compact() else { return Ok(()) };
        for index in 0..self.held.len() {
            // All that a layer has let go of was before the gaps.
            let from = self.part(index).from;
            let kept: Vec<usize> = kept.iter().filter(|&&place| place >= from).map(|place| place - from).collect();
            self.move_rows(index, &kept)?;
        }
        Ok(())
    }

    /// Gives the cache room for `capacity` tokens, over memory that was reserved for it ([`Cache::missing`]). The old and the new tensors
    /// of one layer at a time are held together.
    ///
    /// # Errors
    /// If the memory of a layer cannot be had. The cache is then as usable as before, and holds and has reserved as much as before, unless
    /// not even the smaller tensors of a layer that had grown can be had; such a layer stays larger, and its memory stays reserved.
    pub(super) fn grow(&mut self, capacity: usize, reserved: Reserved) -> ort::Result<()> {
        self.reserved.join(reserved);
        let old = [self.whole.capacity, self.sliding.capacity];
        let new = [capacity, self.layout.places(true, capacity, self.floor)];
        let layers = 0..self.layout.sizes.layers;
        let grown = layers.clone().try_for_each(|layer| self.resize(layer, new));
        if grown.is_ok() {
            [self.whole.capacity, self.sliding.capacity] = new;
        } else {
            layers.for_each(|layer| drop(self.resize(layer, old)));
        }
        self.reserved.shrink(self.allocated());
        grown
    }

    /// Gives a layer's keys and values the capacity of layers without a window, or with one.
    fn resize(&mut self, layer: usize, [whole, sliding]: [usize; 2]) -> ort::Result<()> {
        let slides = self.layout.sliding[layer];
        let capacity = if slides { sliding } else { whole };
        if self.held[2 * layer].capacity == capacity {
            return Ok(());
        }
        let from = self.part(2 * layer).from;
        let resized = |index| place(&self.layout, slides, &self.rows(index, from..self.length())?, 0, capacity);
        let (keys, values) = (resized(2 * layer)?, resized(2 * layer + 1)?);
        self.held[2 * layer] = keys;
        self.held[2 * layer + 1] = values;
        Ok(())
    }

    /// Which of the first `length` tokens a tensor has to hold so that the text can go on from there.
    pub(super) fn needed(&self, index: usize, length: usize) -> Range<usize> {
        let length = length.min(self.length());
        (if self.layout.sliding[index / 2] { self.layout.needed_from(length) } else { 0 })..length
    }

    /// Fills an empty cache tensor by tensor with what a text of `length` tokens, which fits, [needs](Cache::needed), or more of its
    /// last ones, as [`Cache::rows`] gives them.
    pub(super) fn fill(&mut self, length: usize, mut rows: impl FnMut(usize) -> crate::Result<Vec<f32>>) -> crate::Result<()> {
        let DecoderSizes { kv_heads, head_dim, .. } = self.layout.sizes;
        let (head, needed_from) = (kv_heads * head_dim, self.layout.needed_from(length));
        for index in 0..self.held.len() {
            let rows = rows(index)?;
            let (slides, count) = (self.layout.sliding[index / 2], rows.len() / head);
            // A layer that slides begins with the first place that it needs.
            let surplus = if slides { needed_from - (length - count) } else { 0 };
            let heads = rows.chunks_exact((count * head_dim).max(1)).flat_map(|head| &head[surplus * head_dim..]);
            let rows: Vec<f32> = heads.copied().collect();
            let (at, capacity) = (if slides { 0 } else { length - count }, self.part(index).capacity);
            self.held[index] = place(&self.layout, slides, &rows, at, capacity).map_err(failed)?;
        }
        self.sliding.from = needed_from;
        self.slots = Slots::default();
        self.slots.extend(&Slot::run(Branch::TRUNK, 0, length).collect::<Vec<_>>());
        Ok(())
    }

    /// Binds it as past and present. Of layers that slide, what is before the place `start` is left out.
    pub(super) fn bind(&mut self, binding: &mut Binding, start: usize) -> ort::Result<()> {
        let DecoderSizes { layers, kv_heads, .. } = self.layout.sizes;
        let names = names("past_key_values", layers).zip(names("present", layers));
        for (index, ((past, present), Held { tensor, capacity })) in names.zip(&mut self.held).enumerate() {
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

    /// What the tensor of this index holds.
    fn part(&self, index: usize) -> Part {
        if self.layout.sliding[index / 2] { self.sliding } else { self.whole }
    }

    /// Keys or values of these places, head by head: `[kv_heads, places, head_dim]`.
    pub(super) fn rows(&self, index: usize, places: Range<usize>) -> ort::Result<Vec<f32>> {
        let (Held { tensor, capacity }, part, sizes) = (&self.held[index], self.part(index), &self.layout.sizes);
        let copied = self.layout.device.map(|_| tensor.to(AllocationDevice::CPU, 0)).transpose()?;
        let tensor = copied.as_ref().unwrap_or(tensor);
        let used = (places.start - part.from) * sizes.head_dim..(places.end - part.from) * sizes.head_dim;
        let whole = capacity * sizes.head_dim;
        let mut rows = Vec::new();
        rows.try_reserve_exact(sizes.kv_heads * used.len()).map_err(|e| ort::Error::new(e.to_string()))?;
        if is_bf16(sizes) {
            let heads = tensor.try_extract_tensor::<bf16>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            rows.extend(heads.flat_map(|head| &head[used.clone()]).map(|value| value.to_f32()));
        } else {
            let heads = tensor.try_extract_tensor::<f32>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            rows.extend(heads.flat_map(|head| &head[used.clone()]));
        }
        Ok(rows)
    }

    /// Moves these rows of a tensor, in ascending order, to the front of each head.
    fn move_rows(&mut self, index: usize, kept: &[usize]) -> ort::Result<()> {
        let layout = &self.layout;
        let Held { tensor, capacity } = &mut self.held[index];
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

/// Keys or values as [`Cache`] holds them, whose heads have these rows from row `at` on, and zeros before.
fn place(layout: &Layout, slides: bool, rows: &[f32], at: usize, capacity: usize) -> ort::Result<Held> {
    let (shape, DecoderSizes { kv_heads, head_dim, .. }) = (layout.shape(slides, capacity), &layout.sizes);
    let heads = [rows.len() / (kv_heads * head_dim), capacity].map(|rows| rows * head_dim);
    let tensor = if is_bf16(&layout.sizes) {
        typed(rows, shape, heads, at * head_dim, bf16::from_f32)?
    } else {
        typed::<f32>(rows, shape, heads, at * head_dim, |value| value)?
    };
    let tensor = match layout.device {
        None => tensor,
        Some(device) => tensor.to(AllocationDevice::CUDA, device)?,
    };
    Ok(Held { tensor, capacity })
}

/// The same, where a head has so many values of `rows`, and so many in the tensor.
fn typed<T: PrimitiveTensorElementType + Debug>(
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

/// Names of all layers' keys and values, layer by layer.
pub(super) fn names(what: &str, layers: usize) -> impl Iterator<Item = String> {
    (0..layers).flat_map(move |layer| [format!("{what}.{layer}.key"), format!("{what}.{layer}.value")])
}

#[cfg(test)]
mod tests;
