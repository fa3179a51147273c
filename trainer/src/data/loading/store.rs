//! A folder of computed values, one file each. A value is written whole or not at all, with a checksum; one that is damaged is not there.

use anatomix::parts::hash::Digest;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of the checksum, CRC-32C, at the end of a file.
const CHECKSUM: usize = 4;

/// Values of one kind, all of the same length in bytes.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    length: usize,
}

/// The name of a value: a hash of what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Store {
    /// The values in `folder/KIND.KEY`, each of `length` bytes. The key is a hash of the settings that they follow from.
    pub fn new(folder: &Path, kind: &str, key: &Digest, length: usize) -> Self {
        let key: String = key.to_string().chars().take(16).collect();
        Self { folder: folder.join(format!("{kind}.{key}")), length }
    }

    /// The name of the value for an image's file. It changes with the file's path, size and time of change.
    ///
    /// # Errors
    /// If the file cannot be reached.
    pub fn name_for(path: &Path) -> Result<Name> {
        let failed = || format!("cannot read {}", path.display());
        let about = fs::metadata(path).with_context(failed)?;
        let changed = about.modified().with_context(failed)?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = std::path::absolute(path).with_context(failed)?;
        let whole = format!("{} {} {}", about.len(), changed.as_nanos(), path.display());
        Ok(Name(Digest::of(whole.as_bytes()).to_string()))
    }

    /// The path of a value's file.
    pub fn path(&self, name: &Name) -> PathBuf {
        // Folders with hundred thousands of files are slow on some file systems.
        let (start, rest) = name.0.split_at(2);
        self.folder.join(start).join(rest)
    }

    /// Bytes of a value on disk.
    pub fn bytes(&self) -> usize {
        self.length + CHECKSUM
    }

    /// Whether there is a file of the right length. Its checksum is compared when it is read.
    pub fn has(&self, name: &Name) -> bool {
        fs::metadata(self.path(name)).is_ok_and(|about| about.len() == self.bytes() as u64)
    }

    /// Reads a value; `None` if it is not there or damaged.
    pub fn get(&self, name: &Name) -> Option<Vec<u8>> {
        let mut bytes = anatomix::parts::files::read(&self.path(name), self.bytes() as u64).ok()?;
        let checksum = bytes.split_off(bytes.len().checked_sub(CHECKSUM)?);
        (bytes.len() == self.length && crc32c::crc32c(&bytes).to_le_bytes() == *checksum).then_some(bytes)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        let failed =
            || format!("cannot write {}; make room there, or name another folder as `cache` in [loading], or none", path.display());
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        file.write_all(bytes).and_then(|()| file.write_all(&crc32c::crc32c(bytes).to_le_bytes())).with_context(failed)?;
        // Without a sync: after a loss of power the checksum tells.
        file.persist(&path).map_err(|error| error.error).with_context(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_values_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, "a").unwrap();
        let store = Store::new(folder.path(), "kind", &Digest::of(b"settings"), 3);
        let name = Store::name_for(&image).unwrap();
        assert_eq!((store.get(&name), store.has(&name)), (None, false));
        store.put(&name, &[1, 2, 3]).unwrap();
        assert_eq!((store.get(&name), store.has(&name)), (Some(vec![1, 2, 3]), true));
        let whole = fs::read(store.path(&name)).unwrap();
        for damaged in [&whole[..5], &[9, 2, 3, whole[3], whole[4], whole[5], whole[6]], &[], &[whole.as_slice(), &[0]].concat()] {
            fs::write(store.path(&name), damaged).unwrap();
            assert_eq!(store.get(&name), None, "{damaged:?}");
        }
        // Nothing but the value is left.
        assert_eq!(fs::read_dir(store.path(&name).parent().unwrap()).unwrap().count(), 1);
        let other = Store::new(folder.path(), "kind", &Digest::of(b"other settings"), 3);
        assert_eq!(other.get(&name), None);
        fs::write(&image, "ab").unwrap();
        assert_ne!(Store::name_for(&image).unwrap(), name, "another image");
    }
}
