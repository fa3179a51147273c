//! The golden input: a phantom, and the outputs that libtorch computes for it with the parameters that the graphs hold.
//!
//! An engine that opens a bundle computes the outputs on its own provider and compares them. Outputs are computed in fp64 and rounded to a
//! grid, and the sentences and boxes of the prompt follow from the rounded figures, so that every machine writes the same file.

use super::grid::rounded;
use super::phantom::phantom;
use super::prompt::Prompt;
use crate::graph::{Params, Torch, TorchTensor};
use crate::models::apm::apm;
use crate::models::gemma::gemma;
use crate::run::ModelConfig;
use anatomix::parts::prompt::{ContextLine, PromptTokenizer};
use anatomix::parts::retrieval::SentenceList;
use anatomix::{NormalizedBox, Structure};
use anatomix_phantom::dataset::EVALUATION_SEEDS;
use anyhow::{Context, Result};
use std::path::Path;
use tch::{Kind, Tensor};

/// Parameters as the three graphs hold them.
pub(super) struct Stored<'a> {
    pub apm: &'a Params,
    pub projector: &'a Params,
    pub decoder: &'a Params,
}

/// Writes the inputs and outputs of each graph.
pub(super) fn write(path: &Path, models: &ModelConfig, stored: &Stored, tokenizer: &PromptTokenizer, lists: &[SentenceList]) -> Result<()> {
    let image = image(models)?;
    let seen = apm(&Torch::double(stored.apm), &models.apm, &TorchTensor(image.to_kind(Kind::Double)));
    let visual = models.visual_features(&Torch::double(stored.projector), &seen.image_tokens, &seen.object_embeddings).0;
    let visual = rounded("visual_features", &visual)?;
    let boxes = rounded("boxes", &seen.boxes.0)?;
    let object_embeddings = rounded("object_embeddings", &seen.object_embeddings.0)?;

    let lines = lines(&boxes, &object_embeddings, lists)?;
    let batch = Prompt::new(tokenizer, &lines, visual.flatten(0, 1), models)?.batch(1);
    let ops = Torch { batch: Some(&batch), ..Torch::double(stored.decoder) };
    let logits = gemma(&ops, &models.language).0.unsqueeze(0);

    let tensors = [
        ("image", image),
        ("boxes", boxes),
        ("object_embeddings", object_embeddings),
        ("image_tokens", rounded("image_tokens", &seen.image_tokens.0)?),
        ("image_logits", rounded("image_logits", &seen.image_logits.0)?),
        ("visual_features", visual),
        ("input_ids", batch.ids),
        ("visual_index", batch.visual_index),
        ("logits", rounded("logits", &logits)?),
    ];
    Tensor::write_safetensors(&tensors, path).with_context(|| format!("cannot write {}", path.display()))
}

/// A phantom that is not used in training, as the network's input `[1, 1, S, S]`.
pub(super) fn image(models: &ModelConfig) -> Result<Tensor> {
    let side = models.apm.image_size;
    let radiograph = phantom(EVALUATION_SEEDS, models)?;
    Ok(Tensor::from_slice(&radiograph.preprocess(&models.preprocess())?).reshape([1, 1, side, side]))
}

/// The lines of the context: predicted boxes and the nearest sentences, both from rounded figures.
fn lines(boxes: &Tensor, embeddings: &Tensor, lists: &[SentenceList]) -> Result<Vec<ContextLine>> {
    let boxes: Vec<f32> = boxes.flatten(0, -1).try_into()?;
    let width = embeddings.size()[2] as usize;
    let embeddings: Vec<f32> = embeddings.flatten(0, -1).try_into()?;
    let lines = Structure::all().zip(boxes.chunks_exact(4)).zip(embeddings.chunks_exact(width).zip(lists));
    lines
        .map(|((structure, values), (embedding, list))| {
            let sentence = nearest(embedding, list).context("a structure has no sentences")?.clone();
            let [cx, cy, w, h] = <[f32; 4]>::try_from(values)?;
            Ok(ContextLine { structure, grid: NormalizedBox::from_center(cx, cy, w, h).to_grid(), sentence })
        })
        .collect()
}

/// The sentence whose normalised embedding has the largest dot product with `embedding`; the first one if several are equal. Values on the
/// grid have so few bits that products and sums are exact.
fn nearest<'a>(embedding: &[f32], list: &'a SentenceList) -> Option<&'a String> {
    let product = |row: &[f32]| row.iter().zip(embedding).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let products = list.embeddings.chunks_exact(embedding.len()).map(product);
    let best = products.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    list.sentences.get(best?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equally_near_sentences_is_taken() {
        let sentences = ["a", "b", "c", "d"].map(String::from).to_vec();
        let list = SentenceList { sentences, embeddings: vec![0.0, 1.0, 0.6, 0.8, 0.8, 0.6, 0.6, 0.8] };
        assert_eq!(nearest(&[0.0, 2.0], &list).unwrap(), "a");
        assert_eq!(nearest(&[3.0, 4.0], &list).unwrap(), "b");
        assert_eq!(nearest(&[5.0, 0.0], &list).unwrap(), "c");
    }
}
