//! The language model over a cache of its own for each study (paper, section 3.2).

mod budget;
mod cache;
mod error;
mod grammar;
mod look_up;
mod readable;
mod sampling;
mod slots;
mod speculation;
mod stops;

use budget::Budget;
pub use cache::Cache;
use cache::{LONGEST_RUN, Layout};
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
pub(crate) use stops::Stops;

use crate::anatomy::STRUCTURES;
use crate::bundle::{
    ApmSizes, Bundle, DECODER, DecoderSizes, FULL_ATTENTION_BIAS, MANIFEST, PROJECTOR, SLIDING_ATTENTION_BIAS, SLIDING_PLACES,
};
use crate::cause::source;
use crate::perception::Perception;
use crate::runtime::{Graph, Provider, Runtime, RuntimeError};
use ort::memory::Allocator;
use ort::value::{Tensor, TensorRef};
use std::sync::Arc;

/// The projectors and the decoder on a provider.
pub struct Decoder {
    graph: Graph,
    projector: Graph,
    sizes: DecoderSizes,
    apm: ApmSizes,
    /// Inputs that say what a layer sees, for layers of each window.
    biases: Vec<(&'static str, Option<usize>)>,
    /// Which layers have a window, as far as the graph tells.
    windowed: Arc<[bool]>,
    layout: Layout,
    budget: Arc<Budget>,
}

/// Longest run in tokens on a GPU; see [`LONGEST_RUN`] for the CPU.
const LONGEST_RUN_GPU: usize = 512;

/// Tokens that continue a cache, and where their logits are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Token ids.
    pub ids: &'a [i64],
    /// For each the row of the visual features that takes its place, or -1; empty where none is taken.
    pub visual_index: &'a [i64],
    /// For each its place in its text.
    pub slots: &'a [Slot],
    /// Which of `ids` logits are wanted of, in ascending order.
    pub wanted: &'a [usize],
}

impl Decoder {
    /// Loads `projector.onnx` and `decoder.onnx`. All caches together may take `memory` bytes; any number for `None`.
    ///
    /// # Errors
    /// If one cannot be loaded or lacks an input or output, or the provider cannot compute in the decoder's precision.
    pub fn load(runtime: &Runtime, bundle: &Bundle, memory: Option<u64>) -> Result<Self, RuntimeError> {
        let precision = &bundle.manifest().decoder.precision;
        if precision == cache::BF16 && runtime.provider() == Provider::Cpu {
            return Err(RuntimeError::Precision { graph: DECODER.into(), precision: precision.clone(), provider: Provider::Cpu });
        }
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_string()).collect::<Vec<_>>();
        let projector = runtime.graph(&bundle.file(PROJECTOR))?;
        projector.check_ports(&names(&["image_tokens", "object_embeddings"]), &names(&["visual_features"]))?;
        let graph = runtime.graph_for_callers(&bundle.file(DECODER))?;
        let sizes = bundle.manifest().decoder.clone();
        let mut inputs = names(&["input_ids", "visual_features", "visual_index", "seqlens_k", "total_sequence_length", "logit_positions"]);
        let mut outputs = names(&["logits"]);
        inputs.push("position_ids".into());
        inputs.extend(sizes.sliding_window.map(|_| SLIDING_ATTENTION_BIAS.into()));
        inputs.extend(cache::names("past_key_values", sizes.layers));
        outputs.extend(cache::names("present", sizes.layers));
        graph.check_ports(&inputs, &outputs)?;
        if sizes.sliding_window.is_none() && graph.has_input(SLIDING_ATTENTION_BIAS) {
            return Err(RuntimeError::Port { graph: MANIFEST.into(), what: "size", name: "decoder.sliding_window".into() });
        }
        let kinds = [(FULL_ATTENTION_BIAS, None), (SLIDING_ATTENTION_BIAS, sizes.sliding_window)];
        let biases = kinds.into_iter().filter(|(name, _)| graph.has_input(name)).collect();
        // A cache may be given from any place on where the graph names its places so.
        let slides = |layer| graph.dimension(&format!("past_key_values.{layer}.key"), 2) == Some(SLIDING_PLACES);
        let windowed: Arc<[bool]> = (0..sizes.layers).map(slides).collect();
        // On a GPU the cache's addresses are not for us to move.
        let (sliding, device) = match runtime.provider() {
            Provider::Cuda(device) | Provider::TensorRt(device) => (vec![false; sizes.layers].into(), Some(device)),
            _ => (Arc::clone(&windowed), None),
        };
        let layout = Layout::new(&sizes, sliding, device);
        let apm = bundle.manifest().apm;
        Ok(Self { graph, projector, sizes, apm, biases, windowed, layout, budget: Budget::new(memory) })
    }

    /// The projector's graph and the language model's, for tests.
    #[cfg(test)]
    pub(crate) fn graphs(&mut self) -> [&mut Graph; 2] {
        [&mut self.projector, &mut self.graph]
    }

    /// Sizes of the language model.
    pub fn sizes(&self) -> &DecoderSizes {
        &self.sizes
    }

    /// By how much two logits may differ between a run of one token and a run of several over the same cache: rounding, and
    /// for quantised weights other kernels, which round activations by other groups (0.03 were measured).
    pub fn noise(&self) -> f32 {
        if self.sizes.precision.starts_with("int") { 0.1 } else { 1e-3 }
    }

    /// Visual features `[patches + 36, hidden]` of what the perception module saw.
    ///
    /// # Errors
    /// If the graph fails.
    pub fn project(&self, perception: &Perception) -> Result<Vec<f32>, RuntimeError> {
        let failed = |e: ort::Error| RuntimeError::Run { graph: PROJECTOR.into(), source: source(e) };
        let ApmSizes { patches, token_width, embedding_width } = self.apm;
        let tokens = TensorRef::from_array_view(([1, patches, token_width], perception.image_tokens.as_slice())).map_err(failed)?;
        let objects =
            TensorRef::from_array_view(([1, STRUCTURES, embedding_width], perception.object_embeddings.as_slice())).map_err(failed)?;
        let outputs = self.projector.run(&[("image_tokens", tokens.into()), ("object_embeddings", objects.into())])?;
        outputs.read("visual_features", &[1, patches + STRUCTURES, self.sizes.hidden])
    }

    /// An empty cache for a text of `context` tokens, computed once, and for `room` more at least, as far as the model's context goes.
    ///
    /// # Errors
    /// If memory cannot be had or may not be used.
    pub fn cache(&self, context: usize, room: usize) -> crate::Result<Cache> {
        let capacity = self.layout.capacity(context.saturating_add(room));
        let reserved = self.budget.reserve(self.layout.bytes(capacity, context))?;
        let needed = reserved.bytes();
        let make = |allocator: &Allocator| Cache::new(allocator, &self.layout, capacity, context, reserved);
        // The cache lies where attention is computed, so that it never travels.
        let cache = match self.layout.device() {
            Some(device) => self.graph.with_memory_of(device, make),
            None => make(&Allocator::default()),
        };
        Ok(cache.map_err(|e| unallocated(needed, &e))?)
    }

    /// Gives a cache room for at least this many tokens, and for a quarter more than it had where the budget allows it. What it holds
    /// stays.
    ///
    /// # Errors
    /// If the model's context is shorter, or memory cannot be had or may not be used; the cache is then as it was.
    pub fn grow(&self, cache: &mut Cache, tokens: usize) -> crate::Result<()> {
        let (limit, old) = (self.sizes.max_context, cache.capacity());
        if tokens > limit {
            return Err(QuestionError::TooLong { context: cache.length(), question: tokens - cache.length(), limit }.into());
        }
        let reserve = |tokens| {
            let capacity = self.layout.capacity(tokens);
            self.budget.reserve(cache.missing(capacity)).map(|reserved| (capacity, reserved))
        };
        let (capacity, reserved) = reserve(tokens.max(old + old / 4)).or_else(|_| reserve(tokens))?;
        let needed = reserved.bytes();
        Ok(cache.grow(capacity, reserved).map_err(|e| unallocated(needed, &e))?)
    }

    /// Closes the gaps that forgotten tokens left in a cache.
    ///
    /// # Errors
    /// If what it holds cannot be moved.
    pub fn compact(&self, cache: &mut Cache) -> Result<(), RuntimeError> {
        cache.compact().map_err(failed)
    }

    /// Bytes that a cache for `tokens` tokens takes at most, all but the last `turn` of which are computed once; more tokens never take
    /// less.
    pub fn cache_bytes(&self, tokens: usize, turn: usize) -> u64 {
        self.layout.price(tokens, turn)
    }

    /// How many values [`Decoder::read_cache`] gives.
    pub(crate) fn saved_values(&self, cache: &Cache, index: usize, length: usize) -> usize {
        cache.needed(index, length).len() * self.sizes.kv_heads * self.sizes.head_dim
    }

    /// Keys (even `index`) or values (odd) that the layer `index / 2` holds of a cache's first `length` tokens, or of the last of them
    /// where its window reaches no further: `[kv_heads, tokens, head_dim]`.
    ///
    /// # Errors
    /// If they cannot be copied from the device.
    pub(crate) fn read_cache(&self, cache: &Cache, index: usize, length: usize) -> Result<Vec<f32>, RuntimeError> {
        cache.rows(index, cache.needed(index, length)).map_err(failed)
    }

    /// A cache that holds what [`Decoder::read_cache`] gave of `length` tokens, asked for one after the other.
    ///
    /// # Errors
    /// If they are not of so many tokens, or memory cannot be had or may not be used.
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

    /// Whether a layer's keys or values of a text of `length` tokens are `values` numbers: those of all tokens, or, where the layer has a
    /// window, of those that the next token sees.
    pub(crate) fn can_restore(&self, index: usize, length: usize, values: usize) -> bool {
        let seen = self.sizes.sliding_window.filter(|_| self.windowed[index / 2]).map(|window| length.min(window - 1));
        values == self.values(length) || Some(values) == seen.map(|tokens| self.values(tokens))
    }

    /// How many numbers a layer's keys, or its values, of so many tokens are.
    fn values(&self, tokens: usize) -> usize {
        self.sizes.kv_heads * tokens * self.sizes.head_dim
    }

    /// Visual features as an input of [`Decoder::run`]; made once for a study.
    ///
    /// # Errors
    /// If they do not have the decoder's width.
    pub fn visual(&self, features: Vec<f32>) -> Result<Tensor<f32>, RuntimeError> {
        let hidden = self.sizes.hidden;
        Tensor::from_array(([features.len() / hidden, hidden], features)).map_err(failed)
    }

    /// Appends tokens to the cache and returns the logits `[wanted, vocabulary]`. A long text is computed in several runs. Before each
    /// of them but the first, `goes_on` is called; if it returns false, none of the tokens stays in the cache, and the result is `None`.
    ///
    /// # Errors
    /// If the cache is full, a token is unknown, or the graph fails. None of the tokens stays in the cache then.
    pub fn run(&self, cache: &mut Cache, visual: &Tensor<f32>, step: Step, goes_on: impl Fn() -> bool) -> crate::Result<Option<Vec<f32>>> {
        let vocabulary = self.sizes.vocabulary;
        if let Some(&token) = step.ids.iter().find(|&&id| usize::try_from(id).is_ok_and(|id| id >= vocabulary) || id < 0) {
            return Err(DecoderError::Token { token, vocabulary }.into());
        }
        if cache.length() + step.ids.len() > cache.capacity() {
            return Err(QuestionError::TooLong { context: cache.length(), question: step.ids.len(), limit: cache.capacity() }.into());
        }
        let mut logits = Vec::with_capacity(step.wanted.len() * vocabulary);
        let longest = if self.layout.device().is_some() { LONGEST_RUN_GPU } else { LONGEST_RUN };
        for from in (0..step.ids.len()).step_by(longest) {
            if from > 0 && !goes_on() {
                cache.rewind(cache.length() - from);
                return Ok(None);
            }
            let to = step.ids.len().min(from + longest);
            let wanted: Vec<i64> = step.wanted.iter().filter(|&&at| (from..to).contains(&at)).map(|at| (at - from) as i64).collect();
            let visual_index = step.visual_index.get(from..to).map_or_else(|| vec![-1; to - from], <[i64]>::to_vec);
            cache.advance(&step.slots[from..to]);
            let computed = self.run_once(cache, visual, step.ids[from..to].to_vec(), visual_index, wanted);
            if computed.is_err() {
                cache.rewind(cache.length() - to);
            }
            logits.extend(computed?);
        }
        Ok(Some(logits))
    }

    /// Computes the last tokens of a cache.
    fn run_once(
        &self,
        cache: &mut Cache,
        visual: &Tensor<f32>,
        ids: Vec<i64>,
        visual_index: Vec<i64>,
        wanted: Vec<i64>,
    ) -> Result<Vec<f32>, RuntimeError> {
        let (count, rows, total) = (ids.len(), wanted.len(), cache.length());
        let length = i32::try_from(total).unwrap_or(i32::MAX);
        let positions: Vec<i64> = cache.slots()[total - count..].iter().map(|slot| slot.position as i64).collect();
        // Layers with a window compute with what it reaches only.
        let start = self.layout.slides().map_or(0, |window| slots::first_seen(cache.slots(), count, window));
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
            binding.input("logit_positions", &Tensor::from_array(([rows], wanted))?)?;
            cache.bind(&mut binding, start)
        };
        bind().map_err(failed)?;
        binding.run("logits", &[1, rows, self.sizes.vocabulary])
    }
}
