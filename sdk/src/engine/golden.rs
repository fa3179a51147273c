//! The golden input: the provider must reproduce the outputs that the trainer computed for it.

use super::limits::Limits;
use crate::bundle::{BundleError, MAX_GOLDEN};
use crate::cause::Problem;
use crate::control::StoppedError;
use crate::decoder::{Branch, RunInput, Slot};
use crate::error::Result;
use crate::files;
use crate::language::LanguageModel;
use crate::perception::PerceptionModule;
use crate::runtime::RuntimeError;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;
use std::time::Instant;

/// Rows of the runs that are timed after the golden outputs were reproduced. With these times, prompt look-up decoding can verify drafts
/// after 40 tokens; without them after 130.
const TIMED: [usize; 4] = [1, 1, 2, 2];

/// The graphs that the golden input runs through: perception module, projector, decoder.
pub(super) const GRAPHS: u64 = 3;

/// Runs the golden input through all graphs and compares the outputs. `tolerances` are those of the manifest, for the perception module
/// and for logits. `limits` stops it and counts graphs.
pub(super) fn check(path: &Path, tolerances: (f32, f32), module: &PerceptionModule, model: &LanguageModel, limits: &Limits) -> Result<()> {
    let ((perception_tolerance, logits_tolerance), decoder) = (tolerances, &model.decoder);
    let bytes = files::read(path, MAX_GOLDEN).map_err(|source| BundleError::Read { path: path.into(), source })?;
    let golden = Golden::parse(path, &bytes)?;
    limits.check()?;
    let perception = module.run_until(&golden.floats("image")?, limits.stop());
    let perception = limits.of_run(perception)?;
    compare("boxes", &perception.boxes_cxcywh, &golden.floats("boxes")?, perception_tolerance)?;
    compare("object_embeddings", &perception.object_embeddings, &golden.floats("object_embeddings")?, perception_tolerance)?;
    compare("image_tokens", &perception.image_tokens, &golden.floats("image_tokens")?, perception_tolerance)?;
    compare("image_logits", &perception.image_logits, &golden.floats("image_logits")?, perception_tolerance)?;
    limits.advance(1);
    limits.check()?;
    let features = decoder.project(&perception)?;
    let expected = golden.floats("visual_features")?;
    compare("visual_features", &features, &expected, perception_tolerance)?;

    limits.advance(1);
    limits.check()?;

    let (ids, visual_index) = (golden.integers("input_ids")?, golden.integers("visual_index")?);
    if ids.is_empty() || ids.len() != visual_index.len() || ids.len() > decoder.sizes().max_context {
        return Err(golden.damaged("input_ids and visual_index have different lengths").into());
    }
    let rows = features.len() / decoder.sizes().hidden;
    if visual_index.iter().any(|&row| row >= rows as i64) {
        return Err(golden.damaged("visual_index points outside the visual features").into());
    }
    let vocabulary = decoder.sizes().vocabulary;
    if let Some(token) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocabulary)) {
        return Err(golden.damaged(format!("input_ids has the token {token}, but the language model has {vocabulary}")).into());
    }
    // The decoder gets the golden visual features, so that errors of the perception module do not count as its own.
    let visual = decoder.visual(expected)?;
    let mut cache = decoder.cache(ids.len(), 0)?;
    let slots: Vec<_> = Slot::consecutive(Branch::TRUNK, 0, ids.len()).collect();
    let input = RunInput { ids: &ids, visual_index: &visual_index, slots: &slots, logit_positions: &[ids.len() - 1] };
    let Some(logits) = decoder.run(&mut cache, &visual, input, || limits.check().is_ok())? else {
        return Err(limits.check().err().unwrap_or(StoppedError::Cancelled).into());
    };
    compare("logits", &logits, &golden.floats("logits")?, logits_tolerance)?;
    limits.advance(1);

    let most = ids.len().min(cache.capacity() - ids.len());
    for rows in TIMED.into_iter().filter(|&rows| rows <= most) {
        let slots: Vec<_> = Slot::consecutive(Branch::TRUNK, ids.len(), rows).collect();
        let logit_positions: Vec<usize> = (0..rows).collect();
        let start = Instant::now();
        decoder.run(
            &mut cache,
            &visual,
            RunInput { ids: &ids[..rows], visual_index: &[], slots: &slots, logit_positions: &logit_positions },
            || true,
        )?;
        let time = start.elapsed();
        model.speculate(|speculation| speculation.measured(rows, time.as_secs_f64()));
        cache.rewind(ids.len());
    }
    Ok(())
}

/// Compares a tensor with the golden one. `tolerance` is relative to the largest golden value.
fn compare(tensor: &str, ours: &[f32], golden: &[f32], tolerance: f32) -> Result<(), RuntimeError> {
    let largest = golden.iter().fold(0f32, |a, v| a.max(v.abs()));
    let allowed = tolerance * largest.max(f32::MIN_POSITIVE);
    let difference = if ours.len() == golden.len() {
        // A NaN on either side counts as a difference.
        ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0f32, |a, d| if d.is_nan() { f32::INFINITY } else { a.max(d) })
    } else {
        f32::INFINITY
    };
    if difference <= allowed { Ok(()) } else { Err(RuntimeError::Golden { tensor: tensor.into(), difference, allowed }) }
}

fn damaged(path: &Path, Problem { message, source }: Problem) -> BundleError {
    BundleError::Golden { path: path.into(), message, source }
}

struct Golden<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> Golden<'a> {
    fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, BundleError> {
        let damaged = |e| damaged(path, Problem::caused("it is not a safetensors file", e));
        Ok(Self { path, tensors: SafeTensors::deserialize(bytes).map_err(damaged)? })
    }

    fn damaged(&self, problem: impl Into<Problem>) -> BundleError {
        damaged(self.path, problem.into())
    }

    fn values<const N: usize, T>(&self, name: &str, dtype: Dtype, read: fn([u8; N]) -> T) -> Result<Vec<T>, BundleError> {
        let tensor = self.tensors.tensor(name).map_err(|e| self.damaged(Problem::caused(format_args!("it lacks {name}"), e)))?;
        if tensor.dtype() != dtype {
            return Err(self.damaged(format!("{name} is {:?} instead of {dtype:?}", tensor.dtype())));
        }
        Ok(tensor.data().as_chunks().0.iter().map(|&bytes| read(bytes)).collect())
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>, BundleError> {
        self.values(name, Dtype::F32, f32::from_le_bytes)
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, BundleError> {
        self.values(name, Dtype::I64, i64::from_le_bytes)
    }
}
