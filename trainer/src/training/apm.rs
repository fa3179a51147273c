//! Stage 1: end-to-end training of the Anatomy Perception Module (paper, section 3.1).

use super::checkpoint::{Checkpoint, Start};
use super::config::Recipe;
use super::objective::{PerceptionLoss, Targets, perceive, trains_perception};
use super::{losses, progress, text};
use crate::data::augment::augment;
use crate::data::imagenome::{self, Annotated};
use crate::data::images::Images;
use crate::graph::Params;
use crate::graph::adamw::AdamW;
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::retrieval::is_finding;
use anatomix::{NormalizedBox, STRUCTURE_COUNT};
use anyhow::{Context, Result, anyhow};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Number of validation images that are evaluated with each checkpoint.
const VALIDATION_IMAGES: usize = 192;

/// All distinct sentences with their frozen embeddings.
struct Sentences {
    texts: Vec<String>,
    /// `[sentences, D]`.
    frozen: Tensor,
    /// Row of each sentence.
    index: HashMap<String, i64>,
}

impl Sentences {
    fn of(images: &[Annotated], run: &Run, models: &ModelConfig, device: Device) -> Result<Self> {
        let path = run.sentence_tokenizer();
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow!("cannot read {}: {e}; run `train text` first", path.display()))?;
        let texts: BTreeSet<&String> = images.iter().flat_map(|i| &i.sentences).collect();
        let texts: Vec<String> = texts.into_iter().cloned().collect();
        let slices: Vec<&str> = texts.iter().map(String::as_str).collect();
        let frozen = text::embed_all(run, &models.text, &tokenizer, &slices, device, Kind::Float)?;
        let index = texts.iter().cloned().zip(0..).collect();
        Ok(Self { texts, frozen, index })
    }

    fn rows(&self, image: &Annotated) -> Vec<i64> {
        image.sentences.iter().map(|s| self.index[s]).collect()
    }
}

/// Targets of images, with boxes after augmentation.
fn targets(images: &[&Annotated], boxes: &[Vec<Option<NormalizedBox>>], sentences: &Sentences, device: Device) -> Targets {
    let batch = images.len() as i64;
    let flat: Vec<&Option<NormalizedBox>> = boxes.iter().flatten().collect();
    let values: Vec<f32> = flat.iter().flat_map(|b| b.unwrap_or_default().to_center()).collect();
    let present: Vec<f32> = flat.iter().map(|b| if b.is_some() { 1.0 } else { 0.0 }).collect();
    let rows: Vec<i64> = images.iter().flat_map(|i| sentences.rows(i)).collect();
    let labels: Vec<f32> = images.iter().flat_map(|i| i.labels).collect();
    let tensor = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).reshape(shape).to_device(device);
    Targets::new(
        tensor(&values, &[batch, STRUCTURE_COUNT as i64, 4]),
        tensor(&present, &[batch, STRUCTURE_COUNT as i64]),
        tensor(&labels, &[batch, -1]),
        &Tensor::from_slice(&rows).to_device(device),
    )
}

/// Trains the module.
///
/// # Errors
/// If data cannot be read, files cannot be written, or gradients are not finite.
pub fn train(recipe: &Recipe, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = run.models()?;
    let settings = &recipe.apm;
    let images = imagenome::read(&recipe.data, |split| split != "test")?;
    let sentences = Sentences::of(&images, &run, &models, device)?;
    let (train, validation): (Vec<_>, Vec<_>) = images.into_iter().partition(|i| i.split == "train");
    anyhow::ensure!(train.len() >= settings.batch, "{} has {} training images, fewer than a batch", recipe.data.display(), train.len());
    let preprocess = models.preprocess();
    let load = |images: &[Annotated]| Images::load(&images.iter().map(|i| i.image.clone()).collect::<Vec<_>>(), &preprocess);
    let pictures = load(&train)?;
    let validation: Vec<Annotated> = validation.into_iter().take(VALIDATION_IMAGES).collect();
    let validation_pictures = load(&validation)?;

    tch::manual_seed(settings.seed);
    let checkpoint = Checkpoint::new(&run, "apm");
    let previous = if start.resume { checkpoint.load(device)? } else { None };
    let (params, first) = match previous {
        Some(previous) => previous,
        None => {
            // `from` may hold a part of the module only, such as an image encoder. The other parameters are initialised at random.
            let params = start.from.map_or_else(|| Ok(Params::create(device)), |path| Params::load(path, device).map(Params::open))?;
            let loaded = params.named().len();
            let _ = tch::no_grad(|| perceive(&params, &models, &validation_pictures.batch(&[0]), &sentences.frozen, false));
            params.check(start.from.unwrap_or(&run.folder))?;
            if let Some(path) = start.from {
                eprintln!("apm: {loaded} of {} parameters from {}", params.named().len(), path.display());
            }
            (params, 0)
        }
    };
    params.train(|name| trains_perception(&models.apm, name));
    let mut optimiser =
        AdamW::new(&params, settings.optimiser(), |name| if name.starts_with("backbone") { settings.backbone_factor } else { 1.0 });
    if first > 0 {
        checkpoint.load_optimiser(&mut optimiser)?;
    }
    eprintln!("apm: {} images, {} parameters, {} sentences", train.len(), optimiser.parameters(), sentences.texts.len());

    let bar = progress::bar(settings.steps, "apm");
    bar.set_position(first);
    let per_epoch = train.len() / settings.batch;
    let mut order: Vec<i64> = Vec::new();
    let mut running = [0.0; 4];
    for step in first..settings.steps {
        // Shuffling and augmentation follow from the seed and the step, so that a resumed training gives the same parameters.
        let epoch = step as usize / per_epoch;
        let at = step as usize % per_epoch * settings.batch;
        if at == 0 || order.is_empty() {
            order = (0..train.len() as i64).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(settings.seed as u64 ^ (epoch as u64) << 20));
        }
        let mut rng = ChaCha8Rng::seed_from_u64((settings.seed as u64).wrapping_mul(31).wrapping_add(step));
        tch::manual_seed(rng.random_range(0..i64::MAX));
        let chosen = &order[at..at + settings.batch];
        let batch: Vec<&Annotated> = chosen.iter().map(|&i| &train[i as usize]).collect();
        let mut boxes: Vec<_> = batch.iter().map(|i| i.boxes.to_vec()).collect();
        let picture = tch::no_grad(|| augment(&pictures.batch(chosen), &mut boxes, &recipe.augmentation, &mut rng)).to_device(device);
        let targets = targets(&batch, &boxes, &sentences, device);
        let PerceptionLoss { parts, loss } = PerceptionLoss::of(&params, &models, &recipe.losses, &picture, &sentences.frozen, &targets);
        let norm = optimiser.step(&loss, settings.rate_at(step));
        anyhow::ensure!(norm.is_finite(), "the gradients of step {step} are not finite; lower the learning rate and resume");
        for (mean, part) in running.iter_mut().zip(&parts) {
            *mean += 0.02 * (part.double_value(&[]) - *mean);
        }
        let [l1, giou, labels, contrastive] = running;
        bar.set_message(format!("l1 {l1:.3} giou {giou:.3} labels {labels:.3} contrast {contrastive:.3}"));
        bar.inc(1);
        if (step + 1) % settings.checkpoint_every == 0 || step + 1 == settings.steps {
            checkpoint.save(&params, &optimiser, step + 1)?;
            let found = tch::no_grad(|| validate(&params, &models, &validation, &validation_pictures, &sentences));
            let line = json!({ "step": step + 1, "l1": l1, "giou": giou, "labels": labels, "contrastive": contrastive,
                "iou": found.iou, "exact": found.exact, "exact_with_finding": found.exact_with_finding, "label_accuracy": found.labels });
            bar.suspend(|| eprintln!("{line}"));
            checkpoint.log(&line)?;
        }
    }
    bar.finish_and_clear();
    params.save(&run.file(run::APM), |_| true)?;
    let path = run.file(run::SENTENCES);
    std::fs::write(&path, database_sentences(&recipe.data, &recipe.database_splits)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The bytes of [`run::SENTENCES`]: for each structure its distinct sentences in these splits of a data set.
///
/// # Errors
/// If the data set cannot be read, a structure has no sentences, or the test split is among `splits`.
pub fn database_sentences(data: &Path, splits: &[String]) -> Result<Vec<u8>> {
    anyhow::ensure!(!splits.iter().any(|s| s == "test"), "the database must not be built from the test split");
    let images = imagenome::read(data, |split| splits.iter().any(|s| s == split))?;
    let lists: Vec<BTreeSet<&String>> = (0..STRUCTURE_COUNT).map(|s| images.iter().map(|i| &i.sentences[s]).collect()).collect();
    anyhow::ensure!(
        lists.iter().all(|list| !list.is_empty()),
        "{} has no sentences for some structures in its splits {}",
        data.display(),
        splits.join(", ")
    );
    Ok(serde_json::to_vec_pretty(&lists)?)
}

struct Validation {
    /// Mean IoU of the boxes.
    iou: f64,
    /// Fraction of structures whose nearest sentence is the annotated one.
    exact: f64,
    /// The same for structures with a finding.
    exact_with_finding: f64,
    /// Accuracy of the image labels.
    labels: f64,
}

fn validate(params: &Params, models: &ModelConfig, images: &[Annotated], pictures: &Images, sentences: &Sentences) -> Validation {
    let (mut iou, mut exact, mut finding, mut correct) = ((0.0, 0), (0, 0), (0, 0), (0, 0));
    // A structure's sentence is searched among its own sentences only, as in the sentence database.
    let own: Vec<BTreeSet<i64>> = (0..STRUCTURE_COUNT).map(|s| images.iter().map(|i| sentences.index[&i.sentences[s]]).collect()).collect();
    for (chunk, batch) in images.chunks(32).enumerate() {
        let indices: Vec<i64> = (0..batch.len() as i64).map(|i| chunk as i64 * 32 + i).collect();
        let picture = pictures.batch(&indices).to_device(params.device());
        let (output, projected) = perceive(params, models, &picture, &sentences.frozen, false);
        let boxes = Vec::<f32>::try_from(output.boxes.0.flatten(0, -1)).unwrap_or_default();
        let scores = losses::normalize(&output.object_embeddings.0.flatten(0, 1)).matmul(&losses::normalize(&projected).tr());
        let logits = Vec::<f32>::try_from(output.image_logits.0.flatten(0, -1)).unwrap_or_default();
        for (i, image) in batch.iter().enumerate() {
            for (s, target) in image.boxes.iter().enumerate() {
                let Some(target) = target else { continue };
                let at = i * STRUCTURE_COUNT + s;
                let [cx, cy, w, h] = [0, 1, 2, 3].map(|k| boxes[at * 4 + k]);
                iou = (iou.0 + f64::from(NormalizedBox::from_center(cx, cy, w, h).iou(target)), iou.1 + 1);
                let row = scores.get(at as i64);
                let best = own[s].iter().copied().max_by(|&a, &b| row.double_value(&[a]).total_cmp(&row.double_value(&[b])));
                let right = best == Some(sentences.index[&image.sentences[s]]);
                exact = (exact.0 + i32::from(right), exact.1 + 1);
                if is_finding(&image.sentences[s]) {
                    finding = (finding.0 + i32::from(right), finding.1 + 1);
                }
            }
            for (logit, label) in logits[i * image.labels.len()..].iter().zip(&image.labels) {
                correct = (correct.0 + i32::from((*logit > 0.0) == (*label > 0.5)), correct.1 + 1);
            }
        }
    }
    let share = |(right, all): (i32, i32)| f64::from(right) / f64::from(all.max(1));
    Validation { iou: iou.0 / f64::from(iou.1.max(1)), exact: share(exact), exact_with_finding: share(finding), labels: share(correct) }
}
