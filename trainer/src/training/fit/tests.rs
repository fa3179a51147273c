//! The loop over a stage of a few parameters: a line through points.

use super::super::checkpoint::{CHECKSUM, checksum};
use super::*;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Fits `y = weight * x` to `y = 3 x`, with noise from each sample's draws. (That of libtorch is shared by all tests of this process;
/// tests/test_training.py resumes stages with dropout.)
struct Line {
    /// The step, counted from 0, whose loss is not a number.
    broken: Option<u64>,
    /// The step whose loss is infinite, with gradients that are finite.
    infinite: Option<u64>,
    /// The step from which on the loss is larger by a million.
    raised: Option<u64>,
    taken: u64,
    orders: Vec<Vec<usize>>,
    batches: Vec<usize>,
}

impl Line {
    fn new() -> Self {
        Self { broken: None, infinite: None, raised: None, taken: 0, orders: vec![], batches: vec![] }
    }
}

impl Stage for Line {
    fn name(&self) -> &'static str {
        "line"
    }

    fn samples(&self) -> usize {
        10
    }

    fn sample(&self, index: usize) -> String {
        format!("point-{index}")
    }

    fn trains(&self, name: &str) -> bool {
        name == "weight"
    }

    fn keeps(&self, name: &str) -> bool {
        name == "weight"
    }

    fn gradients(&mut self, params: &Params, step: &Step) -> Result<Loss> {
        let x = step
            .samples
            .iter()
            .map(|taken| taken.sample as f32 + step.draws.of_sample(taken.sample).random_range(0.0..0.1))
            .collect::<Vec<_>>();
        let x = Tensor::from_slice(&x);
        let weight = params.get("weight").unwrap() + params.get("frozen").unwrap();
        let mut total = (weight * &x - &x * 3.0).square().mean(Kind::Float);
        if self.broken == Some(self.taken) {
            total *= f64::NAN;
        }
        if self.infinite == Some(self.taken) {
            total += f64::INFINITY;
        }
        if self.raised.is_some_and(|at| self.taken >= at) {
            total += 1e6;
        }
        self.taken += 1;
        self.orders.push(step.samples.iter().map(|taken| taken.sample).collect());
        self.batches.push(step.batch);
        total.backward();
        let total = total.double_value(&[]);
        Ok(Loss { parts: vec![("error", total)], total })
    }

    fn validate(&mut self, params: &Params, _: Peers) -> Result<Option<Validation>> {
        let weight = params.get("weight").unwrap().double_value(&[0]);
        Ok(Some(Validation { figures: vec![("weight", weight)], score: -(weight - 3.0).abs(), ..Validation::default() }))
    }
}

fn settings(steps: u64) -> StageSettings {
    StageSettings { batch: 3, steps: Some(steps), epochs: None, rate: 0.05, checkpoint_every: 4, ..StageSettings::pretraining() }
}

fn params() -> Params {
    let params = Params::create(Device::Cpu);
    params.insert("weight", Tensor::from_slice(&[0f32]));
    params.insert("frozen", Tensor::from_slice(&[0.5f32]));
    params
}

fn train(folder: &Path, stage: &mut Line, steps: u64, resume: bool) -> Result<Params> {
    let params = params();
    let run = Run::create(folder)?;
    fit(&run, stage, &settings(steps), &params, Start { resume, ..Start::default() })?;
    Ok(params)
}

fn weight(params: &Params) -> f64 {
    params.get("weight").unwrap().double_value(&[0])
}

#[test]
fn a_training_that_broke_off_anywhere_resumes_to_the_same_parameters() {
    let whole = tempfile::tempdir().unwrap();
    let mut uncut = Line::new();
    let expected = weight(&train(whole.path(), &mut uncut, 21, false).unwrap());
    for broken in [0, 3, 4, 9, 20] {
        let folder = tempfile::tempdir().unwrap();
        let error = train(folder.path(), &mut Line { broken: Some(broken), ..Line::new() }, 21, false).err().unwrap().to_string();
        assert!(error.contains(&format!("in step {}", broken + 1)), "{error}");
        let mut resumed = Line::new();
        let found = weight(&train(folder.path(), &mut resumed, 21, true).unwrap());
        assert_eq!(found, expected, "after step {broken}");
        // What was done up to the last checkpoint is not done again, and the samples are those of the same steps.
        assert_eq!(resumed.orders, uncut.orders[(broken / 4 * 4) as usize..]);
        let [a, b] = [&whole, &folder].map(|f| std::fs::read(f.path().join("line.checkpoint.safetensors")).unwrap());
        assert!(a == b, "the checkpoints differ");
    }
}

#[test]
fn a_step_of_several_batches_takes_the_samples_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::create(folder.path()).unwrap();
    let taken = |batch, accumulate| {
        let mut stage = Line::new();
        let settings = StageSettings { batch, accumulate, ..settings(4) };
        let params = params();
        fit(&run, &mut stage, &settings, &params, Start::default()).unwrap();
        assert!(stage.batches.iter().all(|&size| size == batch), "{:?}", stage.batches);
        (stage.orders, weight(&params))
    };
    let (orders, found) = taken(2, 2);
    assert!(orders.iter().all(|samples| samples.len() == 4), "{orders:?}");
    assert_eq!((orders, found), taken(4, 1));
}

#[test]
fn a_batch_whose_loss_is_not_a_number_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Line { broken: Some(5), ..Line::new() };
    let error = train(folder.path(), &mut stage, 21, false).err().unwrap().to_string();
    let names: Vec<String> = stage.orders[5].iter().map(|s| format!("point-{s}")).collect();
    assert!(error.contains("NaN") && error.contains("step 6") && error.contains(&names.join(", ")), "{error}");
}

#[test]
fn finite_gradients_of_an_infinite_loss_are_not_followed() {
    let left = |mut stage: Line| {
        let (folder, params) = (tempfile::tempdir().unwrap(), params());
        let run = Run::create(folder.path()).unwrap();
        let error = fit(&run, &mut stage, &settings(21), &params, Start::default()).unwrap_err().to_string();
        assert!(error.contains("step 6") && error.contains("was not taken"), "{error}");
        weight(&params)
    };
    assert_eq!(left(Line { infinite: Some(5), ..Line::new() }), left(Line { broken: Some(5), ..Line::new() }));
}

#[test]
fn a_rising_loss_stops() {
    let folder = tempfile::tempdir().unwrap();
    let error = train(folder.path(), &mut Line { raised: Some(7), ..Line::new() }, 21, false).err().unwrap().to_string();
    assert!(error.contains("the loss rises") && error.contains("step 8"), "{error}");
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("line.checkpoint.safetensors");
    let refusal = || {
        let error = format!("{:#}", train(folder.path(), &mut Line::new(), 8, true).err().unwrap());
        assert!(error.contains("line.checkpoint.safetensors") && error.contains("delete it"), "{error}");
        error
    };
    std::fs::write(&path, b"not a checkpoint").unwrap();
    refusal();
    let write = |mut tensors: Vec<(&'static str, Tensor)>| {
        let sum = checksum(tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        tensors.push((CHECKSUM, Tensor::from_slice(&[i64::from(sum)])));
        Tensor::write_safetensors(&tensors, &path).unwrap();
    };
    let weight = |values: &[f32]| ("params.weight", Tensor::from_slice(values));
    write(vec![weight(&[1.0])]);
    assert!(refusal().contains("no progress"));
    let own = || ("progress", Tensor::from_slice(&[4.0, 1.0, 1.0, 1.0, 1.0]));
    write(vec![weight(&[1.0, 2.0]), own()]);
    assert!(refusal().contains("no weight of the shape [1]"));
    write(vec![weight(&[1.0]), own()]);
    assert!(refusal().contains("no optimiser.step"));
    Tensor::write_safetensors(&[weight(&[1.0]), own()], &path).unwrap();
    assert!(refusal().contains("no checksum"));
}

#[test]
fn a_checkpoint_with_one_other_bit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &mut Line::new(), 8, false).unwrap();
    let path = folder.path().join("line.checkpoint.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let first = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for at in first..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let error = train(folder.path(), &mut Line::new(), 12, true).map(drop).map_err(|error| format!("{error:#}"));
        refused += usize::from(error.is_err_and(|error| error.contains("its checksum differs; the file is damaged")));
    }
    assert_eq!(refused, whole.len() - first);
    std::fs::write(&path, &whole).unwrap();
    train(folder.path(), &mut Line::new(), 12, true).unwrap();
}

#[test]
fn the_best_parameters_are_kept_if_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::create(folder.path()).unwrap();
    // A rate at which the last step is not the best one.
    let settings = StageSettings { rate: 2.0, final_rate: 1.0, warmup: 0.0, checkpoint_every: 1, keep: Keep::Best, ..settings(12) };
    let kept = params();
    fit(&run, &mut Line::new(), &settings, &kept, Start::default()).unwrap();
    let log = std::fs::read_to_string(folder.path().join("line.log.jsonl")).unwrap();
    let weights: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["validation"]["weight"].as_f64().unwrap())
        .collect();
    let best = weights.iter().copied().min_by(|a, b| (a - 3.0).abs().total_cmp(&(b - 3.0).abs())).unwrap();
    assert_eq!(weights.len(), 12);
    assert_ne!(weights[11], best, "the last is not the best: {weights:?}");
    assert_eq!(weight(&kept), best);
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::create(folder.path()).unwrap();
    fit(&run, &mut Line::new(), &settings(8), &params(), Start { dry_run: true, ..Start::default() }).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
