//! Verifying a bundle without opening an engine.

use super::call::make;
use super::engine::anx_engine_options;
use super::error::anx_error;
use super::handle::{Handle, read};
use super::options::read_options;
use super::status::anx_status;
use super::strings::{Strings, path};
use crate::engine::{Engine, VerifiedBundle};
use crate::text::escaped;
use std::ffi::c_char;
use std::ptr::null;

/// A bundle that was verified. It never changes, so threads may share it.
pub struct anx_bundle {
    name: *const c_char,
    sha256: *const c_char,
    files: usize,
    bytes: u64,
    /// Owns the texts that the pointers above point to.
    _strings: Strings,
}

impl Handle for anx_bundle {
    const NAME: &'static str = "bundle";
}

impl anx_bundle {
    fn new(verified: &VerifiedBundle) -> Self {
        let mut strings = Strings::default();
        Self {
            name: strings.keep(&escaped(&verified.name)),
            sha256: strings.keep(&verified.sha256),
            files: verified.files,
            bytes: verified.bytes,
            _strings: strings,
        }
    }
}

/// Verifies a bundle without opening an engine: compares the hashes of all its files, however large they are, and checks its whole
/// sentence database. ONNX Runtime is not needed.
///
/// path: path of the bundle's folder. options: NULL for the defaults. Of its fields, public_key, deadline_ms, cancel, progress and
/// progress_user_data count; the others have no effect, and log_free is not called. With a public_key the manifest has to be signed by the
/// key's owner. bundle: takes what was verified, which the caller frees with anx_bundle_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_BUNDLE, ANX_RETRIEVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_verify(
    path: *const c_char,
    options: *const anx_engine_options,
    bundle: *mut *mut anx_bundle,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make(bundle, error, || {
            let options = read_options(options)?;
            let builder = options.apply_watched(Engine::builder())?;
            Ok(anx_bundle::new(&builder.verify_bundle(self::path(path, "path")?)?))
        })
    }
}

/// The bundle's name, with control characters written as \u{1b}. Borrowed from the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_name(bundle: *const anx_bundle) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bundle, null(), |b| b.name) }
}

/// SHA-256 of the bundle's manifest in hexadecimal, which identifies the bundle. Borrowed from the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_sha256(bundle: *const anx_bundle) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bundle, null(), |b| b.sha256) }
}

/// How many files the manifest lists; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_file_count(bundle: *const anx_bundle) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bundle, 0, |b| b.files) }
}

/// Size of these files in bytes; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_size(bundle: *const anx_bundle) -> u64 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bundle, 0, |b| b.bytes) }
}

/// Frees what was verified; the bundle's files are not touched. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bundle_free(bundle: *mut anx_bundle) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(bundle) }
}
