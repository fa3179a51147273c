//! The lock of a run's folder: of all programs, one at a time changes a run.

use crate::distributed::host_name;
use crate::progress::say;
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// File name of the lock. The file stays; the system releases its lock when the program ends, however it ends.
const LOCK: &str = "lock";
/// Longest text in it that is read, in bytes.
const MAX_HOLDER: u64 = 200;

/// A locked folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a run's folder.
    ///
    /// # Errors
    /// If another program has locked it, which the error names, or the lock's file cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let failed = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Whoever has just locked it may not have written its name yet.
                let _ = file.take(MAX_HOLDER).read_to_string(&mut holder);
                let holder = holder.lines().next().filter(|line| !line.is_empty()).unwrap_or("another program").escape_debug();
                bail!("{} is in use by {holder}; wait until that ends, or take another run folder", folder.display());
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => say(&format!("{} cannot be locked ({error}); start nothing else there", folder.display())),
        }
        let holder = format!("process {} on {}\n", std::process::id(), host_name());
        file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).with_context(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        let own = format!("process {} on ", std::process::id());
        assert!(error.contains(&folder.path().display().to_string()) && error.contains(&own), "{error}");
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }
}
