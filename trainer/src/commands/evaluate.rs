//! The command `evaluate`.

use crate::evaluation::{Settings, evaluate, gate, read, table};
use crate::progress;
use anatomix::{Provider, Task};
use anyhow::{Result, bail, ensure};
use std::path::PathBuf;

/// Evaluate a bundle on the test images and questions of a prepared folder, through the SDK.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the bundle.
    #[arg(long)]
    bundle: PathBuf,
    /// Prepared folder, or folder of phantoms; phantoms with training seeds are refused.
    #[arg(long)]
    data: PathBuf,
    /// Mirror the images and the expected boxes; left and right stay the patient's.
    #[arg(long)]
    flip: bool,
    /// Largest number of images [default: all].
    #[arg(long)]
    limit: Option<usize>,
    /// Tasks to evaluate, separated by commas [default: all].
    #[arg(long, value_delimiter = ',', value_parser = task)]
    tasks: Option<Vec<Task>>,
    /// Largest number of questions for each task and image; 0 evaluates perception and retrieval only.
    #[arg(long, default_value_t = 1)]
    questions: usize,
    /// Execution provider.
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Number of images that are evaluated in parallel [default: one per core, one on a GPU].
    #[arg(long)]
    workers: Option<usize>,
    /// Number of threads of the engine. Each image is computed on one thread by default.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Fail if a figure is lower than in this file, which an earlier `evaluate --json` of the same images printed.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// By how much a figure may be lower than in the baseline, 0 to 1.
    #[arg(long, default_value_t = 0.01, requires = "baseline")]
    tolerance: f64,
}

fn task(name: &str) -> Result<Task, String> {
    Task::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Task::ALL.into_iter().map(Task::name).collect();
        format!("use one of {}", names.join(", "))
    })
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    // A baseline that cannot be used is refused before an hour of evaluation.
    ensure!((0.0..=1.0).contains(&arguments.tolerance), "--tolerance is {}; it must be 0 to 1", arguments.tolerance);
    let baseline = arguments.baseline.as_deref().map(gate::baseline).transpose()?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = arguments.workers.unwrap_or_else(|| if arguments.provider == Provider::Cpu { cores() } else { 1 });
    let tasks = arguments.tasks.as_deref().unwrap_or(&Task::ALL);
    let cases = read(&arguments.data, tasks, arguments.questions, arguments.limit)?;
    let settings = Settings {
        bundle: arguments.bundle.clone(),
        provider: arguments.provider,
        flip: arguments.flip,
        workers,
        threads: arguments.threads,
    };
    let bar = progress::bar(cases.len() as u64, "evaluating");
    let figures = evaluate(&settings, &cases, || bar.inc(1));
    bar.finish_and_clear();
    let figures = figures?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{}", table(&figures));
    }
    if let Some(baseline) = baseline {
        let lost = gate::losses(&baseline, &serde_json::to_value(&figures)?, arguments.tolerance)?;
        lost.iter().for_each(|loss| eprintln!("worse: {loss}"));
        if !lost.is_empty() {
            bail!("{} figures are lower than in the baseline by more than {}", lost.len(), arguments.tolerance);
        }
    }
    Ok(())
}
