//! Checkpoints: what a step needs to go on where it was stopped.

use crate::graph::Params;
use crate::graph::adamw::AdamW;
use crate::run::Run;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// Where a step begins: at its last checkpoint if it resumes and there is one, else from given parameters or random ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Goes on from the last checkpoint.
    pub resume: bool,
    /// A safetensors file with the parameters to begin with.
    pub from: Option<&'a Path>,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
}

/// The files of a step's checkpoints.
pub struct Checkpoint<'a> {
    run: &'a Run,
    step: &'a str,
}

impl<'a> Checkpoint<'a> {
    /// The checkpoint of a step, by its name.
    pub fn new(run: &'a Run, step: &'a str) -> Self {
        Self { run, step }
    }

    /// Writes parameters, optimiser and progress; the progress last, so that it never points at files half written.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn save(&self, params: &Params, optimiser: &AdamW, step: u64) -> Result<()> {
        params.save(&self.run.file(&format!("{}.checkpoint.safetensors", self.step)), |_| true)?;
        optimiser.save(&self.run.file(&format!("{}.optimiser.safetensors", self.step)))?;
        let path = self.run.file(&format!("{}.progress.json", self.step));
        std::fs::write(&path, serde_json::to_vec(&Progress { step })?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The parameters and the step of the last checkpoint, if there is one.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub fn load(&self, device: tch::Device) -> Result<Option<(Params, u64)>> {
        let path = self.run.file(&format!("{}.progress.json", self.step));
        let Ok(text) = std::fs::read(&path) else { return Ok(None) };
        let progress: Progress =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged; delete it to start anew", path.display()))?;
        let params = Params::load(&self.run.file(&format!("{}.checkpoint.safetensors", self.step)), device)?;
        Ok(Some((params, progress.step)))
    }

    /// Loads the optimiser's state.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load_optimiser(&self, optimiser: &mut AdamW) -> Result<()> {
        Ok(optimiser.load(&self.run.file(&format!("{}.optimiser.safetensors", self.step)))?)
    }

    /// Adds a line to the step's log.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn log(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.run.file(&format!("{}.log.jsonl", self.step));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
    }
}
