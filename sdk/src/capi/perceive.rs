//! Making a study: perceiving one radiograph.

use super::call::make;
use super::cancel::anx_cancel;
use super::engine::anx_engine;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::with;
use super::options::{Options, read_options, switch};
use super::pixels::{Pixels, anx_pixels, read_pixels};
use super::progress::{Observer, anx_progress_callback};
use super::status::anx_status;
use super::strings::{optional_text, path};
use super::study::{anx_study, array};
use crate::engine::{Engine, Limits, PerceiveOptions};
use crate::radiograph::{Radiograph, ReadOptions};
use crate::study::Study;
use std::ffi::{c_char, c_void};
use std::time::Duration;

/// Options of the calls that make studies of radiographs. Set struct_size to sizeof(anx_perceive_options) and everything else to zero but
/// what you want to change.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_perceive_options {
    /// sizeof(anx_perceive_options).
    pub struct_size: usize,
    /// Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A radiograph
    /// that is not perceived by then fails with ANX_DEADLINE. Reading and preprocessing an image are not interrupted; the run of the
    /// perception module is.
    pub deadline_ms: usize,
    /// A handle, usually from anx_cancel_new, or NULL. A radiograph that is not perceived when anx_cancel_request is called fails with
    /// ANX_STOPPED.
    pub cancel: *const anx_cancel,
    /// An anx_switch, by default off: the study and its answers hold the radiograph, for overlays and anx_study_intensities. It takes up to
    /// two bytes for each pixel, or the file's size, until the study and the last of its answers are freed.
    pub keep_radiograph: usize,
    /// Receives how many radiographs are perceived, or NULL.
    pub progress: anx_progress_callback,
    /// Handed to progress as it is.
    pub progress_user_data: *mut c_void,
    /// Which transform of the values of interest (VOI) a DICOM file is displayed with, counted from 1: first come the VOI LUTs of its
    /// header, then its windows. 0 for the first. One that a file does not have fails with ANX_RADIOGRAPH. Pixels have none: pass 0 or 1.
    pub window: usize,
    /// An anx_switch, by default off: bright and dark are swapped, for a file that does not say its polarity, such as a PNG in which air is
    /// bright. The polarity of DICOM files is read, and that of pixels is anx_pixels.photometric.
    pub inverted: usize,
    /// An anx_switch, by default off: the mirror image is perceived, for an image that is flagged as mirrored. Boxes are in pixels of the
    /// mirror image, so no document that refers to the file can be made of such a study.
    pub mirrored: usize,
}

// SAFETY: repr(C), words only, all zero means every default.
unsafe impl Options for anx_perceive_options {
    const NAME: &'static str = "anx_perceive_options";
}

/// How a call makes its studies.
pub(super) struct Way {
    pub limits: Limits,
    /// How files are read.
    pub read: ReadOptions,
    keeps_radiograph: bool,
    inverted: bool,
    mirrored: bool,
}

impl Way {
    /// The radiograph that is perceived, of the one that was opened.
    pub fn turned(&self, mut radiograph: Radiograph) -> Result<Radiograph, Failure> {
        if self.inverted {
            radiograph = radiograph.inverted();
        }
        if self.mirrored {
            radiograph = radiograph.mirrored()?;
        }
        Ok(radiograph)
    }

    /// The handle of a study of this radiograph.
    pub fn study(&self, study: Study, radiograph: Radiograph) -> anx_study {
        anx_study::new(study, self.keeps_radiograph.then(|| radiograph.into()))
    }
}

/// How a call that begins now makes `count` studies.
///
/// # Safety
/// NULL or valid options, whose handle is NULL or live.
pub(super) unsafe fn way(options: *const anx_perceive_options, count: usize, engine: &Engine) -> Result<Way, Failure> {
    // SAFETY: the same promise.
    let (options, cancel) = unsafe {
        let options = read_options(options)?;
        (options, options.cancel.as_ref())
    };
    let read = ReadOptions::new().window(options.window.max(1));
    let mut limits = PerceiveOptions::new();
    limits.deadline = (options.deadline_ms > 0).then(|| Duration::from_millis(options.deadline_ms as u64));
    limits.cancel = cancel.map(|anx_cancel(handle)| handle.clone());
    let keeps_radiograph = switch(options.keep_radiograph, false, "options.keep_radiograph")?;
    let inverted = switch(options.inverted, false, "options.inverted")?;
    let mirrored = switch(options.mirrored, false, "options.mirrored")?;
    let observer = Observer { callback: options.progress, user_data: options.progress_user_data };
    if let Some(progress) = observer.into_callback() {
        limits = limits.progress(progress);
    }
    Ok(Way { limits: engine.limits(&limits, count)?, read, keeps_radiograph, inverted, mirrored })
}

/// Opens a radiograph's file, DICOM, PNG or JPEG (its first bytes decide, not its name), and perceives it: boxes, sentences, labels, flags.
///
/// path: the file. options: NULL for the defaults. study: takes the new study, which the caller frees with anx_study_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_RADIOGRAPH, ANX_RETRIEVAL, ANX_RUNTIME,
/// ANX_PROMPT. The engine can be used as before after every failure.
/// Does not refuse an image that is not a frontal chest radiograph: look at the flags, which say so if the header does. Asking
/// such a study has to be allowed, see anx_ask_options.accept_flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_from_file(
    engine: *const anx_engine,
    path: *const c_char,
    options: *const anx_perceive_options,
    study: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { perceive(engine, options, study, error, || self::path(path, "path"), Radiograph::open_with) }
}

/// Like anx_study_from_file for a file that is in memory already.
///
/// bytes, size: the file's content, borrowed for the call. name: stands for it in messages and as the study's name, or
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_from_bytes(
    engine: *const anx_engine,
    bytes: *const u8,
    size: usize,
    name: *const c_char,
    options: *const anx_perceive_options,
    study: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        let file = || Ok((array(bytes, size, "bytes")?, self::name(name, "name")?));
        perceive(engine, options, study, error, file, |(bytes, name), read| Radiograph::from_bytes_with(bytes, name, read))
    }
}

/// Like anx_study_from_file for an image that is in memory as grey pixels. There is no header, hence no flag that rests on one.
///
/// pixels: the image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_from_pixels(
    engine: *const anx_engine,
    pixels: *const anx_pixels,
    options: *const anx_perceive_options,
    study: *mut *mut anx_study,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe { perceive(engine, options, study, error, || read_pixels(pixels, "pixels"), |pixels: Pixels, read| pixels.open_with(read)) }
}

/// What stands for a file in memory; `argument` is what messages call it.
///
/// # Safety
/// NULL or NUL-terminated, and unchanged for the length of the call.
pub(super) unsafe fn name<'a>(name: *const c_char, argument: &str) -> Result<&'a str, Failure> {
    // SAFETY: the same promise.
    match unsafe { optional_text(name, argument) }? {
        Some("") => Err(Failure::argument(argument, "is empty; pass a name, or NULL for \"bytes\"")),
        given => Ok(given.unwrap_or("bytes")),
    }
}

/// Perceives what `source` gives, as `open` opens it.
///
/// # Safety
/// Pointers are NULL or valid for the length of the call.
pub(super) unsafe fn perceive<S: Send, E: Into<Failure> + Send>(
    engine: *const anx_engine,
    options: *const anx_perceive_options,
    study: *mut *mut anx_study,
    error: *mut *mut anx_error,
    source: impl FnOnce() -> Result<S, Failure>,
    open: impl FnOnce(S, &ReadOptions) -> Result<Radiograph, E> + Send,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe {
        make(study, error, || {
            with(engine, |engine| {
                let engine = &engine.engine;
                let way = way(options, 1, engine)?;
                let source = source()?;
                way.limits.check()?;
                let opened = || open(source, &way.read).map_err(Into::into).and_then(|radiograph| way.turned(radiograph));
                let radiograph = engine.within(opened)?;
                let study = engine.study_within(&radiograph, &way.limits)?;
                Ok(way.study(study, radiograph))
            })
        })
    }
}
