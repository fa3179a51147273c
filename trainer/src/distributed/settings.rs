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
    /// A training does not begin if a process has waited so many seconds for the others.
    pub join_timeout: u64,
    /// A training ends if a process waits longer than this for the others, in seconds.
    pub timeout: u64,
}

impl Default for Distributed {
    fn default() -> Self {
        Self { shard_optimiser: false, bucket: 25, overlap: true, join_timeout: 300, timeout: 600 }
    }
}

impl Distributed {
    /// Checks the settings.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn check(&self) -> Result<()> {
        ensure!((1..=4096).contains(&self.bucket), "bucket = {} is not between 1 and 4096 megabytes", self.bucket);
        for (name, seconds) in [("join_timeout", self.join_timeout), ("timeout", self.timeout)] {
            ensure!((1..=86_400).contains(&seconds), "{name} = {seconds} is not between 1 and 86400 seconds");
        }
        Ok(())
    }

    pub(super) fn longest_join(&self) -> Duration {
        Duration::from_secs(self.join_timeout)
    }

    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
