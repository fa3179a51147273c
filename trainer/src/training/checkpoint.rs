//! Checkpoints of a training stage, from which it can resume.
//!
//! A checkpoint is one file: what the stage trains, the optimiser's moments, and how far it is. The file is replaced by renaming, so that
//! at any moment there is one whole checkpoint, or none.

use crate::distributed::Peers;
use crate::graph::adamw::AdamW;
use crate::graph::{Params, write_tensors};
use crate::run::Run;
use anatomix::parts::files;
use anyhow::{Context, Result, anyhow};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// How a training stage starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Whether to resume at the last checkpoint, if there is one.
    pub resume: bool,
    /// Safetensors file with initial parameters; the others are random.
    pub from: Option<&'a Path>,
    /// Whether to print what would be done, and to write nothing.
    pub dry_run: bool,
    /// The processes that train together.
    pub peers: Peers<'a>,
}

/// How far a training stage is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Number of optimiser steps that are done.
    pub step: u64,
    /// Running means of the loss and its parts.
    pub means: Vec<f64>,
    /// Lowest running mean of the loss.
    pub lowest: f64,
    /// Score of the best validation.
    pub best: f64,
}

impl Progress {
    fn tensor(&self) -> Tensor {
        Tensor::from_slice(&[&[self.step as f64, self.lowest, self.best], self.means.as_slice()].concat())
    }

    fn of(tensor: &Tensor) -> Option<Self> {
        match Vec::<f64>::try_from(tensor).ok()?.as_slice() {
            [step, lowest, best, means @ ..] if *step >= 0.0 => {
                Some(Self { step: *step as u64, means: means.to_vec(), lowest: *lowest, best: *best })
            }
            _ => None,
        }
    }
}

/// Name of the tensor with the checksum of the others.
pub(super) const CHECKSUM: &str = "checksum";
/// Number of values that the checksum takes at a time.
const BLOCK: i64 = 1 << 20;

/// CRC-32C of tensors on the CPU: of their names, types, shapes and values, in the order of their names.
pub(super) fn checksum<'t>(tensors: impl Iterator<Item = (&'t str, &'t Tensor)>) -> Result<u32> {
    let (mut sum, mut bytes) = (0, Vec::new());
    for (name, tensor) in tensors.collect::<BTreeMap<_, _>>() {
        let about = format!("{name} {:?} {:?}", tensor.kind(), tensor.size());
        sum = crc32c::crc32c_append(sum, about.as_bytes());
        let values = tensor.contiguous().view(-1);
        let count = values.numel() as i64;
        for from in (0..count).step_by(BLOCK as usize) {
            let part = values.narrow(0, from, BLOCK.min(count - from));
            bytes.resize(part.numel() * part.kind().elt_size_in_bytes(), 0);
            part.f_copy_data_u8(&mut bytes, part.numel())?;
            sum = crc32c::crc32c_append(sum, &bytes);
        }
    }
    Ok(sum)
}

/// Renames a file, if there is one, to `NAME.earlier.EXTENSION`, or if that is taken to `NAME.earlier.2.EXTENSION` and so on. Returns its
/// new path.
///
/// # Errors
/// If it cannot be renamed.
pub(super) fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    if !is_taken(path) {
        return Ok(None);
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_extension(format!("earlier.{extension}"));
    let mut number = 1;
    while is_taken(&aside) {
        number += 1;
        aside = path.with_extension(format!("earlier.{number}.{extension}"));
    }
    std::fs::rename(path, &aside).with_context(|| format!("cannot rename {} to {}", path.display(), aside.display()))?;
    Ok(Some(aside))
}

/// Whether something is at this path, also a link to nothing or what cannot be looked at.
fn is_taken(path: &Path) -> bool {
    !path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
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

    fn path(&self) -> PathBuf {
        self.run.file(&format!("{}.checkpoint.safetensors", self.stage))
    }

    /// Path of the parameters with the best score.
    pub fn best(&self) -> PathBuf {
        self.run.file(&format!("{}.best.safetensors", self.stage))
    }

    /// Moves the checkpoint of an earlier training out of the way, so that this one cannot be resumed from it. Returns its new path.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn set_aside(&self) -> Result<Option<PathBuf>> {
        set_aside(&self.path())
    }

    /// Whether there is a checkpoint.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Writes the parameters for which `kept` is true, the optimiser's state and the progress. Of several processes the first one does.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, params: &Params, kept: impl Fn(&str) -> bool, state: Vec<(String, Tensor)>, progress: &Progress) -> Result<()> {
        let own = params.named().into_iter().filter(|(name, _)| kept(name));
        let mut tensors: Vec<(String, Tensor)> = own.map(|(name, tensor)| (format!("params.{name}"), tensor)).collect();
        tensors.extend(state);
        tensors.push(("progress".into(), progress.tensor()));
        let on_cpu = |tensor: Tensor| tensor.detach().to_device(Device::Cpu).contiguous();
        let mut tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, on_cpu(tensor))).collect();
        let checksum = checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
        tensors.push((CHECKSUM.into(), Tensor::from_slice(&[i64::from(checksum)])));
        Ok(write_tensors(&tensors, &self.path())?)
    }

    /// Loads parameters and the optimiser's state over the present ones. Returns the progress.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, or belongs to other parameters.
    pub fn load(&self, params: &Params, kept: impl Fn(&str) -> bool, optimiser: &mut AdamW) -> Result<Progress> {
        let path = self.path();
        let again = || format!("{} cannot be resumed; delete it to start again", path.display());
        // A pipe or a device would be read without end.
        files::open(&path).with_context(again)?;
        let tensors = Tensor::read_safetensors(&path).with_context(again)?;
        let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
        let told = tensors.remove(CHECKSUM).filter(|told| told.size() == [1]).ok_or_else(|| anyhow!("it has no checksum"));
        let found = checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))).with_context(again)?;
        if told.with_context(again)?.int64_value(&[0]) != i64::from(found) {
            return Err(anyhow!("its checksum differs; the file is damaged")).with_context(again);
        }
        let progress = tensors.remove("progress").as_ref().and_then(Progress::of).ok_or_else(|| anyhow!("it has no progress"));
        let progress = progress.with_context(again)?;
        for (name, tensor) in params.named().into_iter().filter(|(name, _)| kept(name)) {
            let stored = tensors.remove(&format!("params.{name}")).filter(|t| t.size() == tensor.size());
            let stored = stored.ok_or_else(|| anyhow!("it has no {name} of the shape {:?}", tensor.size())).with_context(again)?;
            tch::no_grad(|| tensor.shallow_clone().copy_(&stored));
        }
        optimiser.restore(&mut tensors).map_err(anyhow::Error::msg).with_context(again)?;
        let mut extra: Vec<&String> = tensors.keys().collect();
        extra.sort();
        if let Some(name) = extra.first() {
            return Err(anyhow!("{name} in it is not part of this stage")).with_context(again);
        }
        Ok(progress)
    }
}
