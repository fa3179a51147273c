//! Training of the language model: the base model if none is imported, alignment (stage 2), instruction tuning (stage 3).
//!
//! In base training, contexts are text only, with annotated boxes and sentences. In alignment and instruction tuning they come from the
//! frozen perception module.

use super::checkpoint::{Checkpoint, Start};
use super::config::{LanguageStage, Recipe, StageSettings};
use super::objective::{LanguageObjective, is_base};
use super::perception_outputs::PerceptionOutputs;
use super::progress;
use crate::data::imagenome::{self, Annotated};
use crate::data::instruct;
use crate::data::packs::{self, Pack};
use crate::graph::Params;
use crate::graph::adamw::AdamW;
use crate::models::gemma::{EMBEDDING, HEAD};
use crate::run::{self, ModelConfig, Run};
use anatomix::parts::geometry::PROMPT_GRID;
use anatomix::parts::prompt::{ContextLine, PromptTokenizer};
use anatomix::parts::retrieval::is_finding;
use anatomix::{NormalizedBox, Structure, Task};
use anatomix_phantom::tasks::{self, Sample};
use anyhow::{Context, Result};
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::Path;
use tch::{Device, Tensor};

/// Probability in stage 3 that the sentences of a context are replaced by the structures' names, as published.
const NAMES_ONLY: f64 = 0.1;
/// Number of look-up questions in each pack in stage 3.
const LOOK_UPS: usize = 3;
/// Initial scale of the norms at the end of the base model's residual branches.
const BRANCH_SCALE: f64 = 0.3;

/// An image with its instruction samples.
struct Source {
    image: Annotated,
    samples: Vec<Sample>,
}

/// Runs a training stage of the language model.
///
/// # Errors
/// If data or files of earlier stages cannot be read, files cannot be written, or gradients are not finite.
pub fn train(recipe: &Recipe, stage: LanguageStage, device: Device, start: Start) -> Result<()> {
    let run = Run::create(&recipe.run)?;
    let models = run.models()?;
    let settings = stage.settings(recipe);
    let tokenizer = PromptTokenizer::open(&run.file(run::TOKENIZER))?;
    let mut samples = instruct::read(&recipe.data.join("instruct.jsonl"))?;
    let images = imagenome::read(&recipe.data, |split| split == "train")?;
    let sources: Vec<Source> = images
        .into_iter()
        .filter_map(|image| Some(Source { samples: samples.remove(&image.id)?, image }))
        .take(settings.images.unwrap_or(usize::MAX))
        .collect();
    anyhow::ensure!(!sources.is_empty(), "{} has no training images with instruction samples", recipe.data.display());
    let perceived = match stage {
        LanguageStage::Base => None,
        _ => Some(PerceptionOutputs::load(&run, &models, sources.iter().map(|s| &s.image), device)?),
    };

    tch::manual_seed(settings.seed);
    let objective = LanguageObjective { models: &models, stage, full: settings.full };
    let trainer = Trainer { models: &models, stage, objective, settings, tokenizer: &tokenizer, device };
    let checkpoint = Checkpoint::new(&run, stage.name());
    let previous = if start.resume { checkpoint.load(device)? } else { None };
    let (params, first) = match previous {
        Some(previous) => previous,
        None => (trainer.start(&run, start.from, &sources, perceived.as_ref())?, 0),
    };
    params.train(|name| trainer.objective.trains(name));
    let mut optimiser = AdamW::new(&params, settings.optimiser(), |_| 1.0);
    if first > 0 {
        checkpoint.load_optimiser(&mut optimiser)?;
    }
    eprintln!("{}: {} images, {} parameters", stage.name(), sources.len(), optimiser.parameters());

    let bar = progress::bar(settings.steps, stage.name());
    bar.set_position(first);
    let mut means = [0.0; 3];
    for step in first..settings.steps {
        // All randomness follows from the seed and the step, so that a resumed training gives the same parameters.
        let mut rng = ChaCha8Rng::seed_from_u64((settings.seed as u64).wrapping_mul(31).wrapping_add(step));
        tch::manual_seed(rng.random_range(0..i64::MAX));
        let chosen: Vec<usize> = (0..settings.batch).map(|_| rng.random_range(0..sources.len())).collect();
        let done = step as f64 / settings.steps as f64;
        let (packs, flips) = trainer.packs(&sources, &chosen, perceived.as_ref(), done, &mut rng)?;
        let visual = perceived.as_ref().map(|p| trainer.visual(&params, p, &chosen, &flips, true));
        let (batch, targets, weights) = packs::batch(&packs, visual.as_ref(), device);
        let (loss, logits) = trainer.objective.loss(&params, &batch, &targets, &weights);
        let norm = optimiser.step(&loss, settings.rate_at(step));
        anyhow::ensure!(norm.is_finite(), "the gradients of step {step} are not finite; lower the learning rate and resume");
        let right = logits.argmax(-1, false).eq_tensor(&targets).to_kind(tch::Kind::Float);
        let is_coordinate = trainer.coordinates(&targets);
        let coordinates = (&right * &is_coordinate).sum(tch::Kind::Float) / is_coordinate.sum(tch::Kind::Float).clamp_min(1.0);
        let values = [loss.double_value(&[]), right.mean(tch::Kind::Float).double_value(&[]), coordinates.double_value(&[])];
        for (mean, value) in means.iter_mut().zip(values) {
            *mean += if step == first { value } else { 0.02 * (value - *mean) };
        }
        bar.set_message(format!("loss {:.3} tokens right {:.3} coordinates right {:.3}", means[0], means[1], means[2]));
        bar.inc(1);
        if (step + 1) % settings.checkpoint_every == 0 || step + 1 == settings.steps {
            checkpoint.save(&params, &optimiser, step + 1)?;
            let line =
                json!({ "step": step + 1, "loss": means[0], "accuracy": means[1], "coordinates": means[2], "tokens": targets.size()[0] });
            bar.suspend(|| eprintln!("{line}"));
            checkpoint.log(&line)?;
        }
    }
    bar.finish_and_clear();
    match stage {
        LanguageStage::Base => params.save(&run.file(run::LANGUAGE), |_| true)?,
        _ => params
            .save(&run.file(run::ADAPTER), |name| !is_base(name) || (stage == LanguageStage::Instruct && trainer.objective.trains(name)))?,
    }
    Ok(())
}

struct Trainer<'a> {
    models: &'a ModelConfig,
    stage: LanguageStage,
    objective: LanguageObjective<'a>,
    settings: &'a StageSettings,
    tokenizer: &'a PromptTokenizer,
    device: Device,
}

impl Trainer<'_> {
    /// Loads the parameters of earlier training stages and creates those that this one adds.
    fn start(&self, run: &Run, from: Option<&Path>, sources: &[Source], perceived: Option<&PerceptionOutputs>) -> Result<Params> {
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
        let (packs, flips) = self.packs(&sources[..1], &[0], perceived, 0.0, &mut rng)?;
        let _guard = tch::no_grad_guard();
        let visual = perceived.map(|p| self.visual(&params, p, &[0], &flips, false));
        let (batch, ..) = packs::batch(&packs, visual.as_ref(), self.device);
        let _ = self.objective.logits(&params, &batch, false);
        if self.stage == LanguageStage::Base && from.is_none() {
            self.initialise_copying(&params);
        }
        params.check(from.unwrap_or(&run.folder))?;
        Ok(params)
    }

    /// Initialises the base model so that attention copies from tokens similar to the current one (after Trockman and Kolter, 2023): key
    /// projections equal query projections, output projections are the transpose of value projections, and residual branches are small
    /// relative to embeddings. Most answers are copied from the context, which a short training does not learn from a random start.
    fn initialise_copying(&self, params: &Params) {
        let language = &self.models.language;
        for layer in 0..language.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let spec = language.attention(layer);
            let group = spec.heads / spec.kv_heads;
            let heads = |part: &str, count: i64| params.get(&name(part)).map(|w| w.reshape([count, spec.head_dim, -1]));
            let (Some(queries), Some(values)) = (heads("self_attn.q_proj", spec.heads), heads("self_attn.v_proj", spec.kv_heads)) else {
                continue;
            };
            params.insert(&name("self_attn.k_proj"), queries.slice(0, 0, spec.heads, group).flatten(0, 1).contiguous());
            let outputs = values.repeat_interleave_self_int(group, 0, None).flatten(0, 1).tr().contiguous();
            params.insert(&name("self_attn.o_proj"), outputs);
            for norm in ["post_attention_layernorm", "post_feedforward_layernorm"] {
                params.insert(&name(norm), Tensor::full([language.hidden_size], BRANCH_SCALE - 1.0, (tch::Kind::Float, self.device)));
            }
        }
        if let Some(mut table) = params.get(EMBEDDING) {
            let deviation = (language.hidden_size as f64).powf(-0.5);
            params.insert(EMBEDDING, table.normal_(0.0, deviation));
        }
    }

    /// For each target 1 if it is a number of the prompt's grid, otherwise 0.
    fn coordinates(&self, targets: &Tensor) -> Tensor {
        let id = |number: u32| self.tokenizer.id(&number.to_string()).map(i64::from);
        let (Some(first), Some(last)) = (id(0), id(PROMPT_GRID)) else { return targets.zeros_like().to_kind(tch::Kind::Float) };
        targets.ge(first).logical_and(&targets.le(last)).to_kind(tch::Kind::Float)
    }

    /// Visual features `[B, P + 36, hidden]` of the chosen images.
    fn visual(&self, params: &Params, perceived: &PerceptionOutputs, chosen: &[usize], flips: &[bool], training: bool) -> Tensor {
        let (tokens, objects) = perceived.features(chosen, flips, self.device);
        self.objective.visual(params, tokens, objects, training)
    }

    fn packs(
        &self,
        sources: &[Source],
        chosen: &[usize],
        perceived: Option<&PerceptionOutputs>,
        done: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Vec<Pack>, Vec<bool>)> {
        let patches = self.models.apm.patches() as usize;
        let mut packs = Vec::new();
        let mut flips = Vec::new();
        for &at in chosen {
            let source = &sources[at];
            let flip = rng.random_bool(0.3);
            flips.push(flip);
            let mut lines = match perceived {
                Some(perceived) => perceived.lines(at, flip),
                None => annotated_lines(&source.image, flip, rng),
            };
            let short = self.stage == LanguageStage::Base && done < self.settings.short_contexts;
            let mut questions = Vec::new();
            match self.stage {
                LanguageStage::Align => questions.extend(source.samples.iter().filter(|s| s.task == Task::Report).cloned()),
                _ => {
                    // In base training most questions are look-ups; in instruction tuning most are samples of the tasks.
                    let (from_data, total) = match self.stage {
                        LanguageStage::Base if short => (3, 2 * self.settings.questions),
                        LanguageStage::Base => (self.settings.questions.div_ceil(2), self.settings.questions),
                        _ => (self.settings.questions.saturating_sub(LOOK_UPS), self.settings.questions),
                    };
                    questions.extend(choose(&source.samples, from_data, rng).into_iter().map(|s| if flip { mirror(s) } else { s }));
                    if short {
                        shorten(&mut lines, &source.image, rng);
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

/// Keeps the lines of structures with findings and of a few random others.
fn shorten(lines: &mut Vec<ContextLine>, image: &Annotated, rng: &mut impl Rng) {
    let kept: Vec<usize> = (0..lines.len()).sample(rng, 8);
    lines.retain(|line| {
        let i = line.structure.index();
        kept.contains(&i) || is_finding(&image.sentences[i])
    });
}

/// A question whose answer is in the context: a structure's box, its sentence, or whether it is healthy.
fn look_up(lines: &[ContextLine], rng: &mut ChaCha8Rng) -> Sample {
    match (rng.random_range(0..4), lines.choose(rng)) {
        (0, Some(line)) => tasks::open_question(line.structure, line.sentence.clone(), rng),
        (1, Some(line)) => tasks::health_question(line.structure, !is_finding(&line.sentence)),
        _ => look_up_box(lines, rng),
    }
}

/// A question for the box of a structure in the context.
fn look_up_box(lines: &[ContextLine], rng: &mut ChaCha8Rng) -> Sample {
    let (structure, [x0, y0, x1, y1]) = lines.choose(rng).map_or((Structure::HEART, [0; 4]), |line| (line.structure, line.grid));
    tasks::anatomy_question(structure, &format!("<box>({x0},{y0}),({x1},{y1})</box>"), rng)
}
