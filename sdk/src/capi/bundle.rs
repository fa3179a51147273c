//! Verifying a bundle without opening an engine.

use super::call::make;
use super::cancel::anx_cancel;
use super::engine::Watched;
use super::error::anx_error;
use super::handle::{Handle, read};
use super::options::{Options, read_options};
use super::progress::{Observer, anx_progress_callback};
use super::status::anx_status;
use super::strings::{Strings, path};
use crate::engine::{Engine, VerifiedBundle};
use crate::text::escaped;
use std::ffi::{c_char, c_void};
use std::ptr::null;

/// What anx_verify_bundle found: the bundle's name, hash and size. It never changes, so threads may share it.
pub struct anx_verified_bundle {
    name: *const c_char,
    sha256: *const c_char,
    files: usize,
    bytes: u64,
    /// Owns the texts that the pointers above point to.
    _strings: Strings,
}

impl Handle for anx_verified_bundle {
    const NAME: &'static str = "verified";
}

impl anx_verified_bundle {
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

/// Options of anx_verify_bundle. Set struct_size to sizeof(anx_verify_options) and everything else to zero but what you want to change.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_verify_options {
    /// sizeof(anx_verify_options).
    pub struct_size: usize,
    /// A public key of minisign, or NULL: as anx_engine_options.public_key. With a key, the manifest has to be signed by the key's owner.
    pub public_key: *const c_char,
    /// Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A call that
    /// is not finished by then fails with ANX_DEADLINE, after the mebibyte of a file that it is hashing.
    pub deadline_ms: usize,
    /// A handle from anx_cancel_new, or NULL. A call that is not finished when anx_cancel_request is called fails with ANX_STOPPED, where a
    /// deadline would end it.
    pub cancel: *const anx_cancel,
    /// Receives how far the call has come, or NULL.
    pub progress: anx_progress_callback,
    /// Handed to progress as it is.
    pub progress_user_data: *mut c_void,
}

// SAFETY: repr(C), words only, all zero means every default; an absent function is the null pointer.
unsafe impl Options for anx_verify_options {
    const NAME: &'static str = "anx_verify_options";
}

/// Verifies a bundle without opening an engine: compares the hashes of all its files, however large they are, and checks its whole
/// sentence database. ONNX Runtime is not needed.
///
/// bundle: path of the bundle's folder. options: NULL for the defaults. verified: takes what was found, which the caller frees with
/// anx_verified_bundle_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_BUNDLE, ANX_RETRIEVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verify_bundle(
    bundle: *const c_char,
    options: *const anx_verify_options,
    verified: *mut *mut anx_verified_bundle,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make(verified, error, || {
            let anx_verify_options { public_key, deadline_ms, cancel, progress, progress_user_data, .. } = read_options(options)?;
            let progress = Observer { callback: progress, user_data: progress_user_data };
            let builder = Watched { public_key, deadline_ms, cancel, progress }.apply(Engine::builder())?;
            Ok(anx_verified_bundle::new(&builder.verify_bundle(path(bundle, "bundle")?)?))
        })
    }
}

/// The bundle's name, with control characters written as \u{1b}. Borrowed from the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verified_bundle_name(verified: *const anx_verified_bundle) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(verified, null(), |v| v.name) }
}

/// SHA-256 of the bundle's manifest in hexadecimal, which identifies the bundle. Borrowed from the handle; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verified_bundle_sha256(verified: *const anx_verified_bundle) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(verified, null(), |v| v.sha256) }
}

/// How many files the manifest lists; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verified_bundle_file_count(verified: *const anx_verified_bundle) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(verified, 0, |v| v.files) }
}

/// Size of these files together in bytes; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verified_bundle_bytes(verified: *const anx_verified_bundle) -> u64 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(verified, 0, |v| v.bytes) }
}

/// Frees what was verified; the bundle's files are not touched. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_verified_bundle_free(verified: *mut anx_verified_bundle) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(verified) }
}
