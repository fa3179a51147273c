//! A recipe's table `[distributed]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of a training on several processes; one process alone does not use them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distributed {
    /// Whether each process holds the optimiser's moments of its share of the parameters only (ZeRO, stage 1).
    pub shard_optimiser: bool,
    /// Gradients are summed over the processes in buckets of this many megabytes.
    pub bucket: usize,
    /// Whether these sums begin while other gradients are still computed.
    pub overlap: bool,
    /// A training ends if a process waits longer than this for the others, in seconds. Validation has to be done in that time.
    pub timeout: u64,
}

impl Default for Distributed {
    fn default() -> Self {
        Self { shard_optimiser: false, bucket: 25, overlap: true, timeout: 600 }
    }
}

impl Distributed {
    /// Checks the settings.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!((1..=4096).contains(&self.bucket), "bucket = {} is not between 1 and 4096 megabytes", self.bucket);
        ensure!((1..=86_400).contains(&self.timeout), "timeout = {} is not between 1 and 86400 seconds", self.timeout);
        Ok(())
    }

    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
