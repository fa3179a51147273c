//! Training objectives: the losses of one batch. The training loops and `examples/step.rs` call the same functions. A test compares the
//! losses and gradients of the latter with those of independent models.

use super::config::LanguageStage;
use super::losses;
use super::settings::{LossWeights, Missing, Precision, StageSettings};
use crate::distributed::Peers;
use crate::graph::{CausalBatch, Params, Tape, Torch, TorchTensor};
use crate::models::apm::{ApmConfig, ApmOutput, apm, apm_with_layers};
use crate::models::gemma::{EMBEDDING, HEAD, gemma};
use crate::models::text::{TextConfig, project};
use crate::run::ModelConfig;
use anyhow::Result;
use tch::{Device, Kind, Reduction, Tensor};

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
    /// Makes targets; `rows` `[B * 36]` holds the row of each structure's sentence, and `missing` says what becomes of structures without a
    /// box.
    pub fn new(boxes: Tensor, present: Tensor, labels: Tensor, rows: &Tensor, missing: Missing) -> Self {
        let present = if missing == Missing::Published { present.ones_like() } else { present };
        let present_rows = present.flatten(0, -1).nonzero().flatten(0, -1);
        Self { boxes, present, labels, sentences: rows.index_select(0, &present_rows), present_rows }
    }
}

/// The losses of the stage `apm` for a step.
pub struct PerceptionLoss {
    /// The losses without weights, see [`PARTS`].
    pub parts: [f64; 4],
    /// The weighted sum, which is minimised.
    pub total: f64,
}

/// The objective of the stage `apm`.
pub struct PerceptionObjective<'a> {
    /// Configuration of the models.
    pub models: &'a ModelConfig,
    /// Weights of the losses.
    pub weights: &'a LossWeights,
    /// What products compute in.
    pub precision: Precision,
    /// Whether inner values of the transformer's layers are computed again in the backward pass.
    pub checkpointing: bool,
    /// The processes that have the other images of the step. The losses are those of all images.
    pub peers: Peers<'a>,
}

/// What the losses need of the module's output: boxes (of each decoder layer if all count), object embeddings, logits of labels.
type Outputs = Vec<Tensor>;

impl PerceptionObjective<'_> {
    /// Computes the losses for images `[B, 1, S, S]`, and adds their gradients to those of the parameters; `frozen` `[sentences, D]` are
    /// the sentence encoder's embeddings.
    ///
    /// At most `batch` images are computed at once. The losses of all images belong together, because contrastive alignment compares each
    /// structure with those of all images. So with more images than that, all outputs are computed first, then the losses with the outputs'
    /// gradients, and then the images once more, batch by batch, with these (Gao et al. 2021, GradCache). The gradients are those of all
    /// images at once, but for batch norms that are trained, which see a batch of a process at a time. With no more images than that on any
    /// process they see all images.
    ///
    /// # Errors
    /// If another process ended.
    pub fn gradients(
        &self,
        params: &Params,
        pictures: &Tensor,
        frozen: &Tensor,
        targets: &Targets,
        batch: usize,
    ) -> Result<PerceptionLoss> {
        let batches = pictures.split(batch.max(1) as i64, 0);
        let together = !self.peers.any(batches.len() > 1)?;
        if let [pictures] = batches.as_slice() {
            let tape = Tape::default();
            let peers = if together { self.peers } else { Peers::alone() };
            let ops = Torch { peers, ..self.ops(params, self.checkpointing.then_some(&tape)) };
            let (parts, loss) = self.losses(params, &self.outputs(&ops, pictures), frozen, targets)?;
            loss.backward();
            tape.backward(&ops);
            return self.total(&parts);
        }
        let seeds: Vec<i64> =
            batches.iter().map(|_| Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0])).collect();
        let found = tch::no_grad(|| {
            let ops = self.ops(params, None);
            let outputs = batches.iter().zip(&seeds).map(|(pictures, &seed)| {
                tch::manual_seed(seed);
                self.outputs(&ops, pictures)
            });
            outputs.collect::<Vec<Outputs>>()
        });
        let whole = |part: usize| Tensor::cat(&found.iter().map(|outputs| &outputs[part]).collect::<Vec<_>>(), 0).set_requires_grad(true);
        let leaves: Outputs = (0..found[0].len()).map(whole).collect();
        let (parts, loss) = self.losses(params, &leaves, frozen, targets)?;
        loss.backward();
        let mut from = 0;
        for (pictures, seed) in batches.iter().zip(seeds) {
            let tape = Tape::default();
            let ops = self.ops(params, self.checkpointing.then_some(&tape));
            tch::manual_seed(seed);
            let count = pictures.size()[0];
            let outputs = self.outputs(&ops, pictures);
            let sums = outputs.iter().zip(&leaves).filter(|(_, leaf)| leaf.grad().defined());
            let sums: Vec<Tensor> = sums.map(|(output, leaf)| (output * leaf.grad().narrow(0, from, count)).sum(Kind::Float)).collect();
            Tensor::stack(&sums, 0).sum(Kind::Float).backward();
            tape.backward(&ops);
            from += count;
        }
        self.total(&parts)
    }

    fn ops<'b>(&self, params: &'b Params, tape: Option<&'b Tape>) -> Torch<'b> {
        Torch { training: true, bf16: self.precision == Precision::Bf16, tape, ..Torch::new(params) }
    }

    fn outputs(&self, ops: &Torch, pictures: &Tensor) -> Outputs {
        let output = apm_with_layers(ops, &self.models.apm, &TorchTensor(pictures.shallow_clone()), self.weights.aux);
        let boxes = if self.weights.aux { output.layer_boxes } else { vec![output.boxes] };
        let outputs = boxes.into_iter().chain([output.object_embeddings, output.image_logits]);
        outputs.map(|output| output.0.to_kind(Kind::Float)).collect()
    }

    /// The losses without weights, and their weighted sum. Those of boxes and labels are this process's part of the mean over all images.
    /// Contrastive alignment compares the structures of all images; its gradients reach those of this process.
    fn losses(&self, params: &Params, outputs: &Outputs, frozen: &Tensor, targets: &Targets) -> Result<([Tensor; 4], Tensor)> {
        let (weights, models, peers) = (self.weights, self.models, self.peers);
        let [boxes @ .., embeddings, logits] = outputs.as_slice() else { unreachable!("boxes, then embeddings and logits") };
        let count = peers.sum(&targets.present.sum(Kind::Float))?.clamp_min(1.0);
        let of_layers = boxes.iter().map(|boxes| losses::boxes(boxes, &targets.boxes, &targets.present, &count));
        let (l1, giou) = of_layers.reduce(|sum, layer| (sum.0 + layer.0, sum.1 + layer.1)).expect("the last layer has boxes");
        let known = peers.sum(&targets.labels.ge(0.0).sum(Kind::Float))?.clamp_min(1.0);
        let labels = losses::labels(logits, &targets.labels) / known;
        let ops = Torch { bf16: self.precision == Precision::Bf16, ..Torch::new(params) };
        let projected = project_sentences(&ops, &models.text, &models.apm, frozen);
        let objects = peers.rows(&embeddings.flatten(0, 1).index_select(0, &targets.present_rows))?;
        let own = peers.rows(&projected.index_select(0, &targets.sentences))?;
        let contrastive = if weights.clip {
            losses::clip(&objects, &own, weights.temperature)
        } else {
            let frozen = peers.rows(&frozen.index_select(0, &targets.sentences))?;
            losses::contrastive(&objects, &own, &frozen, weights.temperature)
        };
        let loss = &l1 * weights.l1 + &giou * weights.giou + &labels * weights.labels + &contrastive * weights.contrastive;
        Ok(([l1, giou, labels, contrastive], loss))
    }

    /// The losses of all images, from the parts of the processes.
    fn total(&self, parts: &[Tensor; 4]) -> Result<PerceptionLoss> {
        let [l1, giou, labels, contrastive] = parts.each_ref().map(|part| part.double_value(&[]));
        let [l1, giou, labels] = self.peers.sums([l1, giou, labels])?;
        let weights = self.weights;
        let total = l1 * weights.l1 + giou * weights.giou + labels * weights.labels + contrastive * weights.contrastive;
        Ok(PerceptionLoss { parts: [l1, giou, labels, contrastive], total })
    }
}

/// Runs the module on images, without dropout. Returns its output, and the projections of all sentences, `[sentences, embedding]`.
pub fn perceive(params: &Params, models: &ModelConfig, picture: &Tensor, frozen: &Tensor) -> (ApmOutput<TorchTensor>, Tensor) {
    let ops = Torch::new(params);
    let output = apm(&ops, &models.apm, &TorchTensor(picture.shallow_clone()));
    let projected = project_sentences(&ops, &models.text, &models.apm, frozen);
    (output, projected)
}

/// Projects frozen sentence embeddings to the width of object embeddings.
fn project_sentences(ops: &Torch, text: &TextConfig, apm: &ApmConfig, frozen: &Tensor) -> Tensor {
    project(ops, text, apm.embedding, &TorchTensor(frozen.shallow_clone())).0.to_kind(ops.kind)
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
    /// Whether instruction tuning gives the output layer a table of its own.
    pub own_head: bool,
    /// What products compute in.
    pub precision: Precision,
    /// Whether inner values of the layers are computed again in the backward pass.
    pub checkpointing: bool,
}

impl<'a> LanguageObjective<'a> {
    /// The objective of a stage with these settings.
    pub fn new(models: &'a ModelConfig, stage: LanguageStage, settings: &StageSettings) -> Self {
        let &StageSettings { full, own_head, precision, checkpointing, .. } = settings;
        Self { models, stage, full, own_head: own_head && stage == LanguageStage::Instruct, precision, checkpointing }
    }

    /// Whether the training stage trains a parameter.
    pub fn trains(&self, name: &str) -> bool {
        match self.stage {
            LanguageStage::Base => true,
            LanguageStage::Align => name.contains("projectionhead"),
            LanguageStage::Instruct => self.full || !is_base(name) || name == EMBEDDING || name == HEAD,
        }
    }

    /// Gives the output layer the embedding table's values if the stage trains one of its own and there is none yet.
    pub fn separate_head(&self, params: &Params) {
        if self.own_head
            && params.get(HEAD).is_none()
            && let Some(table) = params.get(EMBEDDING)
        {
            params.insert(HEAD, table.copy());
        }
    }

    fn ops<'b>(&'b self, params: &'b Params, batch: Option<&'b CausalBatch>, training: bool, tape: Option<&'b Tape>) -> Torch<'b> {
        let lora = (self.stage == LanguageStage::Instruct && !self.full).then_some(&self.models.lora);
        Torch { training, lora, batch, bf16: self.precision == Precision::Bf16, tape, ..Torch::new(params) }
    }

    /// Visual features `[B, image features + 36, hidden]` of image tokens `[B, P, width]` and object embeddings `[B, 36, E]`.
    pub fn visual(&self, params: &Params, tokens: Tensor, objects: Tensor, training: bool) -> Tensor {
        let ops = self.ops(params, None, training, None);
        self.models.visual_features(&ops, &TorchTensor(tokens), &TorchTensor(objects)).0.to_kind(ops.kind)
    }

    /// Returns the loss of a batch, its weighted sum over the targets divided by `total`, and the logits of the targets.
    pub fn loss(&self, params: &Params, batch: &CausalBatch, targets: &Tensor, weights: &Tensor, total: f64) -> (Tensor, Tensor) {
        self.weighted(&self.ops(params, Some(batch), false, None), targets, weights, total)
    }

    /// Computes the loss of a batch in training, as [`LanguageObjective::loss`] does, and adds its gradients to those of the parameters.
    /// If `total` is the sum of the weights of several batches, so are the gradients those of the batches as one.
    pub fn gradients(&self, params: &Params, batch: &CausalBatch, targets: &Tensor, weights: &Tensor, total: f64) -> (Tensor, Tensor) {
        let tape = Tape::default();
        let ops = self.ops(params, Some(batch), true, self.checkpointing.then_some(&tape));
        let (loss, logits) = self.weighted(&ops, targets, weights, total);
        loss.backward();
        tape.backward(&ops);
        (loss.detach(), logits.detach())
    }

    fn weighted(&self, ops: &Torch, targets: &Tensor, weights: &Tensor, total: f64) -> (Tensor, Tensor) {
        let mut language = self.models.language.clone();
        language.tie_word_embeddings &= !self.own_head;
        let logits = gemma(ops, &language).0.to_kind(ops.kind);
        let each = logits.cross_entropy_loss::<Tensor>(targets, None, Reduction::None, -100, 0.0);
        ((each * weights).sum(Kind::Float) / total, logits)
    }
}
