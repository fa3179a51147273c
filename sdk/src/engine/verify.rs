//! Verifying a bundle, without opening an engine.

use crate::bundle::{Bundle, PublicKey, SENTENCES};
use crate::control::Until;
use crate::error::{Error, Result};
use crate::progress::{Phase, Watcher};
use crate::retrieval::SentenceDatabase;
use std::path::Path;

/// A bundle that was verified; see [`EngineBuilder::verify_bundle`](crate::EngineBuilder::verify_bundle).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedBundle {
    /// The bundle's name.
    pub name: String,
    /// SHA-256 of its manifest in hexadecimal, which identifies the bundle.
    pub sha256: String,
    /// How many files the manifest lists.
    pub files: usize,
    /// Size of these files in bytes.
    pub bytes: u64,
}

/// Opens a bundle and compares hashes, of all files if there is a key or `all` asks for it.
pub(super) fn open(folder: &Path, key: Option<&PublicKey>, all: bool, until: &Until, progress: &Watcher) -> Result<Bundle> {
    until.check()?;
    Bundle::open_watched(folder, key, all, |done, total| -> Result<()> {
        progress.report(Phase::Hashes, done, total);
        Ok(until.check()?)
    })
}

/// Verifies all files of a bundle and its whole sentence database.
pub(super) fn verify(folder: &Path, key: Option<&PublicKey>, until: &Until, progress: &Watcher) -> Result<VerifiedBundle> {
    let bundle = open(folder, key, true, until, progress)?;
    // Neither opening nor hashing looks at what the database says.
    let meter = progress.begin(Phase::Sentences, 1);
    let database = SentenceDatabase::open(&bundle.file(SENTENCES), bundle.manifest().apm.embedding_width)?;
    database.verify().map_err(Error::from)?;
    meter.advance(1);
    until.check()?;
    bundle.check_unchanged()?;
    Ok(VerifiedBundle {
        name: bundle.manifest().name.clone(),
        sha256: bundle.hash().into(),
        files: bundle.manifest().files.len(),
        bytes: bundle.bytes(),
    })
}
