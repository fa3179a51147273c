//! Manipulated bundles, saved studies and other files: they are refused quickly with a message of at most two lines, and control
//! characters in them do not reach the terminal.
#![cfg(unix)]

mod bundle;
mod causes;
mod prompt;
mod runtime;
mod saved;
#[cfg(feature = "cli")]
mod terminal;

use anatomix::{Engine, Provider, Radiograph, Study};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn open(bundle: &Path) -> anatomix::Result<Engine> {
    Engine::builder().provider(Provider::Cpu).golden_check(false).open(bundle)
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| open(&example("reference-bundle")).unwrap());

fn study() -> Study {
    ENGINE.study(&Radiograph::open(example("phantom.dcm")).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that an error message has at most two lines and contains `parts`.
fn check_message(message: &str, parts: &[&str]) {
    assert!(message.lines().count() <= 2 && message.len() < 1500, "{} bytes: {message:.1500}", message.len());
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
}

/// A copy of the reference bundle whose files can be changed.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(example("reference-bundle")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Changes the manifest.
    fn describe(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = serde_json::from_slice(&self.read("manifest.json")).unwrap();
        change(&mut manifest);
        std::fs::write(self.path("manifest.json"), manifest.to_string()).unwrap();
    }

    /// Changes or adds a file, and its size and hash in the manifest.
    fn replace(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
        self.describe(|manifest| manifest["files"][name] = serde_json::json!({ "bytes": bytes.len(), "sha256": sha256(bytes) }));
    }

    /// Opens the bundle, which must fail with a message that contains `parts`.
    fn refused(&self, parts: &[&str]) {
        let error = open(self.0.path()).err().expect("accepted").full_message();
        check_message(&error, parts);
    }
}

/// Replaces all occurrences of `from` by `to`, which has the same length.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut count = 0;
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from.as_bytes() {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            count += 1;
        }
    }
    assert!(count > 0, "{from:?} is not there");
    bytes
}
