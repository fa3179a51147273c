//! Training objectives: the losses of one batch. The training loops and `examples/step.rs` call the same functions. A test compares the
//! losses and gradients of the latter with those of independent models.

use super::config::LanguageStage;
use super::losses;
use super::settings::LossWeights;
use crate::graph::{CausalBatch, Params, Torch, TorchTensor};
use crate::models::apm::{ApmConfig, ApmOutput, apm};
use crate::models::gemma::{EMBEDDING, HEAD, gemma};
use crate::models::text::{TextConfig, project};
use crate::run::ModelConfig;
use tch::{Kind, Reduction, Tensor};

/// Names of the losses of the stage `apm`, in the order of [`PerceptionLoss::parts`].
pub const PARTS: [&str; 4] = ["l1", "giou", "labels", "contrastive"];

/// A label of which nothing is known.
pub const UNKNOWN: f32 = -1.0;

/// Targets of the perception module for a batch of images.
pub struct Targets {
    /// Boxes `[B, 36, 4]`: centre and size.
    pub boxes: Tensor,
    /// 1 for a structure with a box, otherwise 0, `[B, 36]`.
    pub present: Tensor,
    /// 1 for a label that applies, 0 for one that does not, [`UNKNOWN`] for one that no loss counts, `[B, 14]`.
    pub labels: Tensor,
    /// For each structure with a box, the row of its sentence.
    sentences: Tensor,
    /// For each structure with a box, its index in `B * 36`.
    present_rows: Tensor,
}

impl Targets {
    /// Makes targets; `rows` `[B * 36]` holds the row of each structure's sentence.
    pub fn new(boxes: Tensor, present: Tensor, labels: Tensor, rows: &Tensor) -> Self {
        let present_rows = present.flatten(0, -1).nonzero().flatten(0, -1);
        Self { boxes, present, labels, sentences: rows.index_select(0, &present_rows), present_rows }
    }
}

/// The losses of the stage `apm` for a batch.
pub struct PerceptionLoss {
    /// The losses without weights, see [`PARTS`].
    pub parts: [Tensor; 4],
    /// The weighted sum, which is minimised.
    pub loss: Tensor,
}

impl PerceptionLoss {
    /// Computes the losses for images `[B, 1, S, S]`; `frozen` `[sentences, D]` are the sentence encoder's embeddings.
    pub fn of(params: &Params, models: &ModelConfig, weights: &LossWeights, picture: &Tensor, frozen: &Tensor, targets: &Targets) -> Self {
        let (output, projected) = perceive(params, models, picture, frozen, true);
        let (l1, giou) = losses::boxes(&output.boxes.0, &targets.boxes, &targets.present);
        let labels = label_loss(&output.image_logits.0, &targets.labels);
        let objects = output.object_embeddings.0.flatten(0, 1).index_select(0, &targets.present_rows);
        let own = projected.index_select(0, &targets.sentences);
        let contrastive = if weights.clip {
            losses::clip(&objects, &own, weights.temperature)
        } else {
            losses::contrastive(&objects, &own, &frozen.index_select(0, &targets.sentences), weights.temperature)
        };
        let loss = &l1 * weights.l1 + &giou * weights.giou + &labels * weights.labels + &contrastive * weights.contrastive;
        Self { parts: [l1, giou, labels, contrastive], loss }
    }
}

/// Mean binary cross-entropy of the labels `[B, 14]` that are known; 0 if none is.
fn label_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let known = labels.ge(0.0);
    let (logits, labels) = (logits.masked_select(&known), labels.masked_select(&known));
    if labels.numel() == 0 {
        return logits.sum(Kind::Float);
    }
    logits.binary_cross_entropy_with_logits(&labels, None::<&Tensor>, None::<&Tensor>, Reduction::Mean)
}

/// Runs the module on images. Returns its output, and the projections of all sentences, `[sentences, embedding]`.
pub fn perceive(
    params: &Params,
    models: &ModelConfig,
    picture: &Tensor,
    frozen: &Tensor,
    training: bool,
) -> (ApmOutput<TorchTensor>, Tensor) {
    let ops = Torch { training, ..Torch::new(params) };
    let output = apm(&ops, &models.apm, &TorchTensor(picture.shallow_clone()));
    let projected = project_sentences(&ops, &models.text, &models.apm, frozen);
    (output, projected)
}

/// Projects frozen sentence embeddings to the width of object embeddings.
fn project_sentences(ops: &Torch, text: &TextConfig, apm: &ApmConfig, frozen: &Tensor) -> Tensor {
    project(ops, text, apm.embedding, &TorchTensor(frozen.shallow_clone())).0
}

/// Whether the stage `apm` trains a parameter. It trains all but running statistics, frozen batch norms and frozen stages of the ResNet.
pub fn trains_perception(config: &ApmConfig, name: &str) -> bool {
    let norm = name.starts_with("backbone") && (name.contains(".bn") || name.contains("downsample.1"));
    !name.contains("running_") && !config.is_frozen(name) && (config.train_batch_norm || !norm)
}

/// Whether a parameter belongs to the base model.
pub fn is_base(name: &str) -> bool {
    !name.contains("lora_") && !name.contains("projectionhead")
}

/// The objective of a training stage of the language model.
pub struct LanguageObjective<'a> {
    /// Configuration of the models.
    pub models: &'a ModelConfig,
    /// The training stage.
    pub stage: LanguageStage,
    /// Whether instruction tuning trains the whole model instead of adapters.
    pub full: bool,
}

impl LanguageObjective<'_> {
    /// Whether the training stage trains a parameter.
    pub fn trains(&self, name: &str) -> bool {
        match self.stage {
            LanguageStage::Base => true,
            LanguageStage::Align => name.contains("projectionhead"),
            LanguageStage::Instruct => self.full || !is_base(name) || name == EMBEDDING || name == HEAD,
        }
    }

    /// Logits of the batch's selected positions.
    pub fn logits(&self, params: &Params, batch: &CausalBatch, training: bool) -> Tensor {
        let lora = (self.stage == LanguageStage::Instruct && !self.full).then_some(&self.models.lora);
        let ops = Torch { training, lora, batch: Some(batch), ..Torch::new(params) };
        gemma(&ops, &self.models.language).0
    }

    /// Visual features `[B, image features + 36, hidden]` of image tokens `[B, P, width]` and object embeddings `[B, 36, E]`.
    pub fn visual(&self, params: &Params, tokens: Tensor, objects: Tensor, training: bool) -> Tensor {
        let ops = Torch { training, ..Torch::new(params) };
        self.models.visual_features(&ops, &TorchTensor(tokens), &TorchTensor(objects)).0
    }

    /// Returns the loss of a batch, the weighted mean over its targets, and the logits of the targets.
    pub fn loss(&self, params: &Params, batch: &CausalBatch, targets: &Tensor, weights: &Tensor, training: bool) -> (Tensor, Tensor) {
        let logits = self.logits(params, batch, training);
        let each = logits.cross_entropy_loss::<Tensor>(targets, None, Reduction::None, -100, 0.0);
        ((each * weights).sum(Kind::Float) / weights.sum(Kind::Float), logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_labels_are_in_no_loss() {
        let logits = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 9.0]).reshape([2, 2]).set_requires_grad(true);
        let loss = label_loss(&logits, &Tensor::from_slice(&[1f32, 0.0, UNKNOWN, UNKNOWN]).reshape([2, 2]));
        let expected = ((1.0 + (-0.5f64).exp()).ln() + (1.0 + (-1.0f64).exp()).ln()) / 2.0;
        assert!((loss.double_value(&[]) - expected).abs() < 1e-6);
        loss.backward();
        assert_eq!(Vec::<f32>::try_from(logits.grad().get(1)).unwrap(), [0.0, 0.0]);
        let none = label_loss(&logits, &Tensor::full([2, 2], f64::from(UNKNOWN), (Kind::Float, tch::Device::Cpu)));
        assert_eq!(none.double_value(&[]), 0.0);
    }
}
