//! What a bundle achieves, measured through the SDK itself.

mod cases;
mod figures;
mod metrics;
mod observe;
mod rouge;
mod table;

pub use cases::{Case, read};
pub use figures::{Apm, Figures, LabelFigures, Retrieval, TaskFigures, Timings};
pub use metrics::{F1, f1, mean_best_iou};
pub use observe::{Answered, Localised, Observation, Outcome, observe};
pub use rouge::rouge1;
pub use table::table;

use anatomix::{Engine, Provider};
use anyhow::{Context, Result};
use rayon::prelude::*;
use std::path::PathBuf;

/// How to evaluate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Where to compute.
    pub provider: Provider,
    /// Whether to mirror the images.
    pub flip: bool,
    /// Engines that work side by side.
    pub workers: usize,
    /// Threads of each.
    pub threads: usize,
}

/// Runs a bundle over cases. The figures but for the times do not depend on the number of workers.
///
/// # Errors
/// If the bundle cannot be opened, an image cannot be read or a graph fails.
pub fn evaluate(settings: &Settings, cases: &[Case], progress: impl Fn() + Sync) -> Result<Figures> {
    let &Settings { ref bundle, provider, flip, workers, threads } = settings;
    // One engine for each worker: an engine runs one graph at a time.
    let workers = workers.clamp(1, cases.len().max(1));
    let open = || Engine::builder().provider(provider).threads(threads).open(bundle);
    let engines = (0..workers).map(|_| open()).collect::<Result<Vec<Engine>, _>>()?;
    let first = engines.first().context("there is at least one worker")?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().context("cannot start the workers")?;
    let observations: Vec<Observation> = pool.install(|| {
        cases
            .par_iter()
            .with_max_len(1)
            .map(|case| {
                let engine = rayon::current_thread_index().and_then(|i| engines.get(i)).unwrap_or(first);
                let observation = observe(engine, case, flip);
                progress();
                observation
            })
            .collect::<Result<_>>()
    })?;
    Ok(Figures {
        bundle: first.bundle().manifest().name.clone(),
        bundle_sha256: first.bundle().hash().into(),
        provider: first.provider().to_string(),
        images: observations.len(),
        flip,
        apm: Apm::of(&observations),
        retrieval: Retrieval::of(&observations),
        tasks: TaskFigures::by_task(&observations),
        timing_ms: Timings::of(&observations, workers, threads),
    })
}
