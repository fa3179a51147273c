//! How samples are loaded: the table `[loading]` of a recipe.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest number of workers.
const MAX_WORKERS: usize = 256;

/// What happens to an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Damaged {
    /// The training stops, and names it.
    #[default]
    Stop,
    /// It is left out of its batch, and counted.
    Skip,
}

/// Where the frozen perception module's outputs of the stages `align` and `instruct` come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Perceived {
    /// They are computed once before the first step, and kept on disk.
    #[default]
    Cache,
    /// They are computed in each step.
    Step,
}

/// How samples are loaded. Apart from `damaged`, nothing of it changes what is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Loading {
    /// Number of threads that read images ahead of the step.
    pub workers: usize,
    /// Number of batches that are read ahead.
    pub prefetch: usize,
    /// Folder in which letterboxed images, and perceived features, are kept. Without it images are decoded each time, and features are kept
    /// in the run.
    pub cache: Option<PathBuf>,
    /// What happens to an image that cannot be read.
    pub damaged: Damaged,
    /// Where the outputs of the perception module come from.
    pub perceived: Perceived,
}

impl Default for Loading {
    fn default() -> Self {
        Self { workers: 2, prefetch: 2, cache: None, damaged: Damaged::Stop, perceived: Perceived::Cache }
    }
}

impl Loading {
    /// Checks the numbers.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!((1..=MAX_WORKERS).contains(&self.workers), "workers = {} is not between 1 and {MAX_WORKERS}", self.workers);
        ensure!((1..=1000).contains(&self.prefetch), "prefetch = {} is not between 1 and 1000", self.prefetch);
        Ok(())
    }

    /// Makes a relative folder relative to this one.
    pub fn resolve(&mut self, base: &Path) {
        self.cache.iter_mut().for_each(|path| *path = base.join(&*path));
    }
}
