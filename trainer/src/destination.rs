//! Folders that appear completely or not at all: they are made beside their path and then renamed.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a folder is to be, and the folder in which it is made.
pub struct Destination {
    out: PathBuf,
    scratch: TempDir,
    folder: PathBuf,
    check_replaceable: fn(&Path) -> Result<()>,
}

impl Destination {
    /// Checks the path, and makes the folder beside it. `check_replaceable` fails if something is at the path that must not be replaced.
    ///
    /// # Errors
    /// If the check fails, or nothing can be written there.
    pub fn new(out: &Path, check_replaceable: fn(&Path) -> Result<()>) -> Result<Self> {
        check_replaceable(out)?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
        let failed = || format!("cannot write into {}", parent.display());
        let scratch = tempfile::Builder::new().prefix(".anatomix-").tempdir_in(parent).with_context(failed)?;
        let folder = scratch.path().join("new");
        fs::create_dir(&folder).with_context(failed)?;
        Ok(Self { out: out.into(), scratch, folder, check_replaceable })
    }

    /// The folder to write to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the finished folder to its path. An earlier one is deleted with the temporary folder.
    ///
    /// # Errors
    /// If the earlier folder must not be replaced by now, or cannot be.
    pub fn install(self) -> Result<()> {
        // Checked again, because making the folder took time.
        (self.check_replaceable)(&self.out)?;
        let failed = || format!("cannot put the finished folder at {}", self.out.display());
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
