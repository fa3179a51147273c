//! The decoder of the language model, which computes tokens over the KV cache of a study (paper, section 3.2).

mod budget;
mod cache;
mod error;
mod grammar;
mod look_up;
mod readable;
mod sampling;
mod slots;
mod speculation;
mod stop_texts;

use budget::Budget;
pub use cache::Cache;
use cache::{Layout, MAX_RUN};
pub use error::{DecoderError, MemoryError, QuestionError};
use error::{failed, unallocated};
pub use grammar::Form;
pub(crate) use grammar::{Grammar, Matcher};
pub(crate) use look_up::LookUp;
pub use readable::Readable;
pub use sampling::Sampling;
pub(crate) use sampling::{Choice, Sampler};
pub(crate) use slots::{Branch, Slot};
pub(crate) use speculation::{AnswerAcceptance, Candidate, Plan, Progress, RunCosts, Speculation};
pub(crate) use stop_texts::StopTexts;

use crate::anatomy::STRUCTURE_COUNT;
use crate::bundle::{
    ApmSizes, Bundle, DECODER, DecoderSizes, FULL_ATTENTION_BIAS, MANIFEST, PROJECTOR, SLIDING_ATTENTION_BIAS, SLIDING_PLACES,
};
use crate::cause::source;
use crate::perception::Perception;
use crate::runtime::{Graph, Provider, Runtime, RuntimeError};
use ort::memory::Allocator;
use ort::value::{Tensor, TensorRef};
use std::sync::Arc;

/// The projectors and the decoder, loaded on an execution provider.
pub struct Decoder {
    graph: Graph,
    projector: Graph,
    sizes: DecoderSizes,
    apm: ApmSizes,
    /// Number of rows of visual features that an image has.
    image_features: usize,
    /// Names of the attention biases, with the window of the layers that take them.
    biases: Vec<(&'static str, Option<usize>)>,
    /// Which layers are sliding layers, which have a sliding window. On a GPU their caches hold all tokens, as those of full layers do.
    sliding: Arc<[bool]>,
    layout: Layout,
    budget: Arc<Budget>,
}

/// Largest number of tokens of a run on a GPU; see [`MAX_RUN`] for the CPU.
const MAX_RUN_GPU: usize = 512;

/// What a run of the decoder computes: tokens with their slots.
#[derive(Clone, Copy, Debug)]
pub struct RunInput<'a> {
    /// Token ids.
    pub ids: &'a [i64],
    /// For each token, the row of the visual features that replaces its embedding, or -1. May be empty if there are only text tokens.
    pub visual_index: &'a [i64],
    /// For each token, its branch and position.
    pub slots: &'a [Slot],
    /// Indices of the tokens whose logits are returned, in ascending order.
    pub logit_positions: &'a [usize],
}

impl Decoder {
    /// Loads `projector.onnx` and `decoder.onnx`. All KV caches together take at most `memory` bytes; `None` means no limit. `loaded` is
    /// called after each graph.
    ///
    /// # Errors
    /// If a graph cannot be loaded or lacks an input or output, or the provider does not support the decoder's precision; and what `loaded`
    /// returned.
    pub fn load(runtime: &Runtime, bundle: &Bundle, memory: Option<u64>, loaded: impl Fn() -> crate::Result<()>) -> crate::Result<Self> {
        let precision = &bundle.manifest().decoder.precision;
        if precision == cache::BF16 && runtime.provider() == Provider::Cpu {
            return Err(RuntimeError::Precision { graph: DECODER.into(), precision: precision.clone(), provider: Provider::Cpu }.into());
        }
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_string()).collect::<Vec<_>>();
        let projector = runtime.graph(&bundle.file(PROJECTOR))?;
        projector.check_names(&names(&["image_tokens", "object_embeddings"]), &names(&["visual_features"]))?;
        loaded()?;
        let graph = runtime.concurrent_graph(&bundle.file(DECODER))?;
        let sizes = bundle.manifest().decoder.clone();
        let mut inputs = names(&["input_ids", "visual_features", "visual_index", "seqlens_k", "total_sequence_length", "logit_positions"]);
        let mut outputs = names(&["logits"]);
        inputs.push("position_ids".into());
        inputs.extend(sizes.sliding_window.map(|_| SLIDING_ATTENTION_BIAS.into()));
        inputs.extend(cache::names("past_key_values", sizes.layers));
        outputs.extend(cache::names("present", sizes.layers));
        graph.check_names(&inputs, &outputs)?;
        projector.check_sizes(&[("visual_features", 2, "decoder.hidden", sizes.hidden)])?;
        graph.check_sizes(&[
            ("visual_features", 1, "decoder.hidden", sizes.hidden),
            ("logits", 2, "decoder.vocabulary", sizes.vocabulary),
        ])?;
        for name in cache::names("past_key_values", sizes.layers) {
            graph.check_sizes(&[(&name, 1, "decoder.kv_heads", sizes.kv_heads), (&name, 3, "decoder.head_dim", sizes.head_dim)])?;
        }
        if sizes.sliding_window.is_none() && graph.has_input(SLIDING_ATTENTION_BIAS) {
            return Err(RuntimeError::Missing { graph: MANIFEST.into(), what: "size", name: "decoder.sliding_window".into() }.into());
        }
        loaded()?;
        let kinds = [(FULL_ATTENTION_BIAS, None), (SLIDING_ATTENTION_BIAS, sizes.sliding_window)];
        let biases = kinds.into_iter().filter(|(name, _)| graph.has_input(name)).collect();
        // The name of this dimension says that the graph accepts a view of the cache from a later place on.
        let slides = |layer| graph.dimension(&format!("past_key_values.{layer}.key"), 2) == Some(SLIDING_PLACES);
        let sliding: Arc<[bool]> = (0..sizes.layers).map(slides).collect();
        // A view of a cache is an address inside its buffer, which cannot be computed for memory of a GPU.
        let (held, device) = match runtime.provider() {
            Provider::Cuda(device) | Provider::TensorRt(device) => (vec![false; sizes.layers].into(), Some(device)),
            _ => (Arc::clone(&sliding), None),
        };
        let layout = Layout::new(&sizes, held, device);
        let (apm, image_features) = (bundle.manifest().apm, bundle.manifest().image_features());
        Ok(Self { graph, projector, sizes, apm, image_features, biases, sliding, layout, budget: Budget::new(memory) })
    }

    /// The graphs of the projector and of the decoder.
    #[cfg(test)]
    pub(crate) fn graphs(&mut self) -> [&mut Graph; 2] {
        [&mut self.projector, &mut self.graph]
    }

    /// Sizes of the language model.
    pub fn sizes(&self) -> &DecoderSizes {
        &self.sizes
    }

    /// Upper bound of the difference between the logits of a token in a run of one row and in a run of several. They differ by rounding;
    /// with quantised weights more, because their kernels for several rows quantise activations in other groups (0.03 was measured).
    pub fn logit_tolerance(&self) -> f32 {
        if self.sizes.precision.starts_with("int") { 0.1 } else { 1e-3 }
    }

    /// Computes the visual features `[image features + 36, hidden]` from the outputs of the perception module.
    ///
    /// # Errors
    /// If the graph fails.
    pub fn project(&self, perception: &Perception) -> Result<Vec<f32>, RuntimeError> {
        let failed = |e: ort::Error| RuntimeError::Run { graph: PROJECTOR.into(), source: source(e) };
        let ApmSizes { patches, token_width, embedding_width } = self.apm;
        let tokens = TensorRef::from_array_view(([1, patches, token_width], perception.image_tokens.as_slice())).map_err(failed)?;
        let objects =
            TensorRef::from_array_view(([1, STRUCTURE_COUNT, embedding_width], perception.object_embeddings.as_slice())).map_err(failed)?;
        let outputs = self.projector.run(&[("image_tokens", tokens.into()), ("object_embeddings", objects.into())])?;
        outputs.read("visual_features", &[1, self.image_features + STRUCTURE_COUNT, self.sizes.hidden])
    }

    /// An empty KV cache for a context of `context` tokens and at least `room` tokens after it, within the model's longest context.
    ///
    /// # Errors
    /// [`MemoryError`] if the budget is exceeded or allocation fails.
    pub fn cache(&self, context: usize, room: usize) -> crate::Result<Cache> {
        let capacity = self.layout.capacity(context.saturating_add(room));
        let reserved = self.budget.reserve(self.layout.bytes(capacity, context))?;
        let needed = reserved.bytes();
        let allocate = |allocator: &Allocator| Cache::new(allocator, &self.layout, capacity, context, reserved);
        // The cache lies in the memory of the device that computes attention, so that it is not copied between runs.
        let cache = match self.layout.device() {
            Some(device) => self.graph.with_memory_of(device, allocate),
            None => allocate(&Allocator::default()),
        };
        Ok(cache.map_err(|e| unallocated(needed, &e))?)
    }

    /// Enlarges a cache for at least this number of tokens, and by a quarter if the budget allows it. If the budget is limited, by no more
    /// than what `most` tokens take, so that a study leaves to others what it will not use.
    ///
    /// # Errors
    /// If the model's longest context is shorter, the budget is exceeded or allocation fails. What the cache holds stays.
    pub fn grow(&self, cache: &mut Cache, tokens: usize, most: usize) -> crate::Result<()> {
        let (limit, old) = (self.sizes.max_context, cache.capacity());
        if tokens > limit {
            return Err(QuestionError::TooLong { context: cache.length(), question: tokens - cache.length(), limit }.into());
        }
        let reserve = |tokens| {
            let capacity = self.layout.capacity(tokens);
            self.budget.reserve(cache.bytes_to_grow(capacity)).map(|reserved| (capacity, reserved))
        };
        let most = if self.budget.is_limited() { most } else { limit };
        let (capacity, reserved) = reserve(tokens.max((old + old / 4).min(most))).or_else(|_| reserve(tokens))?;
        let needed = reserved.bytes();
        Ok(cache.grow(capacity, reserved).map_err(|e| unallocated(needed, &e))?)
    }

    /// Closes the gaps that removed tokens left in a cache.
    ///
    /// # Errors
    /// If keys or values cannot be copied from or to a GPU.
    pub fn compact(&self, cache: &mut Cache) -> Result<(), RuntimeError> {
        cache.compact().map_err(failed)
    }

    /// Bytes of a cache for `tokens` tokens, of which the first `context` are a context. They never decrease with more tokens, nor with a
    /// shorter context, whose sliding layers hold more tokens after it.
    pub fn cache_bytes(&self, tokens: usize, context: usize) -> u64 {
        self.layout.bytes(self.layout.capacity(tokens), context)
    }

    /// Bytes that are reserved for all KV caches, and bytes that this one has allocated.
    #[cfg(test)]
    pub fn memory_of(&self, cache: &Cache) -> [u64; 2] {
        [self.budget.used(), cache.allocated()]
    }

    /// Number of values that [`Decoder::read_cache`] returns.
    pub(crate) fn saved_values(&self, cache: &Cache, index: usize, length: usize) -> usize {
        cache.needed(index, length).len() * self.sizes.kv_heads * self.sizes.head_dim
    }

    /// Keys (even `index`) or values (odd `index`) of layer `index / 2`, `[kv_heads, tokens, head_dim]`: of the first `length` tokens, or,
    /// in a sliding layer, of those among them that the next token attends to.
    ///
    /// # Errors
    /// If they cannot be copied from a GPU.
    pub(crate) fn read_cache(&self, cache: &Cache, index: usize, length: usize) -> Result<Vec<f32>, RuntimeError> {
        cache.rows(index, cache.needed(index, length)).map_err(failed)
    }

    /// A cache of `length` tokens. `rows` is called with each index in order and returns what [`Decoder::read_cache`] returned.
    ///
    /// # Errors
    /// If the sizes are wrong, the budget is exceeded or allocation fails.
    pub(crate) fn restore_cache(&self, length: usize, mut rows: impl FnMut(usize) -> crate::Result<Vec<f32>>) -> crate::Result<Cache> {
        let limit = self.sizes.max_context;
        if length > limit {
            return Err(QuestionError::TooLong { context: length, question: 0, limit }.into());
        }
        let mut cache = self.cache(length, 0)?;
        cache.fill(length, |index| {
            let rows = rows(index)?;
            if self.can_restore(index, length, rows.len()) {
                return Ok(rows);
            }
            let (found, expected) = (vec![rows.len() as i64], vec![self.values(length) as i64]);
            Err(RuntimeError::Shape { graph: DECODER.into(), tensor: format!("past_key_values {index}"), found, expected }.into())
        })?;
        Ok(cache)
    }

    /// Whether `values` is a valid number of keys or values for a text of `length` tokens: of all tokens, or, in a
    /// sliding layer, of those that the next token attends to.
    pub(crate) fn can_restore(&self, index: usize, length: usize, values: usize) -> bool {
        let attended = self.sizes.sliding_window.filter(|_| self.sliding[index / 2]).map(|window| length.min(window - 1));
        values == self.values(length) || Some(values) == attended.map(|tokens| self.values(tokens))
    }

    /// Number of keys, or of values, of this number of tokens in one layer.
    fn values(&self, tokens: usize) -> usize {
        self.sizes.kv_heads * tokens * self.sizes.head_dim
    }

    /// Makes a tensor of visual features, the input of [`Decoder::run`]. It is made once for each study.
    ///
    /// # Errors
    /// If the features do not have the decoder's width.
    pub fn visual(&self, features: Vec<f32>) -> Result<Tensor<f32>, RuntimeError> {
        let hidden = self.sizes.hidden;
        Tensor::from_array(([features.len() / hidden, hidden], features)).map_err(failed)
    }

    /// Appends tokens to the cache and returns the logits `[positions, vocabulary]`. A long text is computed in several runs. Before each
    /// of them but the first, `may_continue` is called; if it returns false, none of the tokens stays in the cache, and the result is
    /// `None`.
    ///
    /// # Errors
    /// If the cache is full, a token is unknown, or the graph fails. None of the tokens stays in the cache then.
    pub fn run(
        &self,
        cache: &mut Cache,
        visual: &Tensor<f32>,
        input: RunInput,
        may_continue: impl Fn() -> bool,
    ) -> crate::Result<Option<Vec<f32>>> {
        let vocabulary = self.sizes.vocabulary;
        if let Some(&token) = input.ids.iter().find(|&&id| usize::try_from(id).is_ok_and(|id| id >= vocabulary) || id < 0) {
            return Err(DecoderError::Token { token, vocabulary }.into());
        }
        if cache.length() + input.ids.len() > cache.capacity() {
            return Err(QuestionError::TooLong { context: cache.length(), question: input.ids.len(), limit: cache.capacity() }.into());
        }
        let mut logits = Vec::with_capacity(input.logit_positions.len() * vocabulary);
        let longest = if self.layout.device().is_some() { MAX_RUN_GPU } else { MAX_RUN };
        for from in (0..input.ids.len()).step_by(longest) {
            if from > 0 && !may_continue() {
                cache.rewind(cache.length() - from);
                return Ok(None);
            }
            let to = input.ids.len().min(from + longest);
            let logit_positions: Vec<i64> =
                input.logit_positions.iter().filter(|&&at| (from..to).contains(&at)).map(|at| (at - from) as i64).collect();
            let visual_index = input.visual_index.get(from..to).map_or_else(|| vec![-1; to - from], <[i64]>::to_vec);
            cache.advance(&input.slots[from..to]);
            let computed = self.run_once(cache, visual, input.ids[from..to].to_vec(), visual_index, logit_positions);
            if computed.is_err() {
                cache.rewind(cache.length() - to);
            }
            logits.extend(computed?);
        }
        Ok(Some(logits))
    }

    /// Computes the last tokens of a cache in one run.
    fn run_once(
        &self,
        cache: &mut Cache,
        visual: &Tensor<f32>,
        ids: Vec<i64>,
        visual_index: Vec<i64>,
        logit_positions: Vec<i64>,
    ) -> Result<Vec<f32>, RuntimeError> {
        let (count, rows, total) = (ids.len(), logit_positions.len(), cache.length());
        let length = i32::try_from(total).unwrap_or(i32::MAX);
        let positions: Vec<i64> = cache.slots()[total - count..].iter().map(|slot| slot.position as i64).collect();
        // Sliding layers get a view of the cache that begins at the first place that one of the tokens attends to.
        let start = self.layout.sliding_window().map_or(0, |window| slots::first_attended(cache.slots(), count, window));
        cache.slide(count, start).map_err(failed)?;
        let biases = self.biases.iter().map(|&(name, window)| {
            let from = window.map_or(0, |_| start);
            (name, total - from, slots::attention_bias(&cache.slots()[from..], count, window))
        });
        let biases: Vec<_> = biases.collect();
        let mut binding = self.graph.binding()?;
        let bind = || -> ort::Result<()> {
            binding.input("input_ids", &Tensor::from_array(([1, count], ids))?)?;
            binding.input("visual_index", &Tensor::from_array(([1, count], visual_index))?)?;
            binding.input("visual_features", visual)?;
            binding.input("seqlens_k", &Tensor::from_array(([1], vec![length - 1]))?)?;
            binding.input("total_sequence_length", &Tensor::from_array(([1], vec![length]))?)?;
            binding.input("position_ids", &Tensor::from_array(([1, count], positions))?)?;
            for (name, places, bias) in biases {
                binding.input(name, &Tensor::from_array(([1, 1, count, places], bias))?)?;
            }
            binding.input("logit_positions", &Tensor::from_array(([rows], logit_positions))?)?;
            cache.bind(&mut binding, start)
        };
        bind().map_err(failed)?;
        binding.run("logits", &[1, rows, self.sizes.vocabulary])
    }
}
