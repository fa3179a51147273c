//! Keys and values of the tokens that were computed already.

use super::budget::Reserved;
use super::error::failed;
use super::slots::{Branch, Slot, Slots};
use crate::bundle::DecoderSizes;
use crate::runtime::rows_from;
use half::bf16;
use ort::memory::{AllocationDevice, Allocator};
use ort::session::IoBinding;
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

/// Places of a cache that a layer's tensors hold: so many from one on.
#[derive(Clone, Copy, Debug)]
struct Part {
    from: usize,
    capacity: usize,
}

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

    /// The first place that a layer that slides needs in order to go on behind `length` tokens.
    fn needed_from(&self, length: usize) -> usize {
        (length + 1).saturating_sub(self.window())
    }

    /// How many places a layer that slides holds, of a cache with so many that is never rewound into its first `floor`: room for
    /// the longest run, and for all that comes behind those.
    fn sliding_capacity(&self, capacity: usize, floor: usize) -> usize {
        (capacity - self.needed_from(floor).min(capacity)).max(self.window().saturating_add(LONGEST_RUN)).min(capacity)
    }

    /// Bytes that a cache takes.
    pub fn bytes(&self, capacity: usize, floor: usize) -> u64 {
        let value = if is_bf16(&self.sizes) { size_of::<bf16>() } else { size_of::<f32>() };
        let row = [2, self.sizes.kv_heads, self.sizes.head_dim, value].iter().fold(1u64, |bytes, &n| bytes.saturating_mul(n as u64));
        let sliding = self.sliding_capacity(capacity, floor);
        let rows = |&slides: &bool| if slides { sliding } else { capacity } as u64;
        self.sliding.iter().map(rows).fold(0, u64::saturating_add).saturating_mul(row)
    }

    /// Shape of a layer's keys or values. Where it slides, heads lie in one row of places, with some more behind the last: what is given
    /// from a later place on must not end behind the memory, and no run begins so late that less than a window is left.
    fn shape(&self, slides: bool, capacity: usize) -> [usize; 4] {
        let DecoderSizes { kv_heads, head_dim, .. } = self.sizes;
        if slides { [1, 1, kv_heads * capacity + self.latest(capacity), head_dim] } else { [1, kv_heads, capacity, head_dim] }
    }

    /// The latest place that a layer which slides is given from, of so many.
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
    /// What layers hold that see all.
    whole: Part,
    /// What layers hold that slide.
    sliding: Part,
    /// It is never rewound into its first so many tokens, but to its beginning.
    floor: usize,
    slots: Slots,
    /// Of its memory; several after it has grown.
    reserved: Vec<Reserved>,
}

impl Cache {
    pub(super) fn new(allocator: &Allocator, layout: &Layout, capacity: usize, floor: usize, reserved: Reserved) -> ort::Result<Self> {
        let whole = Part { from: 0, capacity };
        let sliding = Part { from: 0, capacity: layout.sliding_capacity(capacity, floor) };
        let element = if is_bf16(&layout.sizes) { TensorElementType::Bfloat16 } else { TensorElementType::Float32 };
        let held = |index: usize| {
            let slides = layout.sliding[index / 2];
            let capacity = if slides { sliding.capacity } else { capacity };
            Ok(Held { tensor: DynTensor::new(allocator, element, layout.shape(slides, capacity))?, capacity })
        };
        let held = (0..2 * layout.sizes.layers).map(held).collect::<ort::Result<_>>()?;
        Ok(Self { layout: layout.clone(), held, whole, sliding, floor, slots: Slots::default(), reserved: vec![reserved] })
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

    /// How many tokens were computed once for all that follow.
    pub(super) fn floor(&self) -> usize {
        self.floor
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

    /// Gives it room for more tokens. The old and the new of one layer at a time are held together; where one cannot be had, those
    /// before it have become larger than they need to be, and nothing is lost.
    pub(super) fn grow(&mut self, capacity: usize, reserved: Reserved) -> ort::Result<()> {
        let sliding = self.layout.sliding_capacity(capacity, self.floor);
        for layer in 0..self.layout.sizes.layers {
            let (slides, from) = (self.layout.sliding[layer], self.part(2 * layer).from);
            let grown = |index| {
                let rows = self.rows(index, from..self.length())?;
                place(&self.layout, slides, &rows, 0, if slides { sliding } else { capacity })
            };
            let (keys, values) = (grown(2 * layer)?, grown(2 * layer + 1)?);
            self.held[2 * layer] = keys;
            self.held[2 * layer + 1] = values;
        }
        self.whole.capacity = capacity;
        self.sliding.capacity = sliding;
        self.reserved.push(reserved);
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
    pub(super) fn bind(&mut self, binding: &mut IoBinding, start: usize) -> ort::Result<()> {
        let DecoderSizes { layers, kv_heads, .. } = self.layout.sizes;
        let names = names("past_key_values", layers).zip(names("present", layers));
        for (index, ((past, present), Held { tensor, capacity })) in names.zip(&mut self.held).enumerate() {
            if self.layout.sliding[index / 2] {
                let mut rest = rows_from(tensor, [kv_heads, *capacity], start - self.sliding.from)?;
                binding.bind_input(past, &rest)?;
                binding.bind_output(present, &mut rest)?;
            } else {
                binding.bind_input(past, tensor)?;
                binding.bind_output(present, tensor)?;
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
        Ok(if is_bf16(sizes) {
            let heads = tensor.try_extract_tensor::<bf16>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            heads.flat_map(|head| &head[used.clone()]).map(|value| value.to_f32()).collect()
        } else {
            let heads = tensor.try_extract_tensor::<f32>()?.1.chunks_exact(whole).take(sizes.kv_heads);
            heads.flat_map(|head| &head[used.clone()]).copied().collect()
        })
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
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use crate::runtime::{Options, Provider, Runtime};

    const WINDOW: usize = 4;

    /// Two layers, of which the first slides.
    fn layout() -> Layout {
        let sizes = DecoderSizes {
            layers: 2,
            kv_heads: 2,
            head_dim: 2,
            hidden: 1,
            vocabulary: 1,
            sliding_window: Some(WINDOW),
            max_context: 10_000,
            precision: "fp32".into(),
        };
        Layout::new(&sizes, [true, false].into(), None)
    }

    /// A cache for a text of 1,000 tokens and 24 more, with the text in it: places are told apart by their values.
    fn filled() -> Cache {
        Runtime::load(Options { provider: Provider::Cpu, ..Options::default() }).unwrap();
        let layout = layout();
        let reserved = Budget::new(None).reserve(layout.bytes(1024, 1000)).unwrap();
        let mut cache = Cache::new(&Allocator::default(), &layout, 1024, 1000, reserved).unwrap();
        let rows: Vec<f32> = (0..2).flat_map(|head| (0..2000).map(move |i| (head * 10_000 + i) as f32)).collect();
        cache.fill(1000, |_| Ok(rows.clone())).unwrap();
        cache
    }

    fn firsts(cache: &Cache, index: usize, places: Range<usize>) -> Vec<f32> {
        cache.rows(index, places).unwrap().chunks_exact(2).map(|row| row[0]).collect()
    }

    #[test]
    fn layers_that_slide_take_what_they_reach() {
        let layout = layout();
        assert_eq!(layout.sliding_capacity(1024, 1000), WINDOW + LONGEST_RUN);
        assert_eq!(layout.sliding_capacity(4000, 1000), 4000 - 997, "all that follows the text");
        assert_eq!(layout.sliding_capacity(100, 90), 100);
        assert_eq!(layout.bytes(1024, 1000), (1024 + (WINDOW + LONGEST_RUN) as u64) * 2 * 2 * 2 * 4);
        let whole = Layout { sliding: [false, false].into(), ..layout };
        assert_eq!(whole.bytes(1024, 1000), 2 * 1024 * 2 * 2 * 2 * 4);
    }

    #[test]
    fn what_is_needed_of_all_tokens_is_kept() {
        let cache = filled();
        // A token behind the text sees itself and three before.
        assert_eq!((cache.sliding.from, cache.whole.from), (997, 0));
        assert_eq!(firsts(&cache, 0, 997..1000), [1994.0, 1996.0, 1998.0, 11994.0, 11996.0, 11998.0]);
        assert_eq!(firsts(&cache, 3, 0..1000)[..2], [0.0, 2.0]);
        let read = |cache: &Cache| (0..4).map(|index| cache.rows(index, cache.needed(index, 1000)).unwrap()).collect::<Vec<_>>();
        let saved = read(&cache);
        assert_eq!(saved.iter().map(|rows| rows.len() / 4).collect::<Vec<_>>(), [3, 3, 1000, 1000]);
        let mut again = filled();
        again.fill(1000, |index| Ok(saved[index].clone())).unwrap();
        assert_eq!((read(&again), again.length()), (saved, 1000));
    }

    #[test]
    fn it_slides_grows_and_goes_back() {
        let mut cache = filled();
        let append = |cache: &mut Cache, count| {
            let from = cache.length();
            cache.advance(&Slot::run(Branch::TRUNK, from, count).collect::<Vec<_>>());
            cache.slide(count, from.saturating_sub(3)).unwrap();
        };
        append(&mut cache, 20);
        cache.rewind(1000);
        assert_eq!((cache.length(), cache.sliding.from), (1000, 997));
        let reserved = Budget::new(None).reserve(0).unwrap();
        cache.grow(2048, reserved).unwrap();
        assert_eq!((cache.capacity(), cache.sliding.capacity), (2048, 2048 - 997));
        assert_eq!(firsts(&cache, 1, 998..1000), [1996.0, 1998.0, 11996.0, 11998.0]);
        // However far it goes, it can return to the text's end.
        for _ in 0..4 {
            append(&mut cache, 250);
        }
        assert_eq!(cache.sliding.from, 997);
        cache.rewind(1000);
        assert_eq!(firsts(&cache, 0, 998..1000), [1996.0, 1998.0, 11996.0, 11998.0]);
        // Within the text there is no way back but to its beginning, from where it is computed run by run.
        let mut cache = filled();
        cache.rewind(500);
        assert_eq!((cache.length(), cache.sliding.from), (0, 0));
        [3, LONGEST_RUN, LONGEST_RUN, LONGEST_RUN].into_iter().for_each(|count| append(&mut cache, count));
        assert_eq!((cache.length(), cache.sliding.from), (3 * LONGEST_RUN + 3, 2 * LONGEST_RUN));
    }

    #[test]
    fn gaps_are_closed_in_all_layers() {
        let mut cache = filled();
        let [one, two] = [Branch::new(0), Branch::new(1)];
        cache.advance(&[Slot::run(one, 1000, 2), Slot::run(two, 1000, 1)].into_iter().flatten().collect::<Vec<_>>());
        cache.slide(3, 997).unwrap();
        for index in 0..4 {
            let part = cache.part(index);
            let values = cache.held[index].tensor.try_extract_tensor_mut::<f32>().unwrap().1;
            for place in 1000..1003 {
                values[(place - part.from) * 2] = place as f32;
            }
        }
        cache.forget(one, 1000);
        cache.compact().unwrap();
        assert_eq!(cache.length(), 1001);
        for index in 0..4 {
            assert_eq!(firsts(&cache, index, 999..1001)[..2], [1998.0, 1002.0]);
        }
    }
}
