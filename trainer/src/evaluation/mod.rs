//! Evaluation of bundles on data sets, through the SDK.

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

/// Options of [`evaluate`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// Execution provider.
    pub provider: Provider,
    /// Whether to mirror the images.
    pub flip: bool,
    /// Number of engines that run in parallel.
    pub workers: usize,
    /// Number of threads of each engine.
    pub threads: usize,
}

/// Evaluates a bundle on `cases`. Except for times, the figures do not depend on the number of workers.
///
/// # Errors
/// If the bundle cannot be opened, an image cannot be read or a graph fails.
pub fn evaluate(settings: &Settings, cases: &[Case], progress: impl Fn() + Sync) -> Result<Figures> {
    let &Settings { ref bundle, provider, flip, workers, threads } = settings;
    // Each worker has an engine of its own, because callers of one engine share its threads.
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
