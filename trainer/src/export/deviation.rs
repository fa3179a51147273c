//! Deviations of exported graphs from fp32. ONNX Runtime runs a graph and the same graph in fp32 on the golden input. If a CPU has no
//! operators for a decoder, or it is too large to be written again in fp32, libtorch computes with the graph's weights and with the run's
//! weights instead.

use super::prompt::Prompt;
use super::settings::{Measure, Settings};
use super::{golden, graphs};
use crate::graph::onnx::{Operators, Precision};
use crate::graph::{Params, Torch, causal_bias};
use crate::models::gemma::{GemmaConfig, gemma};
use crate::run::{self, ModelConfig, Run};
use anatomix::error::RuntimeError;
use anatomix::parts::bundle::{APM, DECODER, GOLDEN};
use anatomix::parts::prompt::PromptTokenizer;
use anatomix::parts::runtime::{Options, Runtime, Tensor as Input};
use anatomix::{NormalizedBox, Provider};
use anyhow::{Context, Result};
use serde::Serialize;
use std::borrow::Cow;
use std::path::Path;
use tch::{Device, Tensor};

/// Deviations from the same graphs in fp32.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Deviations {
    /// Deviation of the perception module.
    pub apm: Option<ApmDeviation>,
    /// Deviation of the decoder.
    pub decoder: Option<DecoderDeviation>,
    /// What was not measured, with the reasons.
    pub notes: Vec<String>,
}

/// Deviation of a perception module from fp32 on the golden image.
#[derive(Clone, Debug, Serialize)]
pub struct ApmDeviation {
    /// Intersection over union of the 36 boxes: the mean and the smallest.
    pub box_iou: [f64; 2],
    /// Cosine between object embeddings: the mean and the smallest.
    pub embedding_cosine: [f64; 2],
}

/// How a decoder was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measured {
    /// Both graphs were run by ONNX Runtime.
    Graphs,
    /// libtorch computed with both sets of weights in fp32.
    Weights,
}

/// Deviation of a decoder from fp32 on the golden prompt.
#[derive(Clone, Debug, Serialize)]
pub struct DecoderDeviation {
    /// How it was compared.
    pub by: Measured,
    /// Number of compared positions, the last ones of the prompt.
    pub positions: usize,
    /// Share of positions with the same most likely token.
    pub top1_agreement: f64,
    /// Kullback-Leibler divergence from fp32 in nats: the mean and the largest.
    pub kl: [f64; 2],
}

/// Largest number of weights of a decoder that [`Measure::Auto`] writes again in fp32.
const MAX_MEASURED: i64 = 500_000_000;
/// Largest number of compared logits.
const MAX_LOGITS: i64 = 1 << 24;
/// A layer that has an adapter if the model has adapters.
const ADAPTED: &str = "self_attn.q_proj";

/// Parameters of a decoder.
pub(super) struct Decoder {
    /// As the graph holds them.
    pub stored: Params,
    /// As the run holds them.
    pub original: Params,
}

/// Measures the graphs in `folder`.
pub(super) fn measure(folder: &Path, run: &Run, models: &ModelConfig, settings: &Settings, decoder: Option<Decoder>) -> Result<Deviations> {
    let mut found = Deviations::default();
    let exact = |precision| precision == Precision::Fp32;
    let apm = folder.join(APM);
    let decoder = decoder.filter(|_| !exact(settings.decoder) || settings.operators == Operators::Portable);
    let wants_apm = apm.exists() && !exact(settings.apm);
    if settings.measure == Measure::Never || !(wants_apm || decoder.is_some()) {
        return Ok(found);
    }
    let runtime = match Runtime::load(Options { provider: Provider::Cpu, ..Default::default() }) {
        Ok(runtime) => Some(runtime),
        Err(error @ RuntimeError::NotFound { .. }) if settings.measure == Measure::Auto => {
            found.notes.push(format!("not measured by graphs: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    // On the same disk as the graphs, which is large enough.
    let scratch = tempfile::tempdir_in(folder.parent().unwrap_or(folder)).context("cannot make a folder for graphs in fp32")?;
    if let (true, Some(runtime)) = (wants_apm, &runtime) {
        let reference = scratch.path().join(APM);
        let params = Params::load(&run.file(run::APM), Device::Cpu)?;
        graphs::apm(&reference, &models.apm, &params, Precision::Fp32, None)?;
        found.apm = Some(perception(runtime, [&reference, &apm], models)?);
    }
    let Some(decoder) = decoder else { return Ok(found) };
    let golden = folder.join(GOLDEN);
    let prompt = if golden.exists() {
        Prompt::read(&golden)?
    } else if run.file(run::TOKENIZER).exists() {
        Prompt::of_words(&PromptTokenizer::open(&run.file(run::TOKENIZER))?, models)?
    } else {
        found.notes.push(format!("{DECODER} is not measured: the run has no tokenizer to make a prompt with"));
        return Ok(found);
    };
    let affordable = settings.measure == Measure::Always || models.language.weights() <= MAX_MEASURED;
    found.decoder = Some(match runtime.filter(|_| affordable && settings.decoder != Precision::Bf16) {
        Some(runtime) => {
            let reference = scratch.path().join(DECODER);
            graphs::decoder(&reference, models, &decoder.original, Precision::Fp32, Operators::Fused)?;
            by_graphs(&runtime, [&reference, &folder.join(DECODER)], &prompt, &models.language)?
        }
        None => by_weights(&decoder, models, &prompt)?,
    });
    Ok(found)
}

fn perception(runtime: &Runtime, graphs: [&Path; 2], models: &ModelConfig) -> Result<ApmDeviation> {
    let image = golden::image(models)?;
    let [expected, found] = graphs.map(|path| -> Result<[Vec<f32>; 2]> {
        let graph = runtime.graph(path)?;
        let outputs = graph.compute(&[("image", floats(&image)?)])?;
        Ok([outputs.get("boxes")?.1, outputs.get("object_embeddings")?.1])
    });
    let ([boxes, embeddings], [our_boxes, our_embeddings]) = (expected?, found?);
    let area = |b: &[f32]| NormalizedBox::from_center(b[0], b[1], b[2], b[3]);
    let ious = boxes.chunks_exact(4).zip(our_boxes.chunks_exact(4)).map(|(a, b)| iou(&area(a), &area(b)));
    let width = models.apm.embedding as usize;
    let cosines = embeddings.chunks_exact(width).zip(our_embeddings.chunks_exact(width)).map(|(a, b)| cosine(a, b));
    Ok(ApmDeviation { box_iou: mean_and(ious, f64::min), embedding_cosine: mean_and(cosines, f64::min) })
}

/// Runs both graphs.
fn by_graphs(runtime: &Runtime, graphs: [&Path; 2], prompt: &Prompt, config: &GemmaConfig) -> Result<DecoderDeviation> {
    let (length, wanted) = (prompt.len(), positions(prompt, config));
    let batch = prompt.batch(wanted);
    let visual = batch.visual.as_ref().context("a prompt has visual features")?;
    let logits = |path: &Path| -> Result<Vec<f32>> {
        let graph = runtime.graph(path)?;
        let mut inputs: Vec<(Cow<str>, Input)> = vec![
            ("input_ids".into(), integers(&batch.ids)?),
            ("visual_index".into(), integers(&batch.visual_index)?),
            ("visual_features".into(), floats(visual)?),
            ("logit_positions".into(), integers(&batch.selected)?),
            ("seqlens_k".into(), Input::of_i32(&[1], vec![length as i32 - 1])?),
            ("total_sequence_length".into(), Input::of_i32(&[1], vec![length as i32])?),
            ("position_ids".into(), integers(&batch.positions)?),
        ];
        for (name, window) in config.biases() {
            inputs.push((name.into(), floats(&causal_bias(0, length, window))?));
        }
        let cache = [1, config.num_key_value_heads as usize, length as usize, config.head_dim as usize];
        for layer in 0..config.num_hidden_layers {
            for part in ["key", "value"] {
                let zeros = vec![0f32; cache.iter().product()];
                inputs.push((format!("past_key_values.{layer}.{part}").into(), Input::of_f32(&cache, zeros)?));
            }
        }
        Ok(graph.compute(&inputs)?.get("logits")?.1)
    };
    let [expected, found] = graphs.map(logits);
    Ok(compared(Measured::Graphs, &expected?, &found?, config))
}

/// Computes with both sets of weights. One matrix is in memory at a time.
fn by_weights(decoder: &Decoder, models: &ModelConfig, prompt: &Prompt) -> Result<DecoderDeviation> {
    let batch = prompt.batch(positions(prompt, &models.language));
    let adapted = decoder.original.shape(&format!("model.layers.0.{ADAPTED}.lora_A.weight")).is_some();
    let logits = |params: &Params, lora| -> Result<Vec<f32>> {
        let logits = gemma(&Torch { lora, batch: Some(&batch), ..Torch::new(params) }, &models.language).0;
        Ok(logits.flatten(0, -1).try_into()?)
    };
    let expected = logits(&decoder.original, Some(&models.lora).filter(|_| adapted))?;
    Ok(compared(Measured::Weights, &expected, &logits(&decoder.stored, None)?, &models.language))
}

/// Number of compared positions.
fn positions(prompt: &Prompt, config: &GemmaConfig) -> i64 {
    prompt.len().min(MAX_LOGITS / config.vocab_size).max(1)
}

fn compared(by: Measured, expected: &[f32], found: &[f32], config: &GemmaConfig) -> DecoderDeviation {
    let vocabulary = config.vocab_size as usize;
    let pairs = || expected.chunks_exact(vocabulary).zip(found.chunks_exact(vocabulary));
    let positions = pairs().len();
    let same = pairs().filter(|(a, b)| best(a) == best(b)).count();
    let kl = mean_and(pairs().map(|(a, b)| divergence(a, b)), f64::max);
    DecoderDeviation { by, positions, top1_agreement: same as f64 / positions.max(1) as f64, kl }
}

/// Intersection over union.
fn iou(a: &NormalizedBox, b: &NormalizedBox) -> f64 {
    let area = |x0: f32, y0: f32, x1: f32, y1: f32| f64::from((x1 - x0).max(0.0)) * f64::from((y1 - y0).max(0.0));
    let inner = area(a.x0.max(b.x0), a.y0.max(b.y0), a.x1.min(b.x1), a.y1.min(b.y1));
    let union = area(a.x0, a.y0, a.x1, a.y1) + area(b.x0, b.y0, b.x1, b.y1) - inner;
    if union > 0.0 { inner / union } else { f64::from(u8::from(a == b)) }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// The most likely token; the first one if several are equally likely, as in decoding.
fn best(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|best, token| if logits[token] > logits[best] { token } else { best }).unwrap_or_default()
}

/// Kullback-Leibler divergence of the second distribution from the first, in nats.
fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let normalised = |logits: &[f32]| {
        let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &v| a.max(v));
        let sum: f64 = logits.iter().map(|&v| f64::from(v - largest).exp()).sum();
        f64::from(largest) + sum.ln()
    };
    let (a, b) = (normalised(expected), normalised(found));
    let terms = expected.iter().zip(found).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - a, f64::from(q) - b);
        p.exp() * (p - q)
    });
    terms.sum::<f64>().max(0.0)
}

/// The mean and the worst value.
fn mean_and(values: impl Iterator<Item = f64>, worst: fn(f64, f64) -> f64) -> [f64; 2] {
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    [mean, values.into_iter().reduce(worst).unwrap_or_default()]
}

fn floats(tensor: &Tensor) -> Result<Input> {
    Ok(Input::of_f32(&shape(tensor), tensor.flatten(0, -1).try_into()?)?)
}

fn integers(tensor: &Tensor) -> Result<Input> {
    Ok(Input::of_i64(&shape(tensor), tensor.flatten(0, -1).try_into()?)?)
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|d| d as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences() {
        let p = [0.0, 1.0, -2.0];
        assert!(divergence(&p, &[5.0, 6.0, 3.0]) < 1e-12, "logits that differ by a constant are the same distribution");
        // By hand: p = softmax, q uniform; KL = ln 3 - entropy(p).
        let z: f64 = p.iter().map(|&v| f64::from(v).exp()).sum();
        let entropy: f64 = p.iter().map(|&v| f64::from(v).exp() / z).map(|q| -q * q.ln()).sum();
        assert!((divergence(&p, &[0.0; 3]) - (3f64.ln() - entropy)).abs() < 1e-6);
    }

    #[test]
    fn boxes_and_embeddings() {
        let a = NormalizedBox::from_center(0.5, 0.5, 0.4, 0.4);
        let b = NormalizedBox::from_center(0.7, 0.5, 0.4, 0.4);
        assert!((iou(&a, &a) - 1.0).abs() < 1e-6 && (iou(&a, &b) - 1.0 / 3.0).abs() < 1e-6);
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-9);
        assert_eq!(mean_and([1.0, 3.0].into_iter(), f64::min), [2.0, 1.0]);
    }
}
