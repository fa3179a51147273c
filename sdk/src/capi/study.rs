//! The study: one radiograph with what was perceived in it.

use super::call::make;
use super::cancel::anx_cancel;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::{Handle, Poison, Poisonable, check_array, on, read};
use super::record::{Record, anx_box, anx_flag, anx_provenance, anx_timing, item};
use super::status::anx_status;
use super::strings::Strings;
use crate::anatomy::STRUCTURE_COUNT;
use crate::control::CancelHandle;
use crate::output::PerceiveRecord;
use crate::radiograph::Radiograph;
use crate::study::Study;
use crate::text::escaped;
use std::ffi::c_char;
use std::ptr::{from_ref, null};
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// One radiograph with what was perceived in it, and its conversation. One thread at a time asks it: a call that comes while another is
/// running fails with ANX_BUSY. Any thread may read what was perceived at any time, and make documents
/// of it. Studies of the same engine are asked side by side.
pub struct anx_study {
    pub(super) study: Mutex<Study>,
    /// What was perceived, for readers: an ask does not change it, and does not make them wait.
    pub(super) perceived: Study,
    cancel: CancelHandle,
    poison: Poison,
    name: *const c_char,
    sides: [u32; 2],
    structures: Vec<anx_structure>,
    labels: Vec<anx_label>,
    record: Record,
    /// The study as JSON has it.
    pub(super) output: PerceiveRecord,
    /// `[36, width]`.
    embeddings: Vec<f32>,
    /// For overlays; `None` unless the options asked for it.
    pub(super) radiograph: Option<Arc<Radiograph>>,
}

impl Handle for anx_study {
    const NAME: &'static str = "study";
}

impl Poisonable for anx_study {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// The header allows a study to move between threads, and a cancel handle to be used by any thread.
const _: fn() = || {
    fn moved<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    moved::<Study>();
    shared::<Study>();
    shared::<CancelHandle>();
};

/// An anatomical structure with its bounding box and the most similar sentence of the bundle's database.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_structure {
    /// The structure's index, 0 to 35, the same in every bundle.
    pub index: usize,
    /// The structure's name; left and right are the patient's, whatever the image shows.
    pub name: *const c_char,
    /// Its bounding box.
    pub bounds: anx_box,
    /// The sentence.
    pub sentence: *const c_char,
    /// Cosine similarity of the sentence to the structure, -1 to 1; not calibrated.
    pub similarity: f32,
    /// Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
    /// 0 to 2; near 0 the choice between the two is arbitrary.
    pub margin: f32,
}

/// An image label with its score.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_label {
    /// The label as CheXpert names it, such as "Pleural Effusion".
    pub name: *const c_char,
    /// 0 to 1; not calibrated, so not a probability.
    pub score: f32,
}

impl anx_study {
    /// The study, unless another call is using it.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Study>, Failure> {
        self.study.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Failure::busy(Self::NAME),
            TryLockError::Poisoned(_) => Failure::poisoned(Self::NAME),
        })
    }

    pub(super) fn new(study: Study, radiograph: Option<Arc<Radiograph>>) -> Self {
        let mut strings = Strings::default();
        let structures = study.structures().iter().map(|found| anx_structure {
            index: found.structure.index(),
            name: strings.keep(found.structure.name()),
            bounds: found.bounds.into(),
            sentence: strings.keep(&found.sentence.text),
            similarity: found.sentence.similarity,
            margin: found.sentence.margin,
        });
        let structures = structures.collect();
        let labels = study.labels().iter().map(|l| anx_label { name: strings.keep(l.label.name()), score: l.score }).collect();
        Self {
            name: strings.keep(&escaped(study.name())),
            sides: [study.width(), study.height()],
            structures,
            labels,
            record: Record::new(strings, study.flags(), study.timing(), study.provenance()),
            output: PerceiveRecord::from(&study),
            embeddings: study.perception().object_embeddings.clone(),
            radiograph,
            cancel: study.cancel_handle(),
            poison: Poison::default(),
            perceived: study.perceived(),
            study: Mutex::new(study),
        }
    }
}

/// # Safety
/// NULL or `count` readable, aligned values that do not change during the call.
pub(super) unsafe fn array<'a, T>(values: *const T, count: usize, name: &str) -> Result<&'a [T], Failure> {
    if values.is_null() && count == 0 {
        // An empty std::vector has no address.
        return Ok(&[]);
    }
    check_array(values, count, name)?;
    // SAFETY: not NULL, aligned, not too large, and readable by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(values, count) })
}

/// Makes a handle that stops an ask or a save of this study from any thread, see anx_cancel_request; it may be made while one is running.
///
/// cancel: takes the handle, which the caller frees with anx_cancel_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_cancel_handle(
    study: *const anx_study,
    cancel: *mut *mut anx_cancel,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { make(cancel, error, || on(study, |study| Ok(anx_cancel::new(study.cancel.clone())))) }
}

/// Frees a study; its answers and cancel handles stay valid. Must not be called while another call on the study is running. NULL does
/// nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_free(study: *mut anx_study) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(study) }
}

/// The file's path, or the name that was given, to be shown: bytes of a path that are not UTF-8 become U+FFFD, and control characters are
/// written as \u{1b} and the like. Borrowed from the study; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_name(study: *const anx_study) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| s.name) }
}

/// Width of the original image in pixels; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_width(study: *const anx_study) -> u32 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.sides[0]) }
}

/// Height of the original image in pixels; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_height(study: *const anx_study) -> u32 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.sides[1]) }
}

/// How many structures there are: 36; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_structure_count(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.structures.len()) }
}

/// A structure, by its index. Borrowed from the study; NULL if index is not below
/// anx_study_structure_count. Every structure has a box and a sentence, in the image or not: judge by similarity, margin
/// and flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_structure(study: *const anx_study, index: usize) -> *const anx_structure {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| item(&s.structures, index)) }
}

/// How many values the embedding of a structure has; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_embedding_width(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.embeddings.len() / STRUCTURE_COUNT) }
}

/// The embedding of a structure, anx_study_embedding_width values: what the sentences of the database are compared with. Borrowed from the
/// study; NULL if index is not below anx_study_structure_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_embedding(study: *const anx_study, index: usize) -> *const f32 {
    let embedding = |s: &anx_study| {
        let width = s.embeddings.len() / STRUCTURE_COUNT;
        s.embeddings.chunks_exact(width.max(1)).nth(index).map_or(null(), <[f32]>::as_ptr)
    };
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), embedding) }
}

/// How many image labels there are: 14; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_label_count(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.labels.len()) }
}

/// An image label. Borrowed from the study; NULL if index is not below anx_study_label_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_label(study: *const anx_study, index: usize) -> *const anx_label {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| item(&s.labels, index)) }
}

/// How many flags there are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_flag_count(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.record.flags.len()) }
}

/// A flag. Borrowed from the study; NULL if index is not below anx_study_flag_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_flag(study: *const anx_study, index: usize) -> *const anx_flag {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| item(&s.record.flags, index)) }
}

/// How many steps were timed; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_timing_count(study: *const anx_study) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, 0, |s| s.record.timing.len()) }
}

/// The time of a step. Borrowed from the study; NULL if index is not below anx_study_timing_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_timing(study: *const anx_study, index: usize) -> *const anx_timing {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| item(&s.record.timing, index)) }
}

/// Versions, settings and hashes that the study's results depend on. Borrowed from the study; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_provenance(study: *const anx_study) -> *const anx_provenance {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(study, null(), |s| from_ref(&s.record.provenance)) }
}
