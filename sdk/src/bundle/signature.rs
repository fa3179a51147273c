//! Signatures of bundles, in minisign's format: a file beside the manifest signs the manifest's bytes, which hold the hashes of all files.

use super::error::BundleError;
use super::layout::{MAX_SIGNATURE, SIGNATURE};
use super::regular::check_regular;
use crate::cause::{self, Problem};
use crate::files;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

/// A public key of [minisign](https://jedisct1.github.io/minisign/). An engine that is given one opens only bundles that its owner signed:
/// see [`EngineBuilder::public_key`](crate::EngineBuilder::public_key).
///
/// It is parsed from the text of minisign's `.pub` file, or from the second line of that file alone.
///
/// ```
/// # fn main() -> anatomix::Result<()> {
/// let key: anatomix::PublicKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse()?;
/// let opened = anatomix::Engine::builder().public_key(key).open("examples/reference-bundle");
/// assert!(opened.is_err(), "the reference bundle is not signed by this key");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(minisign_verify::PublicKey);

impl FromStr for PublicKey {
    type Err = BundleError;

    fn from_str(text: &str) -> Result<Self, BundleError> {
        let text = text.trim();
        let parse = if text.contains('\n') { minisign_verify::PublicKey::decode } else { minisign_verify::PublicKey::from_base64 };
        parse(text).map(Self).map_err(|error| BundleError::PublicKey { source: cause::source(error) })
    }
}

impl PublicKey {
    /// Checks that the bundle's folder holds a signature by this key of these bytes, the manifest.
    ///
    /// # Errors
    /// [`BundleError::Unsigned`] without a signature, [`BundleError::Signature`] with another one.
    pub(super) fn check(&self, folder: &Path, manifest: &[u8]) -> Result<(), BundleError> {
        let path = folder.join(SIGNATURE);
        check_regular(&path).map_err(|error| match error {
            BundleError::Read { path, source } if source.kind() == ErrorKind::NotFound => BundleError::Unsigned { path },
            error => error,
        })?;
        let bytes = files::read(&path, MAX_SIGNATURE).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        let text = String::from_utf8_lossy(&bytes);
        minisign_verify::Signature::decode(&text)
            .map_err(|error| Problem::caused("it is not a signature by minisign", error))
            .and_then(|signature| self.0.verify(manifest, &signature, false).map_err(reason))
            .map_err(|Problem { message, source }| BundleError::Signature { path, message, source })
    }
}

fn reason(error: minisign_verify::Error) -> Problem {
    match error {
        minisign_verify::Error::UnexpectedKeyId => "it is by another key".into(),
        minisign_verify::Error::InvalidSignature => "it is of another manifest, or by another key".into(),
        error => Problem::caused("it is of another kind", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_key_is_a_line_or_a_file() {
        let key: PublicKey = KEY.parse().unwrap();
        for text in [format!("untrusted comment: minisign public key\n{KEY}\n"), format!("a key\r\n{KEY}\r\n"), format!(" {KEY}\n")] {
            assert_eq!(text.parse::<PublicKey>().unwrap().0.untrusted_comment().is_some(), text.trim().contains('\n'));
        }
        for text in [
            "",
            "\n",
            "\n\n",
            "key",
            &KEY[1..],
            &format!("{KEY}A"),
            &format!("{KEY}\nuntrusted comment"),
            "\u{e4}\n\u{e4}",
            &"A".repeat(1 << 20),
        ] {
            assert!(matches!(text.parse::<PublicKey>(), Err(BundleError::PublicKey { .. })), "{text:.80}");
        }
        assert!(matches!(key.check(Path::new("/no/such/folder"), b""), Err(BundleError::Unsigned { .. })));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let key: PublicKey = KEY.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        // minisign's own example: a signature of "test" by this key.
        let signature = "untrusted comment: signature from minisign secret key\n\
            RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
            trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
            wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
        let check = |bytes: &[u8], manifest: &[u8]| {
            std::fs::write(folder.path().join(SIGNATURE), bytes).unwrap();
            key.check(folder.path(), manifest)
        };
        check(signature.as_bytes(), b"test").unwrap();
        let refused = |bytes: &[u8], manifest: &[u8]| assert!(matches!(check(bytes, manifest), Err(BundleError::Signature { .. })));
        refused(signature.as_bytes(), b"Test");
        refused(signature.replace("file:test", "file:fest").as_bytes(), b"test");
        refused(signature.replace("RUQf6", "RUQf7").as_bytes(), b"test");
        for end in 0..signature.trim_end().len() {
            refused(&signature.as_bytes()[..end], b"test");
        }
        refused(&[0xff; 300], b"test");
        assert!(matches!(check(&[b'a'; MAX_SIGNATURE as usize + 1], b"test"), Err(BundleError::Read { .. })));
    }
}
