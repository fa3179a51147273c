//! Errors of bundles.

use super::layout::SCHEMA;
use crate::cause::{Source, advice};
use std::path::PathBuf;

/// What can be wrong with a bundle. Each message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum BundleError {
    #[error("the path of the bundle is empty; name its folder")]
    NoPath,
    #[error("cannot read {path}; {}", advice(.source, "check that the bundle is complete and readable"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a valid manifest: {message}; restore the bundle from its source")]
    Manifest { path: PathBuf, message: String, source: Option<Source> },
    #[error("{path} has schema {found}, but this SDK reads schema {SCHEMA}; update the SDK")]
    NewerSchema { path: PathBuf, found: u64 },
    #[error("{path} has schema {found}, but this SDK reads schema {SCHEMA}; export the bundle again")]
    OlderSchema { path: PathBuf, found: u64 },
    #[error("{path} uses version {found} of {what}, but this SDK supports version {known}; update the SDK")]
    NewerVersion { path: PathBuf, what: &'static str, found: u32, known: u32 },
    #[error("{path} uses version {found} of {what}, but this SDK supports version {known}; export the bundle again")]
    OlderVersion { path: PathBuf, what: &'static str, found: u32, known: u32 },
    #[error("{path} is missing; restore the bundle from its source")]
    Missing { path: PathBuf },
    #[error("{path} is {what}, but a bundle holds regular files only; replace it with the file itself")]
    NotRegular { path: PathBuf, what: &'static str },
    #[error("{path} has {found} bytes instead of {expected}; restore the bundle from its source")]
    Size { path: PathBuf, found: u64, expected: u64 },
    #[error("{path} was altered: its SHA-256 is {found} instead of {expected}; restore the bundle from its source")]
    Altered { path: PathBuf, found: String, expected: String },
    #[error("{path} was changed while the bundle was being opened; open it again when nothing writes into its folder")]
    Changed { path: PathBuf },
    #[error(
        "{path} is missing: the bundle is not signed, and with a public key only signed bundles are opened; get a signed one from its \
         publisher"
    )]
    Unsigned { path: PathBuf },
    #[error("{path} is not a valid signature of this bundle for the given public key: {message}; get the bundle from its publisher again")]
    Signature { path: PathBuf, message: String, source: Option<Source> },
    #[error("this is not a public key of minisign; give the text of its .pub file, or the second line of that file")]
    PublicKey { source: Source },
    #[error("{path} is not a golden input: {message}; restore the bundle from its source")]
    Golden { path: PathBuf, message: String, source: Option<Source> },
    #[error("{path} lists the file {name:?}, which is not a plain file name; restore the bundle from its source")]
    Name { path: PathBuf, name: String },
    #[error("{path} cannot be used as a graph: {message}; restore the bundle from its source")]
    Graph { path: PathBuf, message: String },
}
