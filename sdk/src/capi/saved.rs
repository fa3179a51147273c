//! The turns of a study's conversation, and a study as bytes.

use super::call::{call, make};
use super::engine::anx_engine;
use super::error::anx_error;
use super::handle::{Handle, on, read, with};
use super::status::anx_status;
use super::study::{anx_study, array};
use crate::saved::is_saved_study;
use std::ffi::c_int;
use std::ptr::null;

/// Bytes that a call made. Owned by the caller, free them with anx_bytes_free.
pub struct anx_bytes(Vec<u8>);

impl anx_bytes {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Handle for anx_bytes {
    const NAME: &'static str = "bytes";
}

/// How many questions the study's conversation has: the last one that was not a follow-up, and the follow-ups after it. 0 for NULL, and
/// also while an ask is running, whatever the conversation holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_turn_count(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.study.try_lock().map_or(0, |study| study.turns())) }
}

/// Bytes that the KV cache of this study takes for its context and this many tokens after it: those of the questions and answers of its
/// conversation, or of all questions of one anx_study_ask_many with their answers, each answer with the most tokens that it may have.
/// Without a memory_limit a cache that has to grow takes up to a quarter more. 0 for NULL, and also while an ask is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_cache_bytes(study: *const anx_study, tokens: usize) -> usize {
    let bytes = |s: &anx_study| s.study.try_lock().map_or(0, |study| usize::try_from(study.cache_bytes(tokens)).unwrap_or(usize::MAX));
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, bytes) }
}

/// Removes all questions and answers from the study's conversation but the first turns; the next follow-up continues from there. The
/// context stays in the KV cache.
/// Fails with ANX_INVALID_ARGUMENT, ANX_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_rewind(study: *mut anx_study, turns: usize, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        call(error, || {
            on(study, |study| {
                study.lock()?.rewind(turns);
                Ok(())
            })
        })
    }
}

/// Makes bytes of the study, with its perception and its prefilled context but without its conversation, for anx_study_load in this or
/// another process with the same bundle. The context is prefilled first if no question was asked yet.
///
/// bytes: takes the bytes, which the caller frees with anx_bytes_free; NULL on failure. They are not encrypted. They hold the patient's
/// name, number, birth date and sex and the UIDs of study and image (of a DICOM file), the file's path as it was given, boxes, flags and
/// computed features: protect them like the radiograph.
/// Fails with ANX_INVALID_ARGUMENT, ANX_BUSY, ANX_STOPPED, ANX_SAVED, or in the hundreds of ANX_RUNTIME and ANX_DECODER; on failure the
/// study is unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_save(study: *mut anx_study, bytes: *mut *mut anx_bytes, error: *mut *mut anx_error) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { make(bytes, error, || on(study, |study| Ok(anx_bytes(study.lock()?.save()?)))) }
}

/// Makes a study from the bytes of anx_study_save. Nothing is perceived or prefilled again, so the first question costs its own tokens
/// only. The study does not hold the radiograph, so anx_study_overlay cannot draw it.
///
/// bytes, size: all bytes, with the checksum at their end; borrowed for the call. study: takes the new study, which the caller frees with
/// anx_study_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT, ANX_SAVED, or in the hundreds of ANX_RETRIEVAL, ANX_RUNTIME, ANX_PROMPT, ANX_DECODER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_load(
    engine: *const anx_engine,
    bytes: *const u8,
    size: usize,
    study: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        make(study, error, || with(engine, |engine| Ok(anx_study::new(engine.engine.load_study(array(bytes, size, "bytes")?)?, None))))
    }
}

/// Whether bytes begin as those of anx_study_save do: 1 or 0. Bytes that pass this test may still be damaged;
/// anx_study_load checks that. 0 for NULL.
///
/// bytes, size: as those of anx_study_load.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_is_saved_study(bytes: *const u8, size: usize) -> c_int {
    // SAFETY: NULL or valid pointers, as the header asks; the helper looks for NULL.
    unsafe { array(bytes, size, "bytes") }.is_ok_and(is_saved_study).into()
}

/// The first of the bytes. Borrowed from them; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bytes_data(bytes: *const anx_bytes) -> *const u8 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bytes, null(), |b| b.0.as_ptr()) }
}

/// How many bytes there are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bytes_size(bytes: *const anx_bytes) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(bytes, 0, |b| b.0.len()) }
}

/// Frees bytes. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_bytes_free(bytes: *mut anx_bytes) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(bytes) }
}
