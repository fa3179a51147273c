//! Reading a file, and hashing what has been read while the rest is on its way.

use super::{Digest256, MAX_BYTES, RadiographError};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Result};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes hashed in one go.
const HASHED: usize = 1 << 19;
/// Bytes read in the meantime: reading is faster. The rest is hashed while the file is decoded.
const READ: usize = 2 * HASHED;

/// The SHA-256 of a file, of which the first bytes have been seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Hash {
    state: Sha256,
    seen: usize,
}

impl Hash {
    fn see(&mut self, bytes: &[u8]) {
        self.state.update(&bytes[self.seen..]);
        self.seen = bytes.len();
    }

    /// As much as there is time for before `stop` is set.
    pub fn see_until(&mut self, bytes: &[u8], stop: &AtomicBool) {
        while self.seen < bytes.len() && !stop.load(Ordering::Relaxed) {
            self.see(&bytes[..bytes.len().min(self.seen + HASHED)]);
        }
    }

    /// Of all bytes, in hexadecimal.
    pub fn finish(mut self, bytes: &[u8]) -> String {
        self.see(bytes);
        format!("{:x}", Digest256(self.state.finalize().into()))
    }
}

/// The SHA-256 of a file, finished when it is needed.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint {
    begun: Hash,
    finished: OnceLock<String>,
}

impl Fingerprint {
    pub fn begun(begun: Hash) -> Self {
        Self { begun, finished: OnceLock::new() }
    }

    /// In hexadecimal; `file` is the whole file, which does not matter to a finished one.
    pub fn of(&self, file: &[u8]) -> &str {
        self.finished.get_or_init(|| self.begun.clone().finish(file))
    }
}

impl From<String> for Fingerprint {
    fn from(finished: String) -> Self {
        Self { begun: Hash::default(), finished: finished.into() }
    }
}

/// All bytes of a file, of which the first are hashed already.
pub(super) fn whole(path: &Path, name: &str) -> std::result::Result<(Vec<u8>, Hash), RadiographError> {
    let failed = |source| RadiographError::Read { name: name.into(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(RadiographError::Folder { name: name.into() });
    }
    let too_large = || RadiographError::TooLarge { name: name.into(), limit: MAX_BYTES };
    if metadata.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut file = fs::File::open(path).map_err(failed)?.take(MAX_BYTES + 1);
    let (mut bytes, hash) = announced(&mut file, metadata.len() as usize).map_err(failed)?;
    // A file may have grown meanwhile, and what is no regular file announces nothing.
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_large()) } else { Ok((bytes, hash)) }
}

/// The first `length` bytes, or as many as there are.
fn announced(file: &mut (impl Read + Send), length: usize) -> Result<(Vec<u8>, Hash)> {
    let (mut bytes, mut hash, mut filled) = (vec![0; length], Hash::default(), 0);
    while filled < length {
        let (done, rest) = bytes.split_at_mut(filled);
        let known = &done[..filled.min(hash.seen + HASHED)];
        let room = rest.len().min(READ);
        let ((), read) = rayon::join(|| hash.see(known), || fill(file, &mut rest[..room]));
        let read = read?;
        filled += read;
        if read == 0 {
            break;
        }
    }
    bytes.truncate(filled);
    Ok((bytes, hash))
}

/// How many bytes were read; fewer than there is room for only at the end.
fn fill(file: &mut impl Read, mut room: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while !room.is_empty() {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                room = &mut room[read..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_are_read_and_hashed() {
        let bytes: Vec<u8> = (0..3 * READ + 7).map(|i| (i * 31 % 251) as u8).collect();
        for length in [0, 1, HASHED, READ, READ + 1, bytes.len()] {
            let file = &bytes[..length];
            let expected = format!("{:x}", Digest256(Sha256::digest(file).into()));
            assert_eq!(Hash::default().finish(file), expected);
            // As long as it said, then longer, then shorter.
            for announces in [length, length / 2, length + 5] {
                let mut rest = file;
                let (mut read, hash) = announced(&mut rest, announces).unwrap();
                rest.read_to_end(&mut read).unwrap();
                assert_eq!((read == file, hash.finish(&read)), (true, expected.clone()), "{length} {announces}");
            }
        }
    }
}
