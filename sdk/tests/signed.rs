//! Signed bundles: what `anatomix bundle sign` signed is opened with the public key, and nothing else is.

use anatomix::error::BundleError;
use anatomix::parts::bundle::{MANIFEST, SENTENCES, SIGNATURE, TOKENIZER};
use anatomix::{Bundle, Engine, Error, PublicKey};
use assert_cmd::Command;
use minisign::KeyPair;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Keys {
    pair: KeyPair,
    folder: TempDir,
}

impl Keys {
    fn new(password: Option<&str>) -> Self {
        let pair = match password {
            Some(password) => KeyPair::generate_encrypted_keypair(Some(password.into())),
            None => KeyPair::generate_unencrypted_keypair(),
        };
        let keys = Self { pair: pair.unwrap(), folder: tempfile::tempdir().unwrap() };
        fs::write(keys.secret(), keys.pair.sk.to_box(None).unwrap().to_string()).unwrap();
        fs::write(keys.public(), keys.pair.pk.to_box().unwrap().to_string()).unwrap();
        keys
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public")
    }

    fn key(&self) -> PublicKey {
        self.pair.pk.to_base64().parse().unwrap()
    }

    /// Signs whatever the manifest says, as `minisign -S` would.
    fn sign(&self, folder: &Path) {
        let manifest = fs::read(folder.join(MANIFEST)).unwrap();
        let signature = minisign::sign(None, &self.pair.sk, &manifest[..], None, None).unwrap();
        fs::write(folder.join(SIGNATURE), signature.to_string()).unwrap();
    }
}

fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn anatomix(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("anatomix"));
    command.args(arguments).arg(folder);
    command
}

fn refused(folder: &Path, key: PublicKey) -> BundleError {
    match Engine::builder().golden_check(false).public_key(key).open(folder) {
        Err(Error::Bundle(error)) => error,
        other => panic!("{:?}", other.map(|_| "opened").map_err(|e| e.to_string())),
    }
}

#[test]
fn what_the_program_signed_is_opened() {
    let (folder, keys) = (copy(), Keys::new(None));
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::Unsigned { path } if path.ends_with(SIGNATURE)));
    let before = Bundle::open(folder.path()).unwrap().hash().to_string();
    anatomix(&["bundle", "sign", "--key", keys.secret().to_str().unwrap()], folder.path()).assert().success().stdout(contains(&before));

    Engine::builder().golden_check(false).public_key(keys.key()).open(folder.path()).unwrap();
    let public = keys.public();
    let verify = ["bundle", "verify", "--public-key", public.to_str().unwrap()];
    anatomix(&verify, folder.path()).assert().success().stdout(contains("which the key's owner signed"));
    // Without a key, a signature changes nothing.
    anatomix(&["bundle", "verify"], folder.path()).assert().success().stdout(contains("signed").not());
}

#[test]
fn what_is_unsigned_altered_or_signed_by_another_is_refused() {
    let (folder, keys, other) = (copy(), Keys::new(None), Keys::new(None));
    let [manifest, signature, tokenizer, sentences] = [MANIFEST, SIGNATURE, TOKENIZER, SENTENCES].map(|name| folder.path().join(name));
    keys.sign(folder.path());
    Bundle::open_signed(folder.path(), &keys.key()).unwrap();

    assert!(matches!(refused(folder.path(), other.key()), BundleError::Signature { message, .. } if message == "it is by another key"));
    let public = other.public();
    let verify = ["bundle", "verify", "--public-key", public.to_str().unwrap()];
    anatomix(&verify, folder.path()).assert().code(1).stdout(is_empty()).stderr(contains("it is by another key"));

    // One byte of a file, then of the manifest, neither of which the eye would see.
    let bytes = fs::read(&tokenizer).unwrap();
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(&tokenizer, altered).unwrap();
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::Altered { path, .. } if path == tokenizer));
    fs::write(&tokenizer, bytes).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{text}\n")).unwrap();
    Bundle::open(folder.path()).unwrap();
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::Signature { message, .. } if message.contains("another manifest")));

    // A database that opening does not hash without a key.
    let mut bytes = fs::read(&sentences).unwrap();
    bytes.resize(bytes.len() + (1 << 20), 0);
    fs::write(&sentences, &bytes).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["files"][SENTENCES]["bytes"] = bytes.len().into();
    fs::write(&manifest, value.to_string()).unwrap();
    keys.sign(folder.path());
    Bundle::open(folder.path()).unwrap();
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::Altered { path, .. } if path == sentences));

    // The signature itself.
    fs::remove_file(&signature).unwrap();
    std::os::unix::fs::symlink(keys.public(), &signature).unwrap();
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::NotRegular { .. }));
    fs::remove_file(&signature).unwrap();
    fs::copy(keys.public(), &signature).unwrap();
    assert!(matches!(refused(folder.path(), keys.key()), BundleError::Signature { .. }));
}

#[test]
fn only_a_whole_bundle_is_signed_and_only_with_a_secret_key() {
    let (folder, keys) = (copy(), Keys::new(None));
    let sign =
        |key: &Path| anatomix(&["bundle", "sign", "--key", key.to_str().unwrap()], folder.path()).assert().code(1).stdout(is_empty());
    sign(&keys.public()).stderr(contains("cannot be used as a secret key of minisign"));
    sign(Path::new("/no/such/key")).stderr(contains("/no/such/key cannot be read"));
    let damaged = keys.folder.path().join("damaged");
    fs::write(&damaged, &fs::read(keys.secret()).unwrap()[..90]).unwrap();
    sign(&damaged).stderr(contains("cannot be used as a secret key of minisign"));
    // A byte of the secret half.
    let mut bytes = keys.pair.sk.to_bytes();
    bytes[70] ^= 1;
    fs::write(&damaged, minisign::SecretKey::from_bytes(&bytes).unwrap().to_box(None).unwrap().to_string()).unwrap();
    sign(&damaged).stderr(contains("cannot be signed"));
    // Without a terminal nobody can be asked for a password. `setsid` takes the terminal away, if there is one.
    let locked = Keys::new(Some("a password"));
    let mut command = Command::new("setsid");
    command.arg(assert_cmd::cargo::cargo_bin!("anatomix")).args(["bundle", "sign", "--key"]).arg(locked.secret()).arg(folder.path());
    command.assert().code(1).stdout(is_empty()).stderr(contains("has a password"));

    let tokenizer = folder.path().join(TOKENIZER);
    let mut bytes = fs::read(&tokenizer).unwrap();
    bytes[0] ^= 1;
    fs::write(&tokenizer, bytes).unwrap();
    sign(&keys.secret()).stderr(contains("was altered"));
    assert!(!folder.path().join(SIGNATURE).exists());

    for (key, reason) in [("/no/such/key", "cannot be read"), (tokenizer.to_str().unwrap(), "more than 4096 bytes")] {
        anatomix(&["bundle", "info", "--public-key", key], folder.path())
            .assert()
            .code(1)
            .stderr(contains(reason).and(contains("--help").not()));
    }
    let secret = keys.secret();
    anatomix(&["bundle", "info", "--public-key", secret.to_str().unwrap()], folder.path())
        .assert()
        .code(1)
        .stderr(contains("not a public key of minisign").and(contains("--help").not()));
}
