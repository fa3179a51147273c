//! Which folders an export may replace.

use crate::graph::onnx::is_own;
use anatomix::Manifest;
use anatomix::parts::bundle::{APM, DECODER, MANIFEST, PROJECTOR};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// Whether a folder has only graphs that this program wrote, as after the export of an incomplete run.
fn is_partial(out: &Path, names: &[String]) -> bool {
    let graphs = [APM, PROJECTOR, DECODER];
    let known = |name: &String| graphs.iter().any(|graph| name == graph || *name == format!("{graph}.data"));
    names.iter().all(known) && graphs.iter().filter(|g| names.iter().any(|n| n.starts_with(**g))).all(|g| is_own(&out.join(g)))
}

/// Checks that `out` does not exist, is empty, or is a bundle or a part of one, so that no other files are deleted.
pub(super) fn check_replaceable(out: &Path) -> Result<()> {
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
