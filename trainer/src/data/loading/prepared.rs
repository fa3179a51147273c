//! A prepared folder, opened for reading.

use crate::data::samples::folder::{PREPARED, SENTENCES};
use crate::data::samples::record::{Image, Source};
use crate::data::samples::summary::VERSION;
use crate::data::sources::files;
use anatomix::STRUCTURE_COUNT;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest table of contents, and list of sentences, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// The prepared folder inside a folder of phantoms.
pub const INSIDE: &str = "prepared";

/// A prepared folder.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The folder.
    pub folder: PathBuf,
    /// The folder that images are in, by source.
    roots: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
struct Contents {
    version: u32,
    folders: BTreeMap<String, PathBuf>,
}

impl Prepared {
    /// Opens a prepared folder, or the one inside a folder of phantoms.
    ///
    /// # Errors
    /// If there is none, or its layout is of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let candidates = [folder.to_owned(), folder.join(INSIDE)];
        let own = candidates.into_iter().find(|own| own.join(PREPARED).exists()).with_context(|| {
            format!(
                "{} is no prepared folder; name one that `anatomix-trainer prepare` or `anatomix-trainer phantom` wrote",
                folder.display()
            )
        })?;
        let path = own.join(PREPARED);
        let invalid = || format!("{} is not valid; prepare the folder again", path.display());
        let bytes = anatomix::parts::files::read(&path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let Contents { version, folders } = serde_json::from_slice(&bytes).with_context(invalid)?;
        ensure!(version == VERSION, "{} has version {version} of the layout, not {VERSION}; prepare the folder again", path.display());
        let roots = folders.into_iter().map(|(source, root)| (source, own.join(root))).collect();
        Ok(Self { folder: own, roots })
    }

    /// Whether images of a source were prepared.
    pub fn has(&self, source: Source) -> bool {
        self.roots.contains_key(source.name())
    }

    /// The folder of a source's images.
    ///
    /// # Errors
    /// If the table of contents does not name it.
    pub fn root(&self, source: Source) -> Result<&Path> {
        let root = self.roots.get(source.name()).map(PathBuf::as_path);
        root.with_context(|| format!("{} names no folder for {}", self.folder.join(PREPARED).display(), source.name()))
    }

    /// The path of an image's file.
    ///
    /// # Errors
    /// If the record's path leads out of the source's folder, or that folder is not known.
    pub fn path(&self, image: &Image) -> Result<PathBuf> {
        ensure!(files::is_path(&image.path), "the image {} has the path {}", image.id, files::shown(&image.path));
        Ok(self.root(image.source)?.join(&image.path))
    }

    /// The sentences of the database as they are kept in a run: for each structure a list of those in the splits that `prepare` was told.
    ///
    /// # Errors
    /// If they cannot be read, or a structure has none.
    pub fn sentences(&self) -> Result<Vec<u8>> {
        let path = self.folder.join(SENTENCES);
        let bytes = anatomix::parts::files::read(&path, MAX_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let lists: Vec<Vec<String>> =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not a list of sentences for each structure", path.display()))?;
        ensure!(lists.len() == STRUCTURE_COUNT, "{} has {} lists, not {STRUCTURE_COUNT}", path.display(), lists.len());
        ensure!(
            lists.iter().all(|list| !list.is_empty()),
            "{} has no sentences for some structures; prepare more images, or more splits (`database_splits`)",
            path.display()
        );
        Ok(serde_json::to_vec_pretty(&lists)?)
    }
}
