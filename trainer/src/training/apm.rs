//! The stage `apm`: end-to-end training of the Anatomy Perception Module (paper, section 3.1).

use super::checkpoint::Start;
use super::config::Recipe;
use super::fit::{Loss, Stage, Step, Validation, fit};
use super::objective::{PARTS, PerceptionLoss, Targets, perceive, trains_perception};
use super::settings::Missing;
use super::{losses, text};
use crate::data::augment::augment;
use crate::data::imagenome::{self, Annotated};
use crate::data::images::Images;
use crate::graph::Params;
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::retrieval::is_finding;
use anatomix::{NormalizedBox, STRUCTURE_COUNT};
use anyhow::{Context, Result, anyhow, ensure};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

/// Number of validation images that are evaluated with each checkpoint.
const VALIDATION_IMAGES: usize = 192;

/// The frozen embeddings of all distinct sentences.
struct Sentences {
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
        Ok(Self { frozen, index })
    }

    fn rows(&self, image: &Annotated) -> Vec<i64> {
        image.sentences.iter().map(|s| self.index[s]).collect()
    }
}

/// Targets of images, with boxes after augmentation.
fn targets(
    images: &[&Annotated],
    boxes: &[Vec<Option<NormalizedBox>>],
    sentences: &Sentences,
    missing: Missing,
    device: Device,
) -> Targets {
    let batch = images.len() as i64;
    let flat: Vec<&Option<NormalizedBox>> = boxes.iter().flatten().collect();
    let values: Vec<f32> = flat.iter().flat_map(|b| b.map_or([0.0; 4], |b| b.to_center())).collect();
    let counts = |b: &Option<NormalizedBox>| b.is_some() || missing == Missing::Published;
    let present: Vec<f32> = flat.iter().map(|b| if counts(b) { 1.0 } else { 0.0 }).collect();
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

/// The stage `apm`.
struct Perception<'a> {
    recipe: &'a Recipe,
    models: &'a ModelConfig,
    device: Device,
    sentences: Sentences,
    train: Vec<Annotated>,
    pictures: Images,
    validation: Vec<Annotated>,
    validation_pictures: Images,
}

/// Trains the module.
///
/// # Errors
/// If data cannot be read, files cannot be written, or the training stops early.
pub fn train(recipe: &Recipe, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = recipe.run_models(&run)?;
    let settings = &recipe.apm;
    let images = imagenome::read(&recipe.data, |split| split != "test")?;
    let sentences = Sentences::of(&images, &run, &models, device)?;
    let (mut train, mut validation): (Vec<_>, Vec<_>) = images.into_iter().partition(|i| i.split == "train");
    let folder = recipe.data.display();
    ensure!(!train.is_empty(), "{folder} has no training images");
    ensure!(!validation.is_empty(), "{folder} has no validation images; its split file names them `validate`");
    train.truncate(settings.images.unwrap_or(usize::MAX));
    validation.truncate(VALIDATION_IMAGES);
    let database = database_sentences(&recipe.data, &recipe.database_splits)?;
    let preprocess = models.preprocess();
    let load = |images: &[Annotated]| Images::load(&images.iter().map(|i| i.image.clone()).collect::<Vec<_>>(), &preprocess);
    let (pictures, validation_pictures) = (load(&train)?, load(&validation)?);

    tch::manual_seed(settings.seed);
    // `from` may hold a part of the module only, such as an image encoder. The other parameters are initialised at random.
    let params = start.from.map_or_else(|| Ok(Params::create(device)), |path| Params::load(path, device).map(Params::open))?;
    let loaded = params.named().len();
    let _ = tch::no_grad(|| perceive(&params, &models, &validation_pictures.batch(&[0]).to_device(device), &sentences.frozen, false));
    params.check(start.from.unwrap_or(&run.folder))?;
    if let Some(path) = start.from {
        eprintln!("apm: {loaded} of {} parameters from {}", params.named().len(), path.display());
    }
    let mut stage = Perception { recipe, models: &models, device, sentences, train, pictures, validation, validation_pictures };
    fit(&run, &mut stage, settings, &params, start)?;
    if start.dry_run {
        return Ok(());
    }
    params.save(&run.file(run::APM), |_| true)?;
    let path = run.file(run::SENTENCES);
    std::fs::write(&path, database).with_context(|| format!("cannot write {}", path.display()))
}

impl Stage for Perception<'_> {
    fn name(&self) -> &'static str {
        "apm"
    }

    fn samples(&self) -> usize {
        self.train.len()
    }

    fn sample(&self, index: usize) -> String {
        self.train[index].id.clone()
    }

    fn trains(&self, name: &str) -> bool {
        trains_perception(&self.models.apm, name)
    }

    fn keeps(&self, _: &str) -> bool {
        true
    }

    fn rate_factor(&self, name: &str) -> f64 {
        if name.starts_with("backbone") { self.recipe.apm.backbone_factor } else { 1.0 }
    }

    fn loss(&mut self, params: &Params, step: &Step, rng: &mut ChaCha8Rng) -> Result<Loss> {
        let batch: Vec<&Annotated> = step.samples.iter().map(|&i| &self.train[i]).collect();
        let mut boxes: Vec<_> = batch.iter().map(|i| i.boxes.to_vec()).collect();
        let rows: Vec<i64> = step.samples.iter().map(|&i| i as i64).collect();
        let picture = tch::no_grad(|| augment(&self.pictures.batch(&rows), &mut boxes, &self.recipe.augmentation, rng));
        let targets = targets(&batch, &boxes, &self.sentences, self.recipe.losses.missing, self.device);
        let (picture, weights) = (picture.to_device(self.device), &self.recipe.losses);
        let PerceptionLoss { parts, loss } = PerceptionLoss::of(params, self.models, weights, &picture, &self.sentences.frozen, &targets);
        Ok(Loss { total: loss, parts: PARTS.into_iter().zip(parts.iter().map(|part| part.double_value(&[]))).collect() })
    }

    fn validate(&mut self, params: &Params) -> Result<Option<Validation>> {
        let found = validate(params, self.models, &self.validation, &self.validation_pictures, &self.sentences);
        let Found { iou, structure_iou, exact, exact_with_finding, labels } = found;
        let figures = vec![("iou", iou), ("exact", exact), ("exact_with_finding", exact_with_finding), ("label_accuracy", labels)];
        Ok(Some(Validation { figures, structure_iou, score: iou + exact_with_finding }))
    }
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

/// Figures over the validation images.
struct Found {
    /// Mean IoU of the boxes.
    iou: f64,
    /// The same for each structure.
    structure_iou: Vec<f64>,
    /// Fraction of structures whose nearest sentence is the annotated one.
    exact: f64,
    /// The same for structures with a finding.
    exact_with_finding: f64,
    /// Accuracy of the image labels.
    labels: f64,
}

fn validate(params: &Params, models: &ModelConfig, images: &[Annotated], pictures: &Images, sentences: &Sentences) -> Found {
    let (mut exact, mut finding, mut correct) = ((0, 0), (0, 0), (0, 0));
    let mut ious = [(0.0, 0); STRUCTURE_COUNT];
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
                ious[s] = (ious[s].0 + f64::from(NormalizedBox::from_center(cx, cy, w, h).iou(target)), ious[s].1 + 1);
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
    let (sum, count) = ious.iter().fold((0.0, 0), |(sum, count), (iou, n)| (sum + iou, count + n));
    let mean = |sum: f64, count: i32| sum / f64::from(count.max(1));
    let structure_iou = ious.map(|(sum, count)| mean(sum, count)).to_vec();
    Found { iou: mean(sum, count), structure_iou, exact: share(exact), exact_with_finding: share(finding), labels: share(correct) }
}
