//! Checkpoints of a training stage, from which it can resume.

use crate::graph::Params;
use crate::graph::adamw::AdamW;
use crate::run::Run;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// Where a training stage starts: at its last checkpoint if `resume` is true and there is one, otherwise with the parameters of `from`, or
/// with random parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Whether to resume at the last checkpoint.
    pub resume: bool,
    /// Safetensors file with initial parameters.
    pub from: Option<&'a Path>,
}

/// Progress of a training stage.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Number of optimiser steps that are done.
    pub step: u64,
}

/// The files of a training stage's checkpoint.
pub struct Checkpoint<'a> {
    run: &'a Run,
    stage: &'a str,
}

impl<'a> Checkpoint<'a> {
    /// The checkpoint of the training stage with this name.
    pub fn new(run: &'a Run, stage: &'a str) -> Self {
        Self { run, stage }
    }

    /// Writes parameters, the optimiser's state and the progress. The progress is written last, so that it does not exist without the
    /// other files.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, params: &Params, optimiser: &AdamW, step: u64) -> Result<()> {
        params.save(&self.run.file(&format!("{}.checkpoint.safetensors", self.stage)), |_| true)?;
        optimiser.save(&self.run.file(&format!("{}.optimiser.safetensors", self.stage)))?;
        let path = self.run.file(&format!("{}.progress.json", self.stage));
        std::fs::write(&path, serde_json::to_vec(&Progress { step })?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Loads the parameters and the progress in optimiser steps; `None` if there is no checkpoint.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn load(&self, device: tch::Device) -> Result<Option<(Params, u64)>> {
        let path = self.run.file(&format!("{}.progress.json", self.stage));
        let Ok(text) = std::fs::read(&path) else { return Ok(None) };
        let progress: Progress =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged; delete it to start again", path.display()))?;
        let params = Params::load(&self.run.file(&format!("{}.checkpoint.safetensors", self.stage)), device)?;
        Ok(Some((params, progress.step)))
    }

    /// Loads the optimiser's state.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load_optimiser(&self, optimiser: &mut AdamW) -> Result<()> {
        Ok(optimiser.load(&self.run.file(&format!("{}.optimiser.safetensors", self.stage)))?)
    }

    /// Appends a line to the training stage's log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn log(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.run.file(&format!("{}.log.jsonl", self.stage));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
    }
}
