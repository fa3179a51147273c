//! Training of the language model: the base model if none is imported, alignment (the paper's step 2), instruction tuning (step 3).
//!
//! In base training, contexts are text only, with annotated boxes and sentences. In alignment and instruction tuning they come from the
//! frozen perception module.

use super::checkpoint::Start;
use super::config::{LanguageStage, Recipe};
use super::fit::{Loss, Stage, Step, Validation, fit};
use super::kept;
use super::language_data::{Features, Loaded, Loader, price};
use super::objective::{LanguageObjective, is_base};
use super::order::{Draws, Order};
use super::packing::{self, Packs, Part};
use super::perception_outputs::{self, Outputs, Perceiver, Sizes, features};
use super::questions::{Asked, looks_up};
use super::results;
use super::settings::StageSettings;
use super::small_models::initialise_copying;
use crate::data::loading::ahead::Ahead;
use crate::data::loading::index::Index;
use crate::data::loading::pictures::Pictures;
use crate::data::loading::prepared::Prepared;
use crate::data::loading::settings::Perceived;
use crate::data::packs::{self, Pack};
use crate::data::sources::split::Split;
use crate::distributed::Peers;
use crate::graph::Params;
use crate::models::gemma::HEAD;
use crate::progress::say;
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::geometry::PROMPT_GRID;
use anatomix::parts::prompt::{ContextLine, PromptTokenizer};
use anatomix::{PromptForm, Structure};
use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Number of validation images that are evaluated with each checkpoint.
const VALIDATION_IMAGES: usize = 48;
/// Seed of the validation's packs.
const VALIDATION_SEED: i64 = 0x5eed;

mod drawing;

/// Runs a training stage of the language model.
///
/// # Errors
/// If data or files of earlier stages cannot be read, files cannot be written, or the training stops early.
pub fn train(recipe: &Recipe, stage: LanguageStage, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = recipe.run_models(&run)?;
    let settings = stage.settings(recipe);
    let inputs = models.prompt.inputs;
    ensure!(
        stage != LanguageStage::Align || inputs.image_tokens || inputs.object_embeddings,
        "the prompt has neither image tokens nor object embeddings (inputs = \"{inputs}\"), so that there is nothing to align; go on with \
         `train instruct`"
    );
    if !start.dry_run {
        run.write_models(&models)?;
    }
    let tokenizer = PromptTokenizer::open(&run.file(run::TOKENIZER))?;
    let index = Arc::new(Index::read(Prepared::open(&recipe.data)?, &[Split::Train, Split::Validate])?);
    let pictures = Arc::new(Pictures::new(models.preprocess(), &recipe.loading));
    let sizes = Sizes::of(&models);
    let found = match (stage, recipe.loading.perceived) {
        (LanguageStage::Base, _) => Features::None,
        (_, Perceived::Step) => Features::Computed,
        // A dry run needs no store, and the perception module may not be there yet.
        (_, Perceived::Cache) if start.dry_run => Features::Computed,
        (_, Perceived::Cache) => Features::Stored(perception_outputs::store(&run, &models, recipe.loading.cache.as_deref())?),
    };
    let loader = |split, most| Loader::new((&index, &pictures), (stage, split), found.clone(), sizes, most);
    let (train, validation) = (loader(Split::Train, settings.images.unwrap_or(usize::MAX))?, loader(Split::Validate, VALIDATION_IMAGES)?);
    if stage != LanguageStage::Base {
        say(&format!("{}: {}", stage.name(), price(recipe.loading.perceived, &sizes, train.len() + validation.len())));
    }

    tch::manual_seed(settings.seed);
    let objective = LanguageObjective::new(&models, stage, settings);
    let packs = match stage {
        LanguageStage::Instruct => {
            let looks_up = looks_up(stage, models.prompt.inputs, settings.grounding_boxes);
            let counts = || train.counts(move |task| packing::is_usable(task, looks_up));
            let packs = Packs::new(counts(), packing::own_questions(settings, looks_up));
            let samples: usize = counts().sum();
            say(&format!("instruct: {samples} questions on {} images, in {} packs", train.len(), packs.len()));
            packs
        }
        _ => Packs::one_each(train.len()),
    };
    let perception = Perception { features: found, sizes, perceiver: None, sentences: Vec::new() };
    let (held, ahead) = (Vec::new(), None);
    let mut trainer = Trainer {
        recipe,
        run: &run,
        models: &models,
        stage,
        objective,
        settings,
        tokenizer: &tokenizer,
        device,
        train,
        packs,
        validation,
        perception,
        held,
        ahead,
    };
    let params = trainer.start(start)?;
    kept::keep(&run, stage.name(), recipe, settings, &index.hash, start)?;
    fit(&run, &mut trainer, settings, &params, start)?;
    if start.dry_run || !start.peers.is_first() {
        return Ok(());
    }
    if pictures.skipped() > 0 {
        eprintln!("{}: images that cannot be read were skipped {} times", stage.name(), pictures.skipped());
    }
    let save: results::Write = &|path| Ok(params.save(path, |name| stage == LanguageStage::Base || trainer.keeps(name))?);
    match stage {
        LanguageStage::Base => results::put(&run, stage.name(), &[(run::LANGUAGE, save)]),
        LanguageStage::Align => results::put(&run, stage.name(), &[(run::ADAPTER, save), (run::ALIGNED, save)]),
        LanguageStage::Instruct => results::put(&run, stage.name(), &[(run::ADAPTER, save)]),
    }
}

/// The frozen perception module as the stages `align` and `instruct` use it.
struct Perception {
    features: Features,
    sizes: Sizes,
    /// The module, if it is needed in each step.
    perceiver: Option<Perceiver>,
    /// The run's sentences.
    sentences: Vec<Vec<String>>,
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    run: &'a Run,
    models: &'a ModelConfig,
    stage: LanguageStage,
    objective: LanguageObjective<'a>,
    settings: &'a StageSettings,
    tokenizer: &'a PromptTokenizer,
    device: Device,
    train: Loader,
    /// The packs of the training images.
    packs: Packs,
    validation: Loader,
    perception: Perception,
    /// The validation images.
    held: Vec<Loaded>,
    ahead: Option<Ahead<Option<Loaded>>>,
}

/// The loss of a batch, and the shares of its targets that have the largest logit: of all targets, and of coordinates.
struct Computed {
    loss: f64,
    right: f64,
    coordinates: f64,
}

/// What is drawn for an image: whether it is mirrored, the lines of its context and their form, and the questions.
struct Drawn {
    flip: bool,
    lines: Vec<ContextLine>,
    form: PromptForm,
    questions: Vec<Asked>,
}

impl Stage for Trainer<'_> {
    fn name(&self) -> &'static str {
        self.stage.name()
    }

    /// An epoch takes each pack once.
    fn samples(&self) -> usize {
        self.packs.len()
    }

    fn sample(&self, index: usize) -> String {
        self.train.name(self.packs.part(index).image)
    }

    fn trains(&self, name: &str) -> bool {
        self.objective.trains(name)
    }

    /// The base model is in a file of the run; what is trained of it is kept.
    fn keeps(&self, name: &str) -> bool {
        !is_base(name) || self.objective.trains(name)
    }

    fn begin(&mut self, order: &Order, steps: Range<u64>, peers: Peers) -> Result<()> {
        let loading = &self.recipe.loading;
        let load = || Perceiver::load(self.run, self.models, self.device);
        match &self.perception.features {
            Features::None => {}
            Features::Computed => self.perception.perceiver = Some(load()?),
            Features::Stored(_) => {
                let mut perceiver = None;
                for images in [&self.train, &self.validation] {
                    // Each process perceives a share, once all have seen what is missing.
                    let all = images.missing()?;
                    peers.meet()?;
                    let missing = peers.share(&all).to_vec();
                    if !missing.is_empty() {
                        let perceiver = match &mut perceiver {
                            Some(loaded) => loaded,
                            none => none.insert(load()?),
                        };
                        images.perceive(missing, perceiver, loading)?;
                    }
                    peers.meet()?;
                }
            }
        }
        if self.stage != LanguageStage::Base {
            self.perception.sentences = perception_outputs::sentences(self.run)?;
        }
        self.held = self.validation.whole(self.perception.perceiver.as_ref(), loading)?;
        if self.stage == LanguageStage::Instruct {
            let looks_up = self.looks_up();
            for (image, loaded) in self.held.iter_mut().enumerate() {
                // The first pack of each image, as an epoch has it.
                let usable = loaded.samples.iter().filter(|sample| packing::is_usable(sample.task, looks_up)).count();
                let part = Part { image, ..Packs::new([usable].into_iter(), packing::own_questions(self.settings, looks_up)).part(0) };
                packing::keep(&mut loaded.samples, part, looks_up, VALIDATION_SEED, 0);
            }
        }
        let first = self.held.first().context("no validation image can be read")?;
        let (name, inputs, tokens) = (self.stage.name(), self.models.prompt.inputs, self.context_tokens(first)?);
        let compact = if self.models.prompt.compact { ", compact" } else { "" };
        say(&format!("{name}: a context takes {tokens} tokens (inputs {inputs}{compact})"));
        let packs = self.packs.clone();
        let order = order.clone().of_steps(steps).map(move |pack| packs.part(pack).image);
        self.ahead = Some(self.train.ahead(loading, self.settings.samples_of_step(), order)?);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.ahead.as_ref().map_or(Duration::ZERO, Ahead::waited)
    }

    fn gradients(&mut self, params: &Params, step: &Step) -> Result<Loss> {
        let ahead = self.ahead.as_mut().context("nothing is loaded")?;
        let (mut loaded, mut draws): (Vec<Loaded>, Vec<_>) = Default::default();
        let looks_up = looks_up(self.stage, self.models.prompt.inputs, self.settings.grounding_boxes);
        for taken in step.samples {
            let part = self.packs.part(taken.sample);
            if let Some(mut one) = ahead.take(part.image)? {
                if self.stage == LanguageStage::Instruct {
                    packing::keep(&mut one.samples, part, looks_up, self.settings.seed, taken.epoch);
                }
                loaded.push(one);
                draws.push(step.draws.of_sample(taken.sample));
            }
        }
        ensure!(!loaded.is_empty(), "no image of the batch can be read");
        let Computed { loss, right, coordinates } = self.compute(params, &loaded, draws, step, true)?;
        Ok(Loss { total: loss, parts: vec![("accuracy", right), ("coordinates", coordinates)] })
    }

    /// Each process takes a share of the batches.
    fn validate(&mut self, params: &Params, peers: Peers) -> Result<Option<Validation>> {
        let numbers = Draws::new(VALIDATION_SEED, 0);
        let (mut sums, mut count) = ([0.0; 3], 0.0);
        let batches: Vec<(usize, &[Loaded])> = self.held.chunks(self.settings.batch).enumerate().collect();
        for &(number, loaded) in peers.share(&batches) {
            let first = number * self.settings.batch;
            let draws = (first..first + loaded.len()).map(|at| numbers.of_sample(at)).collect();
            let step = Step { done: 1.0, samples: &[], draws: numbers.clone(), peers: Peers::alone(), batch: self.settings.batch };
            let Computed { loss, right, coordinates } = self.compute(params, loaded, draws, &step, false)?;
            let weight = loaded.len() as f64;
            sums.iter_mut().zip([loss, right, coordinates]).for_each(|(sum, value)| *sum += weight * value);
            count += weight;
        }
        let [loss, right, coordinates] = sums;
        let [loss, right, coordinates, count] = peers.sums([loss, right, coordinates, count])?;
        let [loss, right, coordinates] = [loss, right, coordinates].map(|sum| sum / count);
        let figures = vec![("loss", loss), ("accuracy", right), ("coordinates", coordinates)];
        Ok(Some(Validation { figures, score: -loss, ..Validation::default() }))
    }
}

impl Trainer<'_> {
    /// The loss of the images of a step, the weighted mean over all their targets; in training its gradients are added to the parameters'.
    /// `draws` are the random numbers of each image.
    fn compute(&self, params: &Params, loaded: &[Loaded], mut draws: Vec<ChaCha8Rng>, step: &Step, training: bool) -> Result<Computed> {
        let done = step.done;
        let mut batches = Vec::new();
        for (loaded, draws) in loaded.chunks(step.batch).zip(draws.chunks_mut(step.batch)) {
            let (mut flips, mut outputs) = (Vec::new(), None);
            if self.stage != LanguageStage::Base {
                // What is drawn does not depend on what is perceived, so the flips are known before.
                let flip = |(one, rng): (_, &ChaCha8Rng)| self.draw(one, Some(blank_lines()), done, &mut rng.clone()).flip;
                flips.extend(loaded.iter().zip(&*draws).map(flip));
                outputs = Some(self.train.outputs(loaded, &flips, self.perception.perceiver.as_ref())?);
            }
            let mut packs = Vec::new();
            for (at, (one, rng)) in loaded.iter().zip(draws).enumerate() {
                let own = outputs.as_ref().and_then(|outputs| outputs.get(at));
                let lines = own.map(|outputs| outputs.lines(&self.perception.sentences)).transpose()?;
                let drawn = self.draw(one, lines, done, rng);
                ensure!(
                    flips.get(at).is_none_or(|&flip| flip == drawn.flip),
                    "{} is mirrored in its texts or its features only",
                    one.image.id
                );
                let pack = self.pack(&drawn, self.is_short(done));
                packs.push(pack.with_context(|| format!("cannot train on the samples of {}", one.image.id))?);
            }
            batches.push((packs, outputs));
        }
        let total = batches.iter().flat_map(|(packs, _)| packs).map(|pack| pack.weight(self.settings.answer_weights)).sum();
        let [total] = step.peers.sums([total])?;
        let (mut loss, mut counts) = (0.0, [0.0; 4]);
        for (packs, outputs) in batches {
            let visual = outputs.map(|outputs| self.visual(params, &outputs, training)).transpose()?;
            let (part, found) = self.loss_of(params, &packs, visual.as_ref(), total, training);
            loss += part;
            counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
        }
        let [targets, right, coordinates, right_coordinates] = counts;
        let [loss, targets, right, coordinates, right_coordinates] =
            step.peers.sums([loss, targets, right, coordinates, right_coordinates])?;
        Ok(Computed { loss, right: right / targets, coordinates: right_coordinates / coordinates.max(1.0) })
    }

    /// The loss of a batch among those whose targets have the weight `total`, and its numbers of targets, of those with the largest logit,
    /// of coordinates, and of coordinates with the largest logit.
    fn loss_of(&self, params: &Params, packs: &[Pack], visual: Option<&Tensor>, total: f64, training: bool) -> (f64, [f64; 4]) {
        let (batch, targets, weights) = packs::batch(packs, visual, self.settings.answer_weights, self.device);
        let (loss, logits) = if training {
            self.objective.gradients(params, &batch, &targets, &weights, total)
        } else {
            self.objective.loss(params, &batch, &targets, &weights, total)
        };
        let right = logits.argmax(-1, false).eq_tensor(&targets).to_kind(Kind::Float);
        let is_coordinate = self.coordinates(&targets);
        let sum = |x: &Tensor| x.sum(Kind::Double).double_value(&[]);
        let counts = [targets.numel() as f64, sum(&right), sum(&is_coordinate), sum(&(&right * &is_coordinate))];
        (loss.double_value(&[]), counts)
    }

    /// Loads the parameters of earlier training stages and creates those that this one adds.
    fn start(&self, start: Start) -> Result<Params> {
        let (run, from) = (self.run, start.from);
        let params = match self.stage {
            LanguageStage::Base => from.map_or_else(|| Ok(Params::create(self.device)), |path| Params::load(path, self.device))?,
            _ => {
                let base = run.file(run::LANGUAGE);
                let params = Params::load(&base, self.device)
                    .with_context(|| format!("there is no base model {}; run `train language` or import one first", base.display()))?
                    .open();
                ensure!(
                    self.stage != LanguageStage::Align || self.models.language.tie_word_embeddings || params.get(HEAD).is_some(),
                    "the fine-tuned part of this run has an output layer of its own, which alignment would lose; use `train instruct`"
                );
                let aligned = match (from, self.stage) {
                    (None, LanguageStage::Instruct) => {
                        let found = results::start_of_instruct(run, start.peers.is_first() && !start.dry_run)?;
                        if found.is_none() {
                            say("instruct: there is nothing that `train align` made, so the projectors begin at random");
                        }
                        found
                    }
                    _ => None,
                };
                if let Some(adapter) = from.or(aligned.as_deref()) {
                    Params::load(adapter, self.device)?.named().into_iter().for_each(|(name, tensor)| params.insert(&name, tensor));
                }
                params
            }
        };
        self.objective.separate_head(&params);
        // Running the model once creates the parameters that are missing. Their shapes do not depend on the data.
        let form = self.models.prompt.form();
        let drawn = Drawn { flip: false, lines: blank_lines(), form, questions: vec![Asked::alone("Where?".into(), "Here.".into())] };
        let _guard = tch::no_grad_guard();
        let blank = (self.stage != LanguageStage::Base).then(|| Outputs::zeros(&self.perception.sizes));
        let visual = blank.map(|blank| self.visual(&params, &[blank], false)).transpose()?;
        let _ = self.loss_of(&params, &[self.pack(&drawn, false)?], visual.as_ref(), 1.0, false);
        if self.stage == LanguageStage::Base && from.is_none() {
            initialise_copying(&self.models.language, &params);
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

    /// Visual features `[B, P + 36, hidden]` of outputs of the perception module.
    fn visual(&self, params: &Params, outputs: &[Outputs], training: bool) -> Result<Tensor> {
        let (tokens, objects) = features(&outputs.iter().collect::<Vec<_>>(), &self.perception.sizes, self.device)?;
        Ok(self.objective.visual(params, tokens, objects, training))
    }
}

/// Lines of a context without boxes and sentences.
fn blank_lines() -> Vec<ContextLine> {
    let line = |structure: Structure| ContextLine { structure, grid: [0; 4], sentence: structure.name().into() };
    Structure::all().map(line).collect()
}
