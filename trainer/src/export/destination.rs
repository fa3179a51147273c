//! The destination of an export: the bundle's folder is made beside it and then renamed, so that it appears completely or not at all.

use crate::graph::onnx::is_own;
use anatomix::Manifest;
use anatomix::parts::bundle::{APM, DECODER, MANIFEST, PROJECTOR};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a bundle is written to, and the folder in which it is made.
pub(super) struct Destination {
    out: PathBuf,
    scratch: TempDir,
    folder: PathBuf,
}

impl Destination {
    /// Checks the path, and makes the folder beside it.
    pub fn new(out: &Path) -> Result<Self> {
        check_replaceable(out)?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
        let failed = || format!("cannot write into {}", parent.display());
        let scratch = tempfile::Builder::new().prefix(".export-").tempdir_in(parent).with_context(failed)?;
        let folder = scratch.path().join("bundle");
        fs::create_dir(&folder).with_context(failed)?;
        Ok(Self { out: out.into(), scratch, folder })
    }

    /// The folder to write to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the finished folder to its path. An earlier bundle is deleted with the temporary folder.
    pub fn install(self) -> Result<()> {
        // Checked again, because the export took time.
        check_replaceable(&self.out)?;
        let failed = || format!("cannot put the bundle at {}", self.out.display());
        let previous = self.scratch.path().join("previous");
        let replaces = self.out.exists();
        if replaces {
            fs::rename(&self.out, &previous).with_context(failed)?;
        }
        if let Err(error) = fs::rename(&self.folder, &self.out) {
            if replaces {
                fs::rename(&previous, &self.out).with_context(failed)?;
            }
            return Err(error).with_context(failed);
        }
        Ok(())
    }
}

/// Whether a folder has only graphs that this program wrote, as after the export of an incomplete run.
fn is_partial(out: &Path, names: &[String]) -> bool {
    let graphs = [APM, PROJECTOR, DECODER];
    let known = |name: &String| graphs.iter().any(|graph| name == graph || *name == format!("{graph}.data"));
    names.iter().all(known) && graphs.iter().filter(|g| names.iter().any(|n| n.starts_with(**g))).all(|g| is_own(&out.join(g)))
}

/// Checks that `out` does not exist, is empty, or is a bundle or a part of one, so that no other files are deleted.
fn check_replaceable(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let advice = "choose another folder or remove it yourself";
    if !out.is_dir() {
        bail!("{} is a file; {advice}", out.display());
    }
    let entries = fs::read_dir(out).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("cannot read {}", out.display()))?;
    if entries.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = entries.into_iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    if is_partial(out, &names) {
        return Ok(());
    }
    let manifest = fs::read(out.join(MANIFEST)).ok().and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
    let Some(manifest) = manifest else { bail!("{} is not a bundle; {advice}", out.display()) };
    if let Some(own) = names.iter().find(|n| *n != MANIFEST && !manifest.files.contains_key(*n)) {
        bail!("{} holds {own}, which is not of its bundle and would be lost; {advice}", out.display());
    }
    Ok(())
}
