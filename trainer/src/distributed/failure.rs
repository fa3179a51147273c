//! Which process ended a training: a failed call of c10d says only that some connection was closed, or that nothing came.
//!
//! Every process tells from time to time that it runs. After a failed call those are named that no longer do, and the first one to know
//! writes it down for the others, which end with it.

use super::beats;
use super::c10d::C10dError;
use super::group::Group;
use crate::training::interrupt::Stopped;
use anyhow::Error;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

/// Time without a sign after which a process has ended.
const SILENCE: Duration = Duration::from_millis(2500);
/// The key of what ended the training.
const ENDED: &str = "ended";

impl Group {
    /// Adds to the error with which this process ends who it is, and which process ended the training.
    pub fn explain(&self, error: Error) -> Error {
        if error.is::<Stopped>() {
            return error;
        }
        let own = self.name(self.place.rank);
        let own = own.trim_end_matches(',').to_string();
        if !error.chain().any(|cause| cause.is::<C10dError>()) {
            let _ = self.store.claim(ENDED, &format!("{own} ended: {error:#}"));
            return error.context(own);
        }
        let cause = self.ended().unwrap_or_else(|error| {
            format!("the store at {}:{} cannot be reached ({error}); rank 0 or torchrun ended", self.place.host, self.place.port)
        });
        error.context(cause).context(own)
    }

    fn name(&self, rank: usize) -> String {
        self.store.get(&format!("name/{rank}")).ok().flatten().unwrap_or_else(|| format!("rank {rank}"))
    }

    /// What ended the training, as the first process knew that looked for it.
    fn ended(&self) -> Result<String, C10dError> {
        if let Some(known) = self.store.get(ENDED)? {
            return Ok(known);
        }
        let before = self.beats()?;
        sleep(SILENCE);
        let silent: Vec<usize> =
            self.beats()?.into_iter().filter(|(rank, beat)| before.get(rank) == Some(beat)).map(|(rank, _)| rank).collect();
        let names = |ranks: &[usize]| ranks.iter().map(|&rank| self.name(rank)).collect::<Vec<_>>().join(" ");
        let found = match silent.as_slice() {
            [] => "no process ended; the network between them failed, or one took too long".to_string(),
            ranks => format!("{} ended without a message; it was killed, or its machine failed", names(ranks)),
        };
        self.store.claim(ENDED, &found)
    }

    fn beats(&self) -> Result<BTreeMap<usize, Option<String>>, C10dError> {
        (0..self.place.processes).map(|rank| Ok((rank, self.store.get(&beats::key(rank))?))).collect()
    }
}
