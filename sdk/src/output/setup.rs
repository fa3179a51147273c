//! What is installed, as JSON: bundles and providers. The program prints these records; programs that use the SDK have the same values.

use crate::bundle::{Bundle, Manifest};
use crate::engine::VerifiedBundle;
use crate::runtime::{Availability, Runtime, availability, processor};
use serde::Serialize;
use std::path::Path;

/// The JSON record of a bundle, as its manifest describes it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BundleInfo"))]
pub struct BundleRecord<'a> {
    /// The bundle's folder.
    pub folder: String,
    /// SHA-256 of the manifest in hexadecimal, which identifies the bundle.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: &'a str,
    /// Size of all files but the manifest in bytes.
    pub bytes: u64,
    /// The manifest, without the keys that this version does not know.
    pub manifest: &'a Manifest,
    /// Kind of this machine's processor.
    pub processor: &'static str,
    /// What to know before the bundle is used on this machine.
    pub notes: Vec<String>,
}

/// The JSON record of a bundle whose files are all as the manifest says.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BundleVerify"))]
pub struct VerifiedRecord<'a> {
    /// The bundle's folder.
    pub folder: String,
    /// SHA-256 of the manifest in hexadecimal, which identifies the bundle.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: &'a str,
    /// Number of files that the manifest lists.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Always `true`: a bundle that is not whole is an error.
    pub verified: bool,
    /// Whether a public key was given, whose owner signed the manifest.
    pub signed: bool,
}

/// The JSON record of a signature that was made.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BundleSign"))]
pub struct SignedRecord<'a> {
    /// The bundle's folder.
    pub folder: String,
    /// SHA-256 of the manifest that was signed, in hexadecimal.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: &'a str,
    /// The file of the signature.
    pub signature: String,
}

/// The JSON record of the providers of this machine.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Providers"))]
pub struct ProvidersRecord {
    /// The library of ONNX Runtime that was loaded.
    pub onnxruntime: String,
    /// The provider that `auto` chooses.
    pub auto: String,
    /// All providers.
    pub providers: Vec<Availability>,
    /// Kind of this machine's processor.
    pub processor: &'static str,
}

impl<'a> BundleRecord<'a> {
    /// The record of an opened bundle.
    pub fn of(bundle: &'a Bundle) -> Self {
        let (manifest, processor) = (bundle.manifest(), processor());
        Self {
            folder: shown(bundle.folder()),
            sha256: bundle.hash(),
            bytes: bundle.bytes(),
            manifest,
            processor,
            notes: manifest.processor_note(processor).into_iter().collect(),
        }
    }
}

impl<'a> VerifiedRecord<'a> {
    /// The record of a bundle that was verified; `signed` says whether that was with a public key.
    pub fn of(bundle: &'a VerifiedBundle, folder: &Path, signed: bool) -> Self {
        Self { folder: shown(folder), sha256: &bundle.sha256, files: bundle.files, bytes: bundle.bytes, verified: true, signed }
    }
}

impl<'a> SignedRecord<'a> {
    /// The record of a signature, of the manifest with this hash.
    pub fn of(folder: &Path, sha256: &'a str, signature: &Path) -> Self {
        Self { folder: shown(folder), sha256, signature: shown(signature) }
    }
}

impl ProvidersRecord {
    /// The providers that this library offers, with the one that is chosen.
    pub fn of(runtime: &Runtime) -> Self {
        Self {
            onnxruntime: shown(runtime.library()),
            auto: runtime.provider().to_string(),
            providers: availability(runtime),
            processor: processor(),
        }
    }
}

/// A path as text. JSON is UTF-8, which the name of a file need not be.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
