//! The SHA-256 of a file. It takes one core as long as the network's input takes two, so it is computed beside other work.

use crate::hash::{Digest, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are hashed between two looks at the stop flag.
const PART: usize = 1 << 18;

/// An unfinished SHA-256 of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileHasher {
    state: Hasher,
    /// Number of bytes that are hashed.
    seen: usize,
}

impl FileHasher {
    /// Continues to the end of `bytes`, the beginning of the file.
    fn see(&mut self, bytes: &[u8]) {
        self.state.update(&bytes[self.seen..]);
        self.seen = bytes.len();
    }

    /// Continues with `file` until `stop` is set or the file ends.
    pub fn see_until(&mut self, file: &[u8], stop: &AtomicBool) {
        while self.seen < file.len() && !stop.load(Ordering::Relaxed) {
            self.see(&file[..file.len().min(self.seen + PART)]);
        }
    }

    /// The hash of the whole `file`, in hexadecimal.
    pub fn finish(mut self, file: &[u8]) -> String {
        self.see(file);
        self.state.finish().to_string()
    }
}

/// The hash that names a radiograph: the SHA-256 of its file, which is finished when it is first requested. A radiograph that was
/// mirrored or inverted has a hash of its own, because it is another image.
#[derive(Clone, Debug, Default)]
pub(super) struct FileDigest {
    begun: FileHasher,
    /// The hash of the file.
    finished: OnceLock<String>,
    is_mirrored: bool,
    is_inverted: bool,
    /// The hash of the changed image.
    changed: OnceLock<String>,
}

impl FileDigest {
    pub fn begun(begun: FileHasher) -> Self {
        Self { begun, ..Self::default() }
    }

    /// The hash in hexadecimal. `file` is the whole file; it is not read if its hash is finished.
    pub fn of(&self, file: &[u8]) -> &str {
        let finished = self.finished.get_or_init(|| self.begun.clone().finish(file));
        let change = match (self.is_mirrored, self.is_inverted) {
            (false, false) => return finished,
            (true, false) => "mirrored",
            (false, true) => "inverted",
            (true, true) => "mirrored inverted",
        };
        self.changed.get_or_init(|| Digest::of(format!("{change} {finished}\n").as_bytes()).to_string())
    }

    /// That of the mirror image.
    pub fn mirrored(&self, file: &[u8]) -> Self {
        self.of(file);
        Self { is_mirrored: !self.is_mirrored, changed: OnceLock::new(), ..self.clone() }
    }

    /// That of the image with bright and dark swapped.
    pub fn inverted(self) -> Self {
        Self { is_inverted: !self.is_inverted, changed: OnceLock::new(), ..self }
    }
}

impl From<String> for FileDigest {
    fn from(finished: String) -> Self {
        Self { finished: finished.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_continues_where_it_stopped() {
        let bytes: Vec<u8> = (0..2 * PART + 7).map(|i| (i * 31 % 251) as u8).collect();
        for length in [0, 1, PART, PART + 1, bytes.len()] {
            let file = &bytes[..length];
            let expected = crate::hash::Digest::of(file).to_string();
            for seen in [0, length / 2, length] {
                let mut hash = FileHasher::default();
                hash.see(&file[..seen]);
                assert_eq!(FileDigest::begun(hash.clone()).of(file), expected);
                hash.see_until(file, &AtomicBool::new(true));
                assert_eq!(hash.seen, seen);
                hash.see_until(file, &AtomicBool::new(false));
                assert_eq!((hash.seen, hash.finish(file)), (length, expected.clone()));
            }
        }
    }
}
