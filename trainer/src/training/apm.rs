//! The stage `apm`: end-to-end training of the Anatomy Perception Module (paper, section 3.1).

use super::annotations::Embedded;
use super::checkpoint::Start;
use super::config::Recipe;
use super::fit::{Loss, Stage, Step, Validation, fit};
use super::kept;
use super::losses;
use super::objective::{PARTS, PerceptionLoss, PerceptionObjective, Targets, UNKNOWN, perceive, trains_perception};
use super::order::Order;
use super::results;
use super::settings::{Missing, StageSettings};
use crate::data::augment::augment;
use crate::data::loading::ahead::Ahead;
use crate::data::loading::index::Index;
use crate::data::loading::pictures::Pictures;
use crate::data::loading::prepared::Prepared;
use crate::data::samples::record::Image;
use crate::data::sources::split::Split;
use crate::distributed::Peers;
use crate::graph::Params;
use crate::progress::say;
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::retrieval::is_finding;
use anatomix::{LABEL_COUNT, NormalizedBox, STRUCTURE_COUNT, Structure};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Number of validation images that are evaluated with each checkpoint.
const VALIDATION_IMAGES: usize = 192;

/// An image with its annotations, as a step takes it.
struct Seen {
    image: Image,
    /// The preprocessed image.
    picture: Vec<u8>,
}

impl Seen {
    /// Box of each structure in the letterboxed square.
    fn boxes(&self) -> Vec<Option<NormalizedBox>> {
        let letterbox = self.image.letterbox();
        let boxes = (0..STRUCTURE_COUNT).map(|s| self.image.boxes.get(s).copied().flatten());
        boxes.map(|bounds| bounds.map(|bounds| letterbox.normalize(&bounds))).collect()
    }

    fn sentence(&self, structure: Structure) -> Option<&str> {
        self.image.sentences.get(structure.index())?.as_deref()
    }

    /// For each label 1 if it applies, otherwise 0: what is uncertain or not mentioned counts as absent, as published. All are unknown for
    /// an image without labels.
    fn labels(&self) -> [f32; LABEL_COUNT] {
        self.image.labels.map_or([UNKNOWN; LABEL_COUNT], |labels| labels.map(|label| if label == Some(1) { 1.0 } else { 0.0 }))
    }
}

/// Loads annotated images. It is shared by threads.
#[derive(Clone)]
struct Loader {
    index: Arc<Index>,
    pictures: Arc<Pictures>,
    images: Arc<Vec<u32>>,
}

impl Loader {
    fn load(&self, at: usize) -> Result<Option<Seen>> {
        let number = *self.images.get(at).with_context(|| format!("there is no image {at}"))?;
        let image = self.index.image(number)?;
        let picture = self.pictures.read(&self.index.prepared.path(&image)?, image.size())?;
        Ok(picture.map(|picture| Seen { image, picture }))
    }

    fn ahead(&self, recipe: &Recipe, batch: usize, items: impl Iterator<Item = usize> + Send + 'static) -> Result<Ahead<Option<Seen>>> {
        let own = self.clone();
        Ahead::start(recipe.loading.workers, recipe.loading.prefetch * batch, items, move |at| own.load(at))
    }
}

/// Targets of images with the embeddings of their sentences; `boxes` are those after augmentation.
fn targets(
    images: &[Seen],
    boxes: &[Vec<Option<NormalizedBox>>],
    sentences: &Embedded,
    missing: Missing,
    device: Device,
) -> Result<(Targets, Tensor)> {
    let batch = images.len() as i64;
    let mut own = sentences.batch();
    let (mut values, mut present, mut rows): (Vec<f32>, Vec<f32>, Vec<i64>) = Default::default();
    for (image, boxes) in images.iter().zip(boxes) {
        for (structure, bounds) in Structure::all().zip(boxes) {
            let sentence = image.sentence(structure);
            values.extend(bounds.map_or([0.0; 4], |b| b.to_center()));
            present.push(if bounds.is_some() && sentence.is_some() { 1.0 } else { 0.0 });
            rows.push(own.number(structure, sentence)?);
        }
    }
    let labels: Vec<f32> = images.iter().flat_map(Seen::labels).collect();
    let tensor = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).reshape(shape).to_device(device);
    let targets = Targets::new(
        tensor(&values, &[batch, STRUCTURE_COUNT as i64, 4]),
        tensor(&present, &[batch, STRUCTURE_COUNT as i64]),
        tensor(&labels, &[batch, -1]),
        &Tensor::from_slice(&rows).to_device(device),
        missing,
    );
    Ok((targets, own.embeddings()?.to_device(device)))
}

/// The stage `apm`.
struct Perception<'a> {
    recipe: &'a Recipe,
    run: &'a Run,
    models: &'a ModelConfig,
    device: Device,
    train: Loader,
    validation: Loader,
    sentences: Option<Embedded>,
    /// The validation images.
    held: Vec<Seen>,
    ahead: Option<Ahead<Option<Seen>>>,
}

/// Trains the module.
///
/// # Errors
/// If data cannot be read, files cannot be written, or the training stops early.
pub fn train(recipe: &Recipe, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = recipe.run_models(&run)?;
    let settings = &recipe.apm;
    let prepared = Prepared::open(&recipe.data)?;
    let database = prepared.sentences()?;
    let index = Arc::new(Index::read(prepared, &[])?);
    let pictures = Arc::new(Pictures::new(models.preprocess(), &recipe.loading));
    let loader = |split, what: &str, most| {
        let mut images = index.annotated(split);
        ensure!(!images.is_empty(), "{} has no {what} images with boxes of structures", index.prepared.folder.display());
        images.truncate(most);
        Ok(Loader { index: index.clone(), pictures: pictures.clone(), images: Arc::new(images) })
    };
    let train = loader(Split::Train, "training", settings.images.unwrap_or(usize::MAX))?;
    let validation = loader(Split::Validate, "validation", VALIDATION_IMAGES)?;

    tch::manual_seed(settings.seed);
    // `from` may hold a part of the module only, such as an image encoder. The other parameters are initialised at random.
    let params = start.from.map_or_else(|| Ok(Params::create(device)), |path| Params::load(path, device).map(Params::open))?;
    let loaded = params.named().len();
    let side = models.apm.image_size;
    let [picture, frozen] = [&[1, 1, side, side][..], &[1, models.text.width]].map(|shape| Tensor::zeros(shape, (Kind::Float, device)));
    let _ = tch::no_grad(|| perceive(&params, &models, &picture, &frozen));
    params.check(start.from.unwrap_or(&run.folder))?;
    if let Some(path) = start.from {
        say(&format!("apm: {loaded} of {} parameters from {}", params.named().len(), path.display()));
    }
    kept::keep(&run, "apm", recipe, settings, &index.hash, start)?;
    let (sentences, held, ahead) = (None, Vec::new(), None);
    let mut stage = Perception { recipe, run: &run, models: &models, device, train, validation, sentences, held, ahead };
    fit(&run, &mut stage, settings, &params, start)?;
    if start.dry_run || !start.peers.is_first() {
        return Ok(());
    }
    if pictures.skipped() > 0 {
        eprintln!("apm: images that cannot be read were skipped {} times", pictures.skipped());
    }
    let sentences: results::Write = &|path| std::fs::write(path, &database).with_context(|| format!("cannot write {}", path.display()));
    let module: results::Write = &|path| Ok(params.save(path, |_| true)?);
    results::put(&run, "apm", &[(run::SENTENCES, sentences), (run::APM, module)])
}

impl Stage for Perception<'_> {
    fn name(&self) -> &'static str {
        "apm"
    }

    fn samples(&self) -> usize {
        self.train.images.len()
    }

    fn sample(&self, index: usize) -> String {
        let image = self.train.images.get(index).and_then(|&number| self.train.index.image(number).ok());
        image.map_or_else(|| format!("image {index}"), |image| image.id)
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

    fn begin(&mut self, order: &Order, steps: Range<u64>, _: Peers) -> Result<()> {
        let all = [self.train.images.as_slice(), self.validation.images.as_slice()].concat();
        self.sentences = Some(Embedded::of(&self.train.index, &all, self.run, self.models, self.device)?);
        let count = self.validation.images.len();
        let mut ahead = self.validation.ahead(self.recipe, self.recipe.apm.batch, 0..count)?;
        self.held = (0..count).filter_map(|at| ahead.take(at).transpose()).collect::<Result<_>>()?;
        ensure!(!self.held.is_empty(), "no validation image can be read");
        self.ahead = Some(self.train.ahead(self.recipe, self.recipe.apm.samples_of_step(), order.clone().of_steps(steps))?);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.ahead.as_ref().map_or(Duration::ZERO, Ahead::waited)
    }

    fn gradients(&mut self, params: &Params, step: &Step) -> Result<Loss> {
        let (Some(ahead), Some(sentences)) = (self.ahead.as_mut(), &self.sentences) else { anyhow::bail!("nothing is loaded") };
        let (mut batch, mut draws): (Vec<Seen>, Vec<_>) = Default::default();
        for taken in step.samples {
            if let Some(seen) = ahead.take(taken.sample)? {
                batch.push(seen);
                draws.push(step.draws.of_sample(taken.sample));
            }
        }
        let mut boxes: Vec<_> = batch.iter().map(Seen::boxes).collect();
        let picture = self.train.pictures.batch(batch.iter().map(|seen| seen.picture.as_slice()))?;
        let picture = tch::no_grad(|| augment(&picture, &mut boxes, &self.recipe.augmentation, &mut draws));
        let (targets, frozen) = targets(&batch, &boxes, sentences, self.recipe.losses.missing, self.device)?;
        let &StageSettings { precision, checkpointing, .. } = &self.recipe.apm;
        let (models, weights, peers) = (self.models, &self.recipe.losses, step.peers);
        let objective = PerceptionObjective { models, weights, precision, checkpointing, peers };
        let PerceptionLoss { parts, total } =
            objective.gradients(params, &picture.to_device(self.device), &frozen, &targets, step.batch)?;
        Ok(Loss { total, parts: PARTS.into_iter().zip(parts).collect() })
    }

    fn validate(&mut self, params: &Params, peers: Peers) -> Result<Option<Validation>> {
        let sentences = self.sentences.as_ref().context("nothing is loaded")?;
        let found = validate(params, self.models, &self.held, &self.validation.pictures, sentences, peers)?;
        let Found { iou, structure_iou, exact, exact_with_finding, labels } = found;
        let figures = vec![("iou", iou), ("exact", exact), ("exact_with_finding", exact_with_finding), ("label_accuracy", labels)];
        Ok(Some(Validation { figures, structure_iou, score: iou + exact_with_finding }))
    }
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

/// Each process takes a share of the images.
fn validate(
    params: &Params,
    models: &ModelConfig,
    images: &[Seen],
    pictures: &Pictures,
    sentences: &Embedded,
    peers: Peers,
) -> Result<Found> {
    // Sums and counts.
    let (mut exact, mut finding, mut correct) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    let mut ious = [[0.0; 2]; STRUCTURE_COUNT];
    let add = |sum: &mut [f64; 2], value: f64| *sum = [sum[0] + value, sum[1] + 1.0];
    let mut known = sentences.batch();
    // A structure's sentence is searched among its own sentences only, as in the sentence database.
    let mut own = vec![BTreeSet::new(); STRUCTURE_COUNT];
    for (structure, own) in Structure::all().zip(&mut own) {
        for sentence in images.iter().filter_map(|image| image.sentence(structure)) {
            own.insert(known.number(structure, Some(sentence))?);
        }
    }
    let frozen = known.embeddings()?.to_device(params.device());
    for batch in peers.share(images).chunks(32) {
        let picture = pictures.batch(batch.iter().map(|seen| seen.picture.as_slice()))?.to_device(params.device());
        let (output, projected) = perceive(params, models, &picture, &frozen);
        let boxes = Vec::<f32>::try_from(output.boxes.0.flatten(0, -1)).unwrap_or_default();
        let scores = losses::normalize(&output.object_embeddings.0.flatten(0, 1)).matmul(&losses::normalize(&projected).tr());
        let logits = Vec::<f32>::try_from(output.image_logits.0.flatten(0, -1)).unwrap_or_default();
        for (i, image) in batch.iter().enumerate() {
            for (structure, target) in Structure::all().zip(image.boxes()) {
                let Some(target) = target else { continue };
                let s = structure.index();
                let at = i * STRUCTURE_COUNT + s;
                let [cx, cy, w, h] = [0, 1, 2, 3].map(|k| boxes[at * 4 + k]);
                add(&mut ious[s], f64::from(NormalizedBox::from_center(cx, cy, w, h).iou(&target)));
                let Some(sentence) = image.sentence(structure) else { continue };
                let row = scores.get(at as i64);
                let best = own[s].iter().copied().max_by(|&a, &b| row.double_value(&[a]).total_cmp(&row.double_value(&[b])));
                let right = f64::from(u8::from(best == Some(known.number(structure, Some(sentence))?)));
                add(&mut exact, right);
                if is_finding(sentence) {
                    add(&mut finding, right);
                }
            }
            let labels = image.labels();
            for (logit, label) in logits[i * LABEL_COUNT..].iter().zip(&labels).filter(|(_, label)| **label >= 0.0) {
                add(&mut correct, f64::from(u8::from((*logit > 0.0) == (*label > 0.5))));
            }
        }
    }
    let mut sums = peers.sum_all(&[&[exact, finding, correct][..], &ious].concat())?.into_iter().map(|[sum, count]| (sum, count));
    let mean = |(sum, count): (f64, f64)| sum / count.max(1.0);
    let [exact, exact_with_finding, labels] = std::array::from_fn(|_| sums.next().map_or(0.0, mean));
    let ious: Vec<(f64, f64)> = sums.collect();
    let iou = mean(ious.iter().fold((0.0, 0.0), |(sum, count), (iou, n)| (sum + iou, count + n)));
    Ok(Found { iou, structure_iou: ious.into_iter().map(mean).collect(), exact, exact_with_finding, labels })
}
