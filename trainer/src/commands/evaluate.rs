//! Measures a bundle.

use crate::evaluation::{Settings, evaluate, read, table};
use crate::training::progress;
use anatomix::Provider;
use anatomix::task::Task;
use anyhow::Result;
use std::path::PathBuf;

/// Runs a bundle over a data set's test images through the SDK, and prints how well it does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The bundle's folder.
    #[arg(long)]
    bundle: PathBuf,
    /// The data set's folder; phantoms of training seeds are refused.
    #[arg(long)]
    data: PathBuf,
    /// Mirrors images and expected boxes; sides stay the patient's.
    #[arg(long)]
    flip: bool,
    /// At most this many images.
    #[arg(long)]
    limit: Option<usize>,
    /// Only these tasks, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', value_parser = task)]
    tasks: Option<Vec<Task>>,
    /// Most questions of a task on an image; 0 measures perception and retrieval only.
    #[arg(long, default_value_t = 1)]
    questions: usize,
    /// Where to compute.
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Engines that work side by side; one for each core by default, one on a GPU.
    #[arg(long)]
    workers: Option<usize>,
    /// Threads of each engine.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn task(name: &str) -> Result<Task, String> {
    Task::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Task::ALL.into_iter().map(Task::name).collect();
        format!("choose among {}", names.join(", "))
    })
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
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
    Ok(())
}
