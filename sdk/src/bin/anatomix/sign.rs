//! `anatomix bundle sign`: writes a signature in minisign's format beside a bundle's manifest.

use crate::common::{Failure, read_text};
use anatomix::Error;
use anatomix::output::write_whole;
use anatomix::parts::bundle::{MANIFEST, SIGNATURE};
use anatomix::parts::hash::Digest;
use ct_codecs::{Base64, Decoder};
use minisign::{PublicKey, SecretKey, SecretKeyBox};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Largest accepted file of a secret key in bytes.
const MAX_KEY: u64 = 4096;
/// Largest manifest in bytes that a bundle is opened with.
const MAX_MANIFEST: u64 = 1 << 20;
/// Size of a secret key in bytes, and the bytes that name its key derivation; zeros mean that it is not encrypted.
const KEY_BYTES: usize = 158;
const KDF: std::ops::Range<usize> = 2..4;

/// Checks that a signature in this folder replaces nothing but a signature: a received bundle could have a link there.
pub fn check_place(folder: &Path, key: &Path) -> Result<(), Failure> {
    let path = folder.join(SIGNATURE);
    if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(Failure::Usage(format!(
            "{} is a link or not a regular file, and the signature would be written there; remove it",
            path.display()
        )));
    }
    if path.canonicalize().is_ok_and(|place| key.canonicalize().is_ok_and(|key| key == place)) {
        return Err(Failure::Usage(format!("the signature would replace the key {}; move the key out of the bundle", key.display())));
    }
    Ok(())
}

/// Signs the manifest of the bundle that was verified, which has this SHA-256, and returns the path of the signature.
pub fn sign(folder: &Path, sha256: &str, secret: &SecretKey) -> Result<PathBuf, Failure> {
    let (manifest, path) = (folder.join(MANIFEST), folder.join(SIGNATURE));
    // What was checked is what is signed.
    let text = read_text(&manifest, MAX_MANIFEST)?;
    if Digest::of(text.as_bytes()).to_string() != sha256 {
        return Err(Failure::Message(format!("{} was changed just now; try again", manifest.display())));
    }
    let comment = format!("AnatomiX bundle {sha256}");
    // The public half of the key verifies what was signed, so a damaged key signs nothing.
    let signature = PublicKey::from_secret_key(secret)
        .and_then(|public| {
            minisign::sign(Some(&public), secret, text.as_bytes(), Some(&comment), Some("signature of an AnatomiX manifest"))
        })
        .map_err(|e| Failure::Message(format!("{} cannot be signed: {e}", manifest.display())))?;
    write_whole(&path, signature.to_string().as_bytes()).map_err(Error::from)?;
    Ok(path)
}

/// Reads a secret key. If it has a password, asks for it on the terminal.
pub fn secret(path: &Path) -> Result<SecretKey, Failure> {
    let name = path.display();
    let failed = |reason: &dyn Display| Failure::Message(format!("{name} cannot be used as a secret key of minisign: {reason}"));
    let text = read_text(path, MAX_KEY)?;
    let stored = text.lines().nth(1).and_then(|line| Base64::decode_to_vec(line.trim(), None).ok()).unwrap_or_default();
    if stored.len() != KEY_BYTES {
        return Err(failed(&"its second line is not a key"));
    }
    // minisign gives a key without a password no checksum, which `SecretKeyBox` insists on. Signing finds a damaged key, too.
    if stored[KDF] == [0, 0] {
        return SecretKey::from_bytes(&stored).map_err(|e| failed(&e));
    }
    let password = rpassword::prompt_password(format!("password of {name}: ")).map_err(|error| {
        Failure::Message(format!("{name} has a password, which cannot be asked for without a terminal ({error}); use a key without one"))
    })?;
    SecretKeyBox::from_string(&text).and_then(|stored| stored.into_secret_key(Some(password))).map_err(|e| failed(&e))
}
