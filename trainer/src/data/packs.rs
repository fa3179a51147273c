//! Packs: sequences of one context and several questions, so that the context is computed once for all questions.
//!
//! A question attends to the context, to the earlier turns of its own conversation and to itself, and its positions continue from the
//! context's end. At inference, a question on a study with a prefilled context attends to the same tokens at the same positions.

use crate::graph::CausalBatch;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Tokens of one context with its questions and answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pack {
    ids: Vec<i64>,
    visual_index: Vec<i64>,
    positions: Vec<i64>,
    /// Segment of each token: 0 for the context, 1, 2, ... for the questions.
    segments: Vec<i64>,
    /// Weight of predicting the token after each token in the loss; 0 if it is not a training target.
    weights: Vec<f32>,
}

/// Weights of the answers in the mean over all tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerWeights {
    /// An answer weighs as much as the square root of its length. With equal weights for all tokens, one report would outweigh fifty
    /// questions that are answered by yes or no.
    #[default]
    Balanced,
    /// All tokens weigh the same, as published.
    Published,
}

impl Pack {
    /// Makes a pack of a context without questions; see [`ContextTokens`](anatomix::parts::prompt::ContextTokens) for the arguments.
    pub fn over(ids: Vec<i64>, visual_index: Vec<i64>) -> Self {
        let length = ids.len();
        Self { positions: (0..length as i64).collect(), segments: vec![0; length], weights: vec![0.0; length], ids, visual_index }
    }

    /// Adds a question, which may follow earlier turns, with its answer.
    pub fn ask(&mut self, question: Vec<i64>, answer: Vec<i64>) {
        let context = self.segments.iter().take_while(|&&s| s == 0).count();
        let segment = self.segments.last().map_or(1, |s| s + 1);
        let own = question.len() + answer.len();
        self.positions.extend((0..own).map(|i| (context + i) as i64));
        self.segments.extend(std::iter::repeat_n(segment, own));
        // Each token of the answer is predicted at the token before it. See AnswerWeights::Balanced.
        let weight = 1.0 / (answer.len() as f32).sqrt();
        self.weights.extend((0..own).map(|i| if i + 1 >= question.len() && i + 1 < own { weight } else { 0.0 }));
        self.visual_index.extend(std::iter::repeat_n(-1, own));
        self.ids.extend(question);
        self.ids.extend(answer);
    }

    /// Sum of the weights of its targets in the loss.
    pub fn weight(&self, weighted: AnswerWeights) -> f64 {
        let counted = self.weights.iter().filter(|weight| **weight > 0.0);
        counted.map(|&weight| if weighted == AnswerWeights::Published { 1.0 } else { f64::from(weight) }).sum()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the pack has no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Pads packs to a batch; `visual` holds the visual features of their images, `[B, P + 36, hidden]`. Returns the batch, the target tokens
/// at its selected positions, and the weights of their losses.
pub fn batch(packs: &[Pack], visual: Option<&Tensor>, weighted: AnswerWeights, device: Device) -> (CausalBatch, Tensor, Tensor) {
    let length = packs.iter().map(Pack::len).max().unwrap_or(0);
    let rows = visual.map_or(0, |v| v.size()[1]);
    let (mut ids, mut index, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut selected, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (number, pack) in packs.iter().enumerate() {
        let padding = length - pack.len();
        let pad = |out: &mut Vec<i64>, values: &[i64], with: i64| {
            out.extend_from_slice(values);
            out.extend(std::iter::repeat_n(with, padding));
        };
        pad(&mut ids, &pack.ids, 0);
        let shifted: Vec<i64> =
            pack.visual_index.iter().map(|&i| if i < 0 || visual.is_none() { -1 } else { i + number as i64 * rows }).collect();
        pad(&mut index, &shifted, -1);
        pad(&mut positions, &pack.positions, 0);
        pad(&mut segments, &pack.segments, -1);
        for (at, &weight) in pack.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            selected.push((number * length + at) as i64);
            targets.push(pack.ids[at + 1]);
            weights.push(if weighted == AnswerWeights::Published { 1.0 } else { weight });
        }
    }
    let shape = [packs.len() as i64, length as i64];
    let tensor = |values: &[i64]| Tensor::from_slice(values).reshape(shape).to_device(device);
    let segments = tensor(&segments);
    let (row, column) = (segments.unsqueeze(-1), segments.unsqueeze(-2));
    let shared = row.eq_tensor(&column).logical_or(&column.eq(0).logical_and(&row.ge(0)));
    let causal = Tensor::ones([length as i64; 2], (tch::Kind::Bool, device)).tril(0);
    let batch = CausalBatch {
        ids: tensor(&ids),
        visual: visual.map(|v| v.flatten(0, 1)),
        visual_index: tensor(&index),
        positions: tensor(&positions),
        mask: shared.logical_and(&causal).unsqueeze(1),
        selected: Tensor::from_slice(&selected).to_device(device),
    };
    (batch, Tensor::from_slice(&targets).to_device(device), Tensor::from_slice(&weights).to_device(device))
}
