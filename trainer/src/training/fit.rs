//! The training loop of all stages.

use super::checkpoint::{Checkpoint, Progress, Start};
use super::interrupt::{self, Stopped};
use super::order::{Draws, Order, Taken};
use super::settings::{Keep, Precision, StageSettings};
use crate::distributed::{Gradients, Peers};
use crate::graph::Params;
use crate::graph::adamw::AdamW;
use crate::progress::{Meter, say};
use crate::reporting::events::Events;
use crate::reporting::log::{IDLE, Line, Log, numbers};
use crate::run::Run;
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use serde_json::json;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A loss that rises to this multiple of its lowest mean, and by 1, does not come back.
const DIVERGED: f64 = 5.0;
/// Weight of the latest step in running means.
const LATEST: f64 = 0.02;

/// A training stage: what [`fit`] does not know.
pub trait Stage {
    /// Its name, in recipes and file names.
    fn name(&self) -> &'static str;

    /// Number of training samples: of what an epoch takes once.
    fn samples(&self) -> usize;

    /// What a sample is called in messages: an image's name, or a sentence.
    fn sample(&self, index: usize) -> String;

    /// Whether it trains a parameter.
    fn trains(&self, name: &str) -> bool;

    /// Whether a checkpoint holds a parameter. By default it holds what a run's files do not.
    fn keeps(&self, name: &str) -> bool;

    /// Factor of a parameter's learning rate.
    fn rate_factor(&self, _name: &str) -> f64 {
        1.0
    }

    /// Called once before the first of these steps: whoever reads ahead begins here. A dry run does not call it. What all processes need is
    /// made by all of them together.
    ///
    /// # Errors
    /// If what all steps need cannot be read or made.
    fn begin(&mut self, _order: &Order, _steps: Range<u64>, _peers: Peers) -> Result<()> {
        Ok(())
    }

    /// How long the steps have waited for their samples so far.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// Computes the loss of a step's samples, in batches of at most [`Step::batch`], and adds its gradients to those of the parameters. All
    /// randomness comes from the step's draws and from libtorch's generator, which both follow from seed and step. With several processes,
    /// the loss is that of the samples of all of them, and the gradients are this process's part.
    ///
    /// # Errors
    /// If a batch cannot be made.
    fn gradients(&mut self, params: &Params, step: &Step) -> Result<Loss>;

    /// Figures on the validation split, without gradients; `None` for a stage without validation. All processes call it, and get the same.
    ///
    /// # Errors
    /// If they cannot be computed.
    fn validate(&mut self, params: &Params, peers: Peers) -> Result<Option<Validation>>;
}

/// An optimiser step.
pub struct Step<'a> {
    /// The fraction of the training that is done.
    pub done: f64,
    /// Its samples that this process takes.
    pub samples: &'a [Taken],
    /// Random numbers of each sample.
    pub draws: Draws,
    /// The processes that take the others.
    pub peers: Peers<'a>,
    /// Largest number of samples to compute at once.
    pub batch: usize,
}

/// The loss of an optimiser step.
pub struct Loss {
    /// What is minimised.
    pub total: f64,
    /// What is shown of it: names and values.
    pub parts: Vec<(&'static str, f64)>,
}

/// Figures on the validation split.
#[derive(Default)]
pub struct Validation {
    /// Names and values.
    pub figures: Vec<(&'static str, f64)>,
    /// The mean IoU of each structure, in their order; empty for stages without boxes.
    pub structure_iou: Vec<f64>,
    /// The higher the better.
    pub score: f64,
}

/// Trains: steps in order, checkpoints with figures, resuming. At the end, `params` are those that the settings say.
///
/// # Errors
/// If a file cannot be read or written, gradients are not finite, the loss diverges, or the training was asked to stop ([`Stopped`]).
pub fn fit(run: &Run, stage: &mut dyn Stage, settings: &StageSettings, params: &Params, start: Start) -> Result<()> {
    let name = stage.name();
    ensure!(stage.samples() > 0, "there are no training samples");
    let peers = start.peers;
    params.train(|name| stage.trains(name));
    if settings.precision == Precision::Bf16 {
        params.reduce_frozen(|name| !stage.keeps(name));
    }
    let mut optimiser = AdamW::of_process(params, settings.optimiser(), peers, |name| stage.rate_factor(name));
    let order = Order::new(stage.samples(), settings.samples_of_step(), settings.seed);
    let mut order = order.of_process(peers.rank(), peers.count());
    let steps = settings.steps.unwrap_or_else(|| order.steps_of(settings.epochs.unwrap_or(1)));
    let all: usize = params.named().iter().map(|(_, tensor)| tensor.numel()).sum();
    // Parameters, and in fp32 gradients and two moments.
    let stored: usize = params.named().iter().map(|(_, tensor)| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
    let bytes = stored + size_of::<f32>() * (optimiser.parameters() + 2 * optimiser.own_parameters());
    let of_step = settings.samples_of_step().min(stage.samples());
    say(&format!(
        "{name}: {} samples, {steps} steps of {of_step}, {:.2} epochs; {all} parameters, of which {} are trained; {} MB for parameters, \
         gradients and moments",
        stage.samples(),
        order.epochs_after(steps),
        optimiser.parameters(),
        bytes.div_ceil(1_000_000),
    ));
    ensure!(
        peers.count() <= of_step,
        "{} processes cannot share the {of_step} samples of a step; take fewer processes or a larger batch",
        peers.count()
    );
    if start.dry_run {
        return Ok(());
    }
    let checkpoint = Checkpoint::new(run, name);
    let mut progress = Progress { lowest: f64::INFINITY, best: f64::NEG_INFINITY, ..Progress::default() };
    if peers.any(start.resume)? && peers.of_first(checkpoint.exists())? {
        progress = checkpoint.load(params, |name| stage.keeps(name), &mut optimiser)?;
        ensure!(progress.step <= steps, "the checkpoint of {name} is at step {}, beyond the {steps} of the recipe", progress.step);
    }
    for (parameter, tensor) in params.named() {
        // Of such values the loss would be blamed.
        let finite = tch::no_grad(|| tensor.isfinite().all().int64_value(&[]) == 1);
        ensure!(finite, "{name}: {parameter} has values that are not finite; the file that it was read from is damaged");
    }
    let log = Log::new(run, name);
    let mut events = None;
    if peers.is_first() {
        log.begin(progress.step)?;
        events = Some(Events::create(&run.file(&format!("tensorboard/{name}")))?);
    }
    // They are the same already, unless machines compute differently.
    peers.broadcast(&params.named().into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>())?;
    let sums = peers.gradients(&optimiser.tensors())?;
    stage.begin(&order, progress.step..steps, peers)?;
    // Before, a signal ends the program at once: no step could be saved.
    interrupt::listen()?;
    let mut idle = Idle::new();
    let mut meter = Meter::new(name, progress.step, steps);
    while progress.step < steps {
        let step = progress.step;
        // All randomness follows from the seed and the step, so that a resumed training gives the same parameters.
        let draws = Draws::new(settings.seed, step);
        tch::manual_seed(draws.of_process(peers.rank()).random_range(0..i64::MAX));
        let done = step as f64 / steps as f64;
        let own = order.own_of_step(step);
        let taken = Step { done, samples: &own, draws, peers, batch: settings.batch };
        optimiser.zero_gradients();
        sums.as_ref().map(Gradients::begin).transpose()?;
        let Loss { total: loss, parts } = stage.gradients(params, &taken)?;
        sums.as_ref().map(Gradients::finish).transpose()?;
        // Finite gradients of a loss that is not finite would be taken.
        let norm = if loss.is_finite() { optimiser.step(settings.rate_at(step, steps))? } else { f64::NAN };
        if !norm.is_finite() {
            bail!(
                "loss {loss} and gradients of norm {norm} in step {}, of {}; the step was not taken. Lower the rate, and resume",
                step + 1,
                order.of_step(step).iter().map(|taken| stage.sample(taken.sample)).collect::<Vec<_>>().join(", ")
            );
        }
        progress.step += 1;
        progress.add(loss, &parts);
        let mean = progress.means.first().copied().unwrap_or(loss);
        ensure!(
            mean <= DIVERGED * progress.lowest + 1.0,
            "the loss rises: its mean is {mean:.3} after step {} and was {:.3}. Lower the rate, and resume",
            progress.step,
            progress.lowest
        );
        let shown = || parts.iter().zip(progress.means.iter().skip(1)).map(|((part, _), mean)| (*part, *mean));
        meter.set(progress.step, shown().map(|(part, mean)| format!("{part} {mean:.3}")).collect::<Vec<_>>().join(" "));

        let stopping = peers.any(interrupt::asked())?;
        let last = progress.step == steps;
        let due = progress.step.is_multiple_of(settings.checkpoint_every) || last;
        let logged = due || progress.step.is_multiple_of(settings.log_every);
        let validation = if due { tch::no_grad(|| stage.validate(params, peers)).context("validation")? } else { None };
        if let (true, Some(events)) = (logged, &mut events) {
            let (epochs, rate) = (order.epochs_after(progress.step), settings.rate_at(step, steps));
            let mut line = Line::new();
            let of_training = [("step", json!(progress.step)), ("epoch", json!(epochs)), ("rate", json!(rate)), ("loss", json!(mean))];
            line.extend(of_training.map(|(key, value)| (key.to_string(), value)));
            line.extend(shown().map(|(part, mean)| (part.to_string(), json!(mean))));
            line.insert(IDLE.into(), json!(idle.since_last(stage.waited())));
            if let Some(validation) = validation {
                let mut figures: Line = validation.figures.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
                if !validation.structure_iou.is_empty() {
                    figures.insert("structure_iou".into(), json!(validation.structure_iou));
                }
                line.insert("validation".into(), figures.into());
                if validation.score > progress.best {
                    progress.best = validation.score;
                    params.save(&checkpoint.best(), |name| stage.keeps(name))?;
                }
            }
            if due {
                let told = numbers(&line).into_iter().filter(|(key, _)| key != "rate" && key != "step");
                let told: Vec<String> = told.map(|(key, value)| format!("{key} {value:.3}")).collect();
                meter.print(&format!("{name}: step {} {}", progress.step, told.join(" ")));
            }
            log.append(&line)?;
            events.append(name, &line)?;
        }
        if due || stopping {
            let state = optimiser.state()?;
            if peers.is_first() {
                checkpoint.save(params, |name| stage.keeps(name), state, &progress)?;
            }
        }
        if stopping && !last {
            meter.finish();
            return Err(Stopped { stage: name, step: progress.step }.into());
        }
    }
    meter.finish();
    say(&format!("{name}: the steps waited for data {:.1} % of the time", 100.0 * idle.whole(stage.waited())));
    if peers.is_first() && settings.keep == Keep::Best && progress.best.is_finite() {
        params.overwrite(&checkpoint.best())?;
    }
    Ok(())
}

/// The share of the time in which the steps waited for their samples.
struct Idle {
    begun: Instant,
    last: Instant,
    waited: Duration,
}

impl Idle {
    fn new() -> Self {
        Self { begun: Instant::now(), last: Instant::now(), waited: Duration::ZERO }
    }

    /// The share since the last call; `waited` is the sum of all steps.
    fn since_last(&mut self, waited: Duration) -> f64 {
        let share = (waited.saturating_sub(self.waited)).as_secs_f64() / self.last.elapsed().as_secs_f64().max(1e-9);
        (self.last, self.waited) = (Instant::now(), waited);
        share.min(1.0)
    }

    /// The share of the whole time.
    fn whole(&self, waited: Duration) -> f64 {
        (waited.as_secs_f64() / self.begun.elapsed().as_secs_f64().max(1e-9)).min(1.0)
    }
}

impl Progress {
    /// Adds a step to the running means.
    fn add(&mut self, loss: f64, parts: &[(&'static str, f64)]) {
        let values: Vec<f64> = std::iter::once(loss).chain(parts.iter().map(|(_, value)| *value)).collect();
        if self.means.len() == values.len() {
            self.means.iter_mut().zip(values).for_each(|(mean, value)| *mean += LATEST * (value - *mean));
        } else {
            self.means = values;
        }
        self.lowest = self.lowest.min(self.means[0]);
    }
}

#[cfg(test)]
mod tests;
