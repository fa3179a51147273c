//! The command `train`.

use crate::distributed::{Group, Peers, Place};
use crate::lock::Lock;
use crate::progress;
use crate::reporting::page::{self, PAGE};
use crate::run::Run;
use crate::training::checkpoint::Start;
use crate::training::config::{LanguageStage, Recipe};
use crate::training::language;
use crate::training::{apm, text};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use std::path::PathBuf;
use tch::Device;

/// Run a training stage of a recipe; under torchrun, on several processes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The training stage.
    stage: Stage,
    /// The recipe, a TOML file.
    #[arg(long)]
    config: PathBuf,
    /// Resume at the last checkpoint of the training stage. Processes that torchrun starts again do so by themselves.
    #[arg(long)]
    resume: bool,
    /// Start with the parameters in this safetensors file, of an earlier or imported run, instead of random ones.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print the number of samples, steps and parameters, and the memory that these take, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Device to train on; with several processes, each takes the CUDA device with its number on the machine.
    #[arg(long, default_value = "cpu")]
    device: TrainDevice,
    /// Number of CPU threads [default: all cores].
    #[arg(long)]
    threads: Option<i32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    /// Tokenizer and sentence encoder, if none is imported.
    Text,
    /// The Anatomy Perception Module (the paper's step 1).
    Apm,
    /// The base language model, if none is imported.
    Language,
    /// The projectors, on reports (the paper's step 2).
    Align,
    /// Adapters, projectors and embeddings, on all tasks (the paper's step 3).
    Instruct,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TrainDevice {
    Cpu,
    Cuda,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(threads);
    }
    let recipe = Recipe::read(&arguments.config)?;
    let place = Place::of_process()?;
    let local_rank = place.as_ref().map_or(0, |place| place.local_rank);
    let restarted = place.as_ref().is_some_and(|place| place.restarts > 0);
    if place.as_ref().is_some_and(|place| place.rank > 0) {
        progress::silence();
    }
    let device = match arguments.device {
        TrainDevice::Cpu => Device::Cpu,
        TrainDevice::Cuda => {
            ensure!(
                tch::Cuda::is_available(),
                "libtorch finds no CUDA device; use --device cpu, or install a CUDA build of torch and its driver"
            );
            let devices = tch::Cuda::device_count();
            ensure!(
                (local_rank as i64) < devices,
                "this is process {local_rank} of its machine, which has {devices} CUDA devices; start at most one process for each"
            );
            Device::Cuda(local_rank)
        }
    };
    let group = match place {
        Some(place) if place.processes > 1 => Some(Group::join(place, device, recipe.distributed)?),
        _ => None,
    };
    let peers = Peers::of(group.as_ref());
    let resume = arguments.resume || restarted;
    let start = Start { resume, from: arguments.from.as_deref(), dry_run: arguments.dry_run, peers };
    let train = || {
        let run = Run::create(&recipe.run)?;
        // Of several processes the first one writes.
        let lock = if arguments.dry_run || !peers.is_first() { None } else { Some(Lock::take(&run.folder)?) };
        match arguments.stage {
            Stage::Text => text::train(&recipe, device, start),
            Stage::Apm => apm::train(&recipe, device, start),
            Stage::Language => language::train(&recipe, LanguageStage::Base, device, start),
            Stage::Align => language::train(&recipe, LanguageStage::Align, device, start),
            Stage::Instruct => language::train(&recipe, LanguageStage::Instruct, device, start),
        }?;
        Ok(lock)
    };
    let _lock = match (train(), &group) {
        (Err(error), Some(group)) => return Err(group.explain(error)),
        (trained, _) => trained?,
    };
    if arguments.dry_run || !peers.is_first() {
        return Ok(());
    }
    let run = Run::create(&recipe.run)?;
    let path = run.file(PAGE);
    page::write(&run, &path)?;
    eprintln!("losses and figures are drawn in {}", path.display());
    Ok(())
}
