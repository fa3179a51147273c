//! The golden input: a phantom with what the training reader makes of it, from the parameters as the graphs hold them.
//!
//! An engine that opens a bundle computes the same on its own provider and compares.

use super::prompt::Prompt;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::apm::apm;
use crate::models::gemma::gemma;
use crate::models::projector::projector;
use crate::run::ModelConfig;
use crate::training::losses::normalize;
use crate::training::perceived::Database;
use anatomix::Radiograph;
use anatomix::anatomy::Structure;
use anatomix::geometry::NormalizedBox;
use anatomix::prompt::{ContextLine, PromptTokenizer};
use anatomix_phantom::{Scene, dataset::EVALUATION_SEEDS};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use tch::Tensor;

/// Parameters as the three graphs hold them.
pub(super) struct Settled<'a> {
    pub apm: &'a Params,
    pub projector: &'a Params,
    pub decoder: &'a Params,
}

/// Writes input and outputs of every graph.
pub(super) fn write(path: &Path, models: &ModelConfig, settled: &Settled, tokenizer: &PromptTokenizer, database: &Database) -> Result<()> {
    let image = image(models)?;
    let seen = apm(&Torch::new(settled.apm), &models.apm, &TorchTensor(image.shallow_clone()));
    let widths = (models.apm.width, models.apm.embedding, models.language.hidden_size);
    let visual = projector(&Torch::new(settled.projector), widths, &seen.image_tokens, &seen.object_embeddings).0;

    let lines = lines(&seen.boxes.0, &seen.object_embeddings.0, database)?;
    let batch = Prompt::new(tokenizer, &lines, visual.flatten(0, 1), &models.language)?.batch(1);
    let ops = Torch { batch: Some(&batch), ..Torch::new(settled.decoder) };
    let logits = gemma(&ops, &models.language).0.unsqueeze(0);

    let tensors = [
        ("image", image),
        ("boxes", seen.boxes.0),
        ("object_embeddings", seen.object_embeddings.0),
        ("image_tokens", seen.image_tokens.0),
        ("image_logits", seen.image_logits.0),
        ("visual_features", visual),
        ("input_ids", batch.ids),
        ("visual_index", batch.visual_index),
        ("logits", logits),
    ];
    for (name, tensor) in &tensors {
        ensure!(tensor.isfinite().all().int64_value(&[]) == 1, "the golden {name} are not finite; the run's training has diverged");
    }
    let tensors = tensors.map(|(name, tensor)| (name, tensor.contiguous()));
    Tensor::write_safetensors(&tensors, path).with_context(|| format!("cannot write {}", path.display()))
}

/// A phantom that was never trained on, as the network reads it: `[1, 1, S, S]`.
pub(super) fn image(models: &ModelConfig) -> Result<Tensor> {
    let picture = Scene::sample(EVALUATION_SEEDS).render();
    let pixels: Vec<u16> = picture.data.iter().map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
    let radiograph = Radiograph::from_pixels_u16(picture.width, picture.height, &pixels)?;
    let side = models.apm.image_size;
    Ok(Tensor::from_slice(&radiograph.preprocess(&models.preprocess())).reshape([1, 1, side, side]))
}

/// The context's lines: predicted boxes and the nearest sentences.
fn lines(boxes: &Tensor, embeddings: &Tensor, database: &Database) -> Result<Vec<ContextLine>> {
    let boxes: Vec<f32> = boxes.flatten(0, -1).try_into()?;
    let keys = normalize(&embeddings.squeeze_dim(0));
    let lines = Structure::all().zip(boxes.chunks_exact(4)).zip(database.embeddings.iter().zip(&database.sentences));
    lines
        .map(|((structure, values), (own, sentences))| {
            let nearest = own.matmul(&keys.select(0, structure.index() as i64)).argmax(-1, false).int64_value(&[]);
            let sentence = sentences.get(nearest as usize).context("a structure has no sentences")?.clone();
            let [cx, cy, w, h] = <[f32; 4]>::try_from(values)?;
            Ok(ContextLine { structure, grid: NormalizedBox::from_center(cx, cy, w, h).to_grid(), sentence })
        })
        .collect()
}
