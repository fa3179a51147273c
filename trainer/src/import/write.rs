//! Atomic writing of a run's files; tensors are copied unchanged.

use super::checkpoint::Checkpoint;
use super::error::ImportError;
use super::stored::Stored;
use indicatif::ProgressBar;
use safetensors::tensor::{Metadata, TensorInfo};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Temporary files, which are renamed to their paths after all of them are written.
#[derive(Default)]
pub(super) struct Files {
    written: Vec<(NamedTempFile, PathBuf)>,
}

impl Files {
    /// Writes a file of these bytes.
    pub fn bytes(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), ImportError> {
        self.add(path, |file| file.write_all(bytes))
    }

    /// Writes the tensors of a checkpoint to a safetensors file, block by block.
    pub fn tensors(&mut self, path: PathBuf, from: &Checkpoint, bar: &ProgressBar) -> Result<(), ImportError> {
        // Sorted by type, the widest first, so that all tensors are aligned; then by name.
        let mut order: Vec<(&String, &Stored)> = from.tensors.iter().collect();
        order.sort_by_key(|(name, stored)| (std::cmp::Reverse(stored.dtype), *name));
        self.add(path, |file| {
            let mut at = 0;
            let infos = order.iter().map(|(name, stored)| {
                let from = at;
                at += stored.bytes() as usize;
                ((*name).clone(), TensorInfo { dtype: stored.dtype, shape: stored.shape.clone(), data_offsets: (from, at) })
            });
            let metadata = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
            let mut header = serde_json::to_vec(&metadata)?;
            header.resize(header.len().next_multiple_of(8), b' ');
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            for (_, stored) in &order {
                let read = stored.read(&mut |block| {
                    bar.inc(block.len() as u64);
                    file.write_all(block)
                });
                read.map_err(|e| io::Error::new(e.kind(), format!("{} of {}: {e}", stored.source, from.path.display())))?;
            }
            Ok(())
        })
    }

    fn add(&mut self, path: PathBuf, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ImportError> {
        let write = || {
            let mut file = temporary(path.parent().unwrap_or(Path::new(".")))?;
            let mut buffered = io::BufWriter::with_capacity(1 << 20, file.as_file_mut());
            fill(&mut buffered)?;
            buffered.flush()?;
            drop(buffered);
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|e: io::Error| ImportError::file(&path, e))?;
        self.written.push((file, path));
        Ok(())
    }

    /// Renames the files to their paths, in the order in which they were written.
    pub fn install(self) -> Result<(), ImportError> {
        for (file, path) in self.written {
            file.persist(&path).map_err(|e| ImportError::file(&path, e.error))?;
        }
        Ok(())
    }
}

/// A temporary file with the permissions of other new files.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().prefix(".import-").permissions(std::fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}
