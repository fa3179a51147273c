//! Training of the language model: the base model if none is imported, alignment (the paper's step 2), instruction tuning (step 3).
//!
//! In base training, contexts are text only, with annotated boxes and sentences. In alignment and instruction tuning they come from the
//! frozen perception module.

use super::checkpoint::Start;
use super::config::{LanguageStage, Recipe};
use super::fit::{Loss, Stage, Step, Validation, fit};
use super::objective::{LanguageObjective, is_base};
use super::perception_outputs::PerceptionOutputs;
use super::settings::StageSettings;
use super::small_models::{self, look_up, look_up_box};
use crate::data::imagenome::{self, Annotated};
use crate::data::instruct;
use crate::data::packs::{self, Pack};
use crate::graph::Params;
use crate::models::gemma::HEAD;
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::geometry::PROMPT_GRID;
use anatomix::parts::prompt::{ContextLine, PromptTokenizer};
use anatomix::{NormalizedBox, Structure, Task};
use anatomix_phantom::tasks::Sample;
use anyhow::{Context, Result, ensure};
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Probability in the stage `instruct` that the sentences of a context are replaced by the structures' names, as published.
const NAMES_ONLY: f64 = 0.1;
/// Number of look-up questions in each pack in the stage `instruct`.
const LOOK_UPS: usize = 3;
/// Number of validation images that are evaluated with each checkpoint.
const VALIDATION_IMAGES: usize = 48;
/// Seed of the validation's packs.
const VALIDATION_SEED: u64 = 0x5eed;

/// An image with its instruction samples.
struct Source {
    image: Annotated,
    samples: Vec<Sample>,
}

/// Images of a split, and what the perception module gives for them (not in base training).
struct Sources {
    images: Vec<Source>,
    perceived: Option<PerceptionOutputs>,
}

/// Runs a training stage of the language model.
///
/// # Errors
/// If data or files of earlier stages cannot be read, files cannot be written, or the training stops early.
pub fn train(recipe: &Recipe, stage: LanguageStage, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = recipe.run_models(&run)?;
    let settings = stage.settings(recipe);
    let tokenizer = PromptTokenizer::open(&run.file(run::TOKENIZER))?;
    let mut samples = instruct::read(&recipe.data.join("instruct.jsonl"))?;
    let mut read = |split: &str, most: usize| {
        let images = imagenome::read(&recipe.data, |of| of == split)?;
        let sources = images.into_iter().filter_map(|image| Some(Source { samples: samples.remove(&image.id)?, image }));
        let usable = |source: &Source| stage != LanguageStage::Align || source.samples.iter().any(is_report);
        let images: Vec<Source> = sources.filter(usable).take(most).collect();
        let what = if stage == LanguageStage::Align { "a report" } else { "instruction samples" };
        ensure!(!images.is_empty(), "{} has no images of the split {split} with {what}", recipe.data.display());
        let perceived = match stage {
            LanguageStage::Base => None,
            _ => Some(PerceptionOutputs::load(&run, &models, images.iter().map(|s| &s.image), device)?),
        };
        anyhow::Ok(Sources { images, perceived })
    };
    let (train, validation) = (read("train", settings.images.unwrap_or(usize::MAX))?, read("validate", VALIDATION_IMAGES)?);

    tch::manual_seed(settings.seed);
    let objective = LanguageObjective { models: &models, stage, full: settings.full };
    let mut trainer = Trainer { models: &models, stage, objective, settings, tokenizer: &tokenizer, device, train, validation };
    let params = trainer.start(&run, start.from)?;
    fit(&run, &mut trainer, settings, &params, start)?;
    if start.dry_run {
        return Ok(());
    }
    let (name, whole) = match stage {
        LanguageStage::Base => (run::LANGUAGE, true),
        _ => (run::ADAPTER, false),
    };
    Ok(params.save(&run.file(name), |name| whole || trainer.keeps(name))?)
}

fn is_report(sample: &Sample) -> bool {
    sample.task == Task::Report
}

struct Trainer<'a> {
    models: &'a ModelConfig,
    stage: LanguageStage,
    objective: LanguageObjective<'a>,
    settings: &'a StageSettings,
    tokenizer: &'a PromptTokenizer,
    device: Device,
    train: Sources,
    validation: Sources,
}

/// The loss of a batch, and the shares of its targets that have the largest logit: of all targets, and of coordinates.
struct Computed {
    loss: Tensor,
    right: f64,
    coordinates: f64,
}

impl Stage for Trainer<'_> {
    fn name(&self) -> &'static str {
        self.stage.name()
    }

    fn samples(&self) -> usize {
        self.train.images.len()
    }

    fn sample(&self, index: usize) -> String {
        self.train.images[index].image.id.clone()
    }

    fn trains(&self, name: &str) -> bool {
        self.objective.trains(name)
    }

    /// The base model is in a file of the run; what is trained of it is kept.
    fn keeps(&self, name: &str) -> bool {
        !is_base(name) || self.objective.trains(name)
    }

    fn loss(&mut self, params: &Params, step: &Step, rng: &mut ChaCha8Rng) -> Result<Loss> {
        let Computed { loss, right, coordinates } = self.compute(params, &self.train, step, true, rng)?;
        Ok(Loss { total: loss, parts: vec![("accuracy", right), ("coordinates", coordinates)] })
    }

    fn validate(&mut self, params: &Params) -> Result<Option<Validation>> {
        let mut rng = ChaCha8Rng::seed_from_u64(VALIDATION_SEED);
        let images: Vec<usize> = (0..self.validation.images.len()).collect();
        let (mut sums, mut count) = ([0.0; 3], 0.0);
        for samples in images.chunks(self.settings.batch) {
            let step = Step { done: 1.0, samples };
            let Computed { loss, right, coordinates } = self.compute(params, &self.validation, &step, false, &mut rng)?;
            let weight = samples.len() as f64;
            sums.iter_mut().zip([loss.double_value(&[]), right, coordinates]).for_each(|(sum, value)| *sum += weight * value);
            count += weight;
        }
        let [loss, right, coordinates] = sums.map(|sum| sum / count);
        let figures = vec![("loss", loss), ("accuracy", right), ("coordinates", coordinates)];
        Ok(Some(Validation { figures, score: -loss, ..Validation::default() }))
    }
}

impl Trainer<'_> {
    fn compute(&self, params: &Params, of: &Sources, step: &Step, training: bool, rng: &mut ChaCha8Rng) -> Result<Computed> {
        let (packs, flips) = self.packs(of, step, rng)?;
        let visual = of.perceived.as_ref().map(|perceived| self.visual(params, perceived, step.samples, &flips, training));
        let (batch, targets, weights) = packs::batch(&packs, visual.as_ref(), self.settings.answer_weights, self.device);
        let (loss, logits) = self.objective.loss(params, &batch, &targets, &weights, training);
        let right = logits.argmax(-1, false).eq_tensor(&targets).to_kind(Kind::Float);
        let is_coordinate = self.coordinates(&targets);
        let coordinates = (&right * &is_coordinate).sum(Kind::Float) / is_coordinate.sum(Kind::Float).clamp_min(1.0);
        Ok(Computed { loss, right: right.mean(Kind::Float).double_value(&[]), coordinates: coordinates.double_value(&[]) })
    }

    /// Loads the parameters of earlier training stages and creates those that this one adds.
    fn start(&self, run: &Run, from: Option<&Path>) -> Result<Params> {
        let params = match self.stage {
            LanguageStage::Base => from.map_or_else(|| Ok(Params::create(self.device)), |path| Params::load(path, self.device))?,
            _ => {
                let base = run.file(run::LANGUAGE);
                let params = Params::load(&base, self.device)
                    .with_context(|| format!("there is no base model {}; run `train language` or import one first", base.display()))?
                    .open();
                anyhow::ensure!(
                    self.stage != LanguageStage::Align || self.models.language.tie_word_embeddings || params.get(HEAD).is_some(),
                    "the fine-tuned part of this run has an output layer of its own, which alignment would lose; use `train instruct`"
                );
                let aligned = run.file(run::ADAPTER);
                let adapter = from.unwrap_or(&aligned);
                if from.is_some() || self.stage == LanguageStage::Instruct && adapter.exists() {
                    Params::load(adapter, self.device)?.named().into_iter().for_each(|(name, tensor)| params.insert(&name, tensor));
                }
                params
            }
        };
        // Running the model once creates the parameters that are missing.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let first = Step { done: 0.0, samples: &[0] };
        let _ = tch::no_grad(|| self.compute(&params, &self.train, &first, false, &mut rng))?;
        if self.stage == LanguageStage::Base && from.is_none() {
            small_models::initialise_copying(&self.models.language, &params);
        }
        params.check(from.unwrap_or(&run.folder))?;
        Ok(params)
    }

    /// For each target 1 if it is a number of the prompt's grid, otherwise 0.
    fn coordinates(&self, targets: &Tensor) -> Tensor {
        let id = |number: u32| self.tokenizer.id(&number.to_string()).map(i64::from);
        let (Some(first), Some(last)) = (id(0), id(PROMPT_GRID)) else { return targets.zeros_like().to_kind(Kind::Float) };
        targets.ge(first).logical_and(&targets.le(last)).to_kind(Kind::Float)
    }

    /// Visual features `[B, P + 36, hidden]` of the chosen images.
    fn visual(&self, params: &Params, perceived: &PerceptionOutputs, chosen: &[usize], flips: &[bool], training: bool) -> Tensor {
        let (tokens, objects) = perceived.features(chosen, flips, self.device);
        self.objective.visual(params, tokens, objects, training)
    }

    /// The packs of a batch, and which of its images are mirrored.
    fn packs(&self, of: &Sources, step: &Step, rng: &mut ChaCha8Rng) -> Result<(Vec<Pack>, Vec<bool>)> {
        let patches = self.models.apm.patches() as usize;
        let mut packs = Vec::new();
        let mut flips = Vec::new();
        for &at in step.samples {
            let source = &of.images[at];
            let flip = rng.random_bool(0.3);
            flips.push(flip);
            let mut lines = match &of.perceived {
                Some(perceived) => perceived.lines(at, flip),
                None => annotated_lines(&source.image, flip, rng),
            };
            let short = self.stage == LanguageStage::Base && step.done < self.settings.short_contexts;
            let mut questions = Vec::new();
            match self.stage {
                LanguageStage::Align => questions.extend(source.samples.iter().filter(|s| is_report(s)).cloned()),
                _ => {
                    // In base training most questions are look-ups; in instruction tuning most are samples of the tasks.
                    let (from_data, total) = match self.stage {
                        LanguageStage::Base if short => (3, 2 * self.settings.questions),
                        LanguageStage::Base => (self.settings.questions.div_ceil(2), self.settings.questions),
                        _ => (self.settings.questions.saturating_sub(LOOK_UPS), self.settings.questions),
                    };
                    questions.extend(choose(&source.samples, from_data, rng).into_iter().map(|s| if flip { mirror(s) } else { s }));
                    if short {
                        small_models::shorten(&mut lines, &source.image, rng);
                    }
                    // Retrieved sentences may be wrong, so that instruction tuning looks up boxes only.
                    let look_up = if self.stage == LanguageStage::Base { look_up } else { look_up_box };
                    while questions.len() < total {
                        questions.push(look_up(&lines, rng));
                    }
                }
            }
            questions.shuffle(rng);
            if self.stage == LanguageStage::Instruct && rng.random_bool(NAMES_ONLY) {
                for line in &mut lines {
                    line.sentence = line.structure.name().into();
                }
            }
            let pairs = questions.iter().map(|s| (s.question.as_str(), s.answer.as_str()));
            let patches = if short { 0 } else { patches };
            packs.push(Pack::new(self.tokenizer, &lines, patches, pairs)?);
        }
        Ok((packs, flips))
    }
}

/// Random samples of an image, without questions for a structure's box. Look-ups ask for the box in the context instead, because a target
/// that differs from the perceived box would teach an answer between the two.
fn choose(samples: &[Sample], count: usize, rng: &mut impl Rng) -> Vec<Sample> {
    samples.iter().filter(|s| s.task != Task::AnatomyGrounding).sample(rng, count).into_iter().cloned().collect()
}

fn mirror(sample: Sample) -> Sample {
    Sample { question: instruct::mirror_text(&sample.question), answer: instruct::mirror_text(&sample.answer), ..sample }
}

/// Context lines from the annotations. A structure without a box gets a random one, because the perception module gives a box for each
/// structure, too.
fn annotated_lines(image: &Annotated, flip: bool, rng: &mut impl Rng) -> Vec<ContextLine> {
    let lines = Structure::all().map(|structure| {
        let mut bounds = image.boxes[structure.index()].unwrap_or_else(|| {
            let (x, y) = (rng.random_range(0.0..0.9), rng.random_range(0.0..0.9));
            NormalizedBox::new(x, y, x + 0.1, y + 0.1)
        });
        if flip {
            bounds = NormalizedBox::new(1.0 - bounds.x1, bounds.y0, 1.0 - bounds.x0, bounds.y1);
        }
        ContextLine { structure, grid: bounds.to_grid(), sentence: image.sentences[structure.index()].clone() }
    });
    lines.collect()
}
