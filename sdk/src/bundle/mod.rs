//! Bundles: folders with the files of a model, which a manifest describes.

mod error;
mod graph;
mod layout;
mod manifest;
mod regular;
mod signature;

pub use error::BundleError;
pub use layout::{
    APM, DECODER, FULL_ATTENTION_BIAS, GOLDEN, MANIFEST, PROJECTOR, SCHEMA, SENTENCES, SIGNATURE, SLIDING_ATTENTION_BIAS, SLIDING_PLACES,
    TOKENIZER,
};
pub(crate) use layout::{MAX_GOLDEN, MAX_GRAPH};
pub use manifest::{ApmSizes, DecoderSizes, FileEntry, GraphSettings, Manifest, PromptSettings, TOLERANCE};
pub use signature::PublicKey;

use crate::cause::Problem;
use crate::files;
use crate::hash::{Digest, Hasher};
use crate::text::brief;
use layout::{DATABASE_HASHED_ON_OPEN, GRAPHS, HASHED_ON_OPEN, MAX_MANIFEST, REQUIRED};
use regular::{Seen, check_regular};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// An opened bundle: a folder whose files agree with its manifest.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    hash: String,
    /// The folder, the manifest and the listed files, as they were before they were read.
    seen: Vec<Seen>,
}

impl Bundle {
    /// Opens a bundle. The files that the manifest lists must be regular files of the listed sizes, and graphs must take their weights
    /// from listed files. Hashes are compared if the bundle has at most 256 MiB; the sentence database's hash only if it has at most
    /// 1 MiB. [`Bundle::verify`] compares all hashes.
    ///
    /// # Errors
    /// [`BundleError`], which names the file.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, BundleError> {
        Self::open_watched(folder.as_ref(), None, false, |_, _| Ok(()))
    }

    /// Opens a bundle whose manifest is signed by the owner of this key. The hashes of all files are compared, however large they are.
    ///
    /// # Errors
    /// As [`Bundle::open`], and if there is no signature, or one by another key or of another manifest.
    pub fn open_signed(folder: impl AsRef<Path>, key: &PublicKey) -> Result<Self, BundleError> {
        Self::open_watched(folder.as_ref(), Some(key), true, |_, _| Ok(()))
    }

    /// Opens a bundle as [`Bundle::open_signed`] does with a key, and as [`Bundle::open`] without one; `all` compares the hashes of all
    /// files. `watch` is called with the number of bytes hashed and of those to hash, first with 0; an error of it ends the call.
    ///
    /// # Errors
    /// As these two, and what `watch` returned.
    pub(crate) fn open_watched<E: From<BundleError>>(
        folder: &Path,
        key: Option<&PublicKey>,
        all: bool,
        watch: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        let bundle = Self::read(folder, key)?;
        bundle.compare(bundle.hashed(all || key.is_some()), watch)?;
        GRAPHS.iter().try_for_each(|name| bundle.check_graph(name))?;
        Ok(bundle)
    }

    /// Reads and checks the manifest and looks for the files that it lists; none of these is read.
    fn read(folder: &Path, key: Option<&PublicKey>) -> Result<Self, BundleError> {
        let folder = folder.to_path_buf();
        if folder.as_os_str().is_empty() {
            return Err(BundleError::NoPath);
        }
        let path = folder.join(MANIFEST);
        let before = Seen::now(&folder);
        // Of a folder that does not exist, no file is missing.
        check_regular(&path).map_err(|error| if folder.is_dir() { missing(error) } else { error })?;
        let seen = vec![before?, Seen::now(&path)?];
        let bytes = files::read(&path, MAX_MANIFEST).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        // Nothing of an unsigned manifest is looked at.
        key.map_or(Ok(()), |key| key.check(&folder, &bytes))?;
        let invalid = |problem| invalid(&path, problem);
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| invalid(Problem::caused("it is not JSON", e)))?;
        // The schema is checked first, because the fields of another schema may differ.
        let schema = value.get("schema").and_then(serde_json::Value::as_u64).ok_or_else(|| invalid("it has no schema number".into()))?;
        match schema.cmp(&u64::from(SCHEMA)) {
            std::cmp::Ordering::Less => return Err(BundleError::OlderSchema { path, found: schema }),
            std::cmp::Ordering::Greater => return Err(BundleError::NewerSchema { path, found: schema }),
            std::cmp::Ordering::Equal => {}
        }
        let manifest: Manifest =
            serde_json::from_value(value).map_err(|e| invalid(Problem::caused("a field is missing or has another type", e)))?;
        manifest.check(&path)?;
        if let Some(name) = REQUIRED.iter().find(|n| !manifest.files.contains_key(**n)) {
            return Err(invalid(format!("it does not list {name}").into()));
        }
        let mut bundle = Self { folder, hash: Digest::of(&bytes).to_string(), manifest, seen };
        bundle.check_files()?;
        Ok(bundle)
    }

    /// The files whose hashes are compared: all of them, or those that are quickly hashed.
    fn hashed(&self, all: bool) -> Vec<(&String, &FileEntry)> {
        let is_hashed = |(name, entry): &(&String, &FileEntry)| all || name.as_str() != SENTENCES || entry.bytes <= DATABASE_HASHED_ON_OPEN;
        let files: Vec<_> = self.manifest.files.iter().filter(is_hashed).collect();
        if all || size(&files) <= HASHED_ON_OPEN { files } else { Vec::new() }
    }

    /// Checks that all listed files exist and have the listed sizes.
    fn check_files(&mut self) -> Result<(), BundleError> {
        for (name, entry) in &self.manifest.files {
            let path = self.file(name);
            let found = check_regular(&path).map_err(missing)?.len();
            self.seen.push(Seen::now(&path)?);
            if found != entry.bytes {
                return Err(BundleError::Size { path, found, expected: entry.bytes });
            }
        }
        Ok(())
    }

    /// Checks that a graph takes its weights from listed files only.
    fn check_graph(&self, name: &str) -> Result<(), BundleError> {
        let path = self.file(name);
        let bytes = files::read(&path, MAX_GRAPH).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        let listed = |file: &[u8]| {
            let file = String::from_utf8_lossy(file);
            if self.manifest.files.contains_key(&*file) {
                return Ok(());
            }
            Err(format!("it takes weights from {:?}, which {MANIFEST} does not list", brief(file)))
        };
        graph::check_files(&bytes, &listed).map_err(|message| BundleError::Graph { path, message })
    }

    /// Compares the SHA-256 of every file. `progress` is called with the number of bytes read since its last call.
    ///
    /// # Errors
    /// [`BundleError::Altered`] for the first file that differs.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), BundleError> {
        let mut before = 0;
        self.compare(self.hashed(true), |done, _| {
            progress(done - std::mem::replace(&mut before, done));
            Ok(())
        })
    }

    /// Compares the hashes of these files; see [`Bundle::open_watched`] for `watch`.
    fn compare<E: From<BundleError>>(
        &self,
        files: Vec<(&String, &FileEntry)>,
        mut watch: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut done, total) = (0, size(&files));
        watch(done, total)?;
        for (name, entry) in files {
            let path = self.file(name);
            let found = hash_watched(&path, |bytes| {
                done = total.min(done + bytes);
                watch(done, total)
            })?;
            if !found.eq_ignore_ascii_case(&entry.sha256) {
                return Err(BundleError::Altered { path, found, expected: entry.sha256.clone() }.into());
            }
        }
        Ok(())
    }

    /// Checks that neither the folder nor a listed file was changed or replaced since the manifest was read: what was loaded meanwhile is
    /// what was compared.
    ///
    /// # Errors
    /// [`BundleError::Changed`].
    pub(crate) fn check_unchanged(&self) -> Result<(), BundleError> {
        // Files first: the folder changes with each that is replaced.
        self.seen.iter().rev().try_for_each(Seen::check)
    }

    /// The path of a file of the bundle.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest, which holds the hashes of all other files.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Size of all listed files in bytes.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.values().map(|f| f.bytes).fold(0, u64::saturating_add)
    }
}

/// Size of these files in bytes.
fn size(files: &[(&String, &FileEntry)]) -> u64 {
    files.iter().map(|(_, entry)| entry.bytes).fold(0, u64::saturating_add)
}

fn invalid(path: &Path, Problem { message, source }: Problem) -> BundleError {
    BundleError::Manifest { path: path.into(), message, source }
}

/// The error, or that the file is missing if that is why it cannot be read.
fn missing(error: BundleError) -> BundleError {
    match error {
        BundleError::Read { path, source } if source.kind() == ErrorKind::NotFound => BundleError::Missing { path },
        error => error,
    }
}

/// SHA-256 of a regular file in hexadecimal. `progress` is called with the number of bytes read since its last call.
///
/// # Errors
/// If the file cannot be read.
pub fn hash_file(path: &Path, mut progress: impl FnMut(u64)) -> Result<String, BundleError> {
    hash_watched(path, |bytes| {
        progress(bytes);
        Ok(())
    })
}

/// [`hash_file`], which ends if `progress` fails.
fn hash_watched<E: From<BundleError>>(path: &Path, mut progress: impl FnMut(u64) -> Result<(), E>) -> Result<String, E> {
    let failed = |source| BundleError::Read { path: path.into(), source };
    let mut file = files::open(path).map_err(failed)?;
    let mut hash = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(hash.finish().to_string());
        }
        hash.update(&buffer[..count]);
        progress(count as u64)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of the reference bundle whose sentence database is this much longer. The manifest has its new size, but its old hash.
    fn with_longer_database(more: usize) -> tempfile::TempDir {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle");
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(reference).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let [database, manifest] = [SENTENCES, MANIFEST].map(|name| folder.path().join(name));
        let mut bytes = std::fs::read(&database).unwrap();
        bytes.resize(bytes.len() + more, 0);
        std::fs::write(&database, &bytes).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        value["files"][SENTENCES]["bytes"] = bytes.len().into();
        std::fs::write(manifest, value.to_string()).unwrap();
        folder
    }

    #[test]
    fn a_large_database_is_not_read_on_opening() {
        let altered =
            |result: Result<(), BundleError>| matches!(result, Err(BundleError::Altered { path, .. }) if path.ends_with(SENTENCES));
        let folder = with_longer_database(8);
        assert!(altered(Bundle::open(folder.path()).map(|_| ())));
        let folder = with_longer_database(1 << 20);
        assert!(altered(Bundle::open(folder.path()).unwrap().verify(|_| ())));
    }
}
