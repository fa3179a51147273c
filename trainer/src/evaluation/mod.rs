//! Evaluation of bundles on data sets, through the SDK.

pub mod answers;
mod cases;
mod figures;
pub mod gate;
pub mod image;
mod table;

pub use cases::{Case, read};
pub use figures::{Apm, Evidence, Figures, LabelFigures, Retrieval, TaskFigures, Timings};
pub use image::{Answered, ImageResult, JudgedSentence, Localised, Outcome, evaluate_image};
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
    /// Number of images that are evaluated in parallel, on one engine.
    pub workers: usize,
    /// Number of threads of the engine. With one, each worker computes on a thread of its own; workers share several.
    pub threads: usize,
}

/// Evaluates a bundle on `cases`. Except for times, the figures do not depend on the number of workers.
///
/// # Errors
/// If the bundle cannot be opened, an image cannot be read or a graph fails.
pub fn evaluate(settings: &Settings, cases: &[Case], progress: impl Fn() + Sync) -> Result<Figures> {
    let &Settings { ref bundle, provider, flip, workers, threads } = settings;
    let workers = workers.clamp(1, cases.len().max(1));
    let engine = Engine::builder().provider(provider).threads(threads).open(bundle)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().context("cannot start the workers")?;
    let results: Vec<ImageResult> = pool.install(|| {
        cases
            .par_iter()
            .with_max_len(1)
            .map(|case| {
                let result = evaluate_image(&engine, case, flip);
                progress();
                result
            })
            .collect::<Result<_>>()
    })?;
    Ok(Figures {
        bundle: engine.bundle().manifest().name.clone(),
        bundle_sha256: engine.bundle().hash().into(),
        provider: engine.provider().to_string(),
        images: results.len(),
        flip,
        apm: Apm::of(&results),
        retrieval: Retrieval::of(&results),
        tasks: TaskFigures::by_task(&results),
        evidence: Evidence::by_support(&results),
        timing_ms: Timings::of(&results, workers, threads),
    })
}
