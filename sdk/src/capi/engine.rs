//! The engine: an opened bundle.

use super::call::make;
use super::cancel::anx_cancel;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::{Handle, read};
use super::log::{Receiver, anx_free_callback, anx_log_callback};
use super::options::{Options, read_options, switch};
use super::progress::{Observer, anx_progress_callback};
use super::status::anx_status;
use super::strings::{Strings, optional_path, optional_text, path};
use crate::bundle::BundleError;
use crate::engine::{Engine, EngineBuilder};
use crate::text::escaped;
use std::ffi::{c_char, c_void};
use std::ptr::null;
use std::time::Duration;

/// An opened bundle on a provider. Any number of threads may use it at once.
pub struct anx_engine {
    pub(super) engine: Engine,
    bundle_name: *const c_char,
    bundle_sha256: *const c_char,
    provider: *const c_char,
    notes: Vec<*const c_char>,
    /// Owns the texts that the pointers above point to.
    _strings: Strings,
}

impl Handle for anx_engine {
    const NAME: &'static str = "engine";
}

/// The header lets threads share an engine.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
};

impl anx_engine {
    fn new(engine: Engine) -> Self {
        let mut strings = Strings::default();
        Self {
            bundle_name: strings.keep(&escaped(&engine.bundle().manifest().name)),
            bundle_sha256: strings.keep(engine.bundle().hash()),
            provider: strings.keep(&engine.provider().to_string()),
            notes: engine.notes().iter().map(|note| strings.keep(note)).collect(),
            engine,
            _strings: strings,
        }
    }
}

/// Options of anx_engine_open. Set struct_size to sizeof(anx_engine_options) and everything else to zero but what you want to
/// change. Strings are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_engine_options {
    /// sizeof(anx_engine_options).
    pub struct_size: usize,
    /// Where to compute: "auto" (or NULL), "cpu", "cuda", "cuda:N", "tensorrt", "tensorrt:N", N being the device's
    /// number. "auto" takes CUDA if it works and the CPU otherwise, see anx_engine_note; another provider that cannot run is an error.
    pub provider: *const c_char,
    /// Number of CPU threads that one caller computes with, for the graphs and for the steps before and after them: 1 to the number of
    /// cores that the process may use, or 0 for all of them. More are ANX_INVALID_ARGUMENT. Opening takes up to three for a moment.
    /// Callers of an engine with one thread compute side by side; callers of an engine with several threads share them.
    pub threads: usize,
    /// Path of ONNX Runtime's library, or NULL: then it is searched for by the environment variable ORT_DYLIB_PATH, beside
    /// libanatomix.so (the file itself, if that is reached by a link), beside the program, in "../lib" of the program's folder, and on
    /// the system's search path. A process loads one library and keeps it; a later engine that names another one is an error.
    pub library: *const c_char,
    /// How many bytes the KV caches of all studies may take together, or 0 for no limit; see anx_engine_study_bytes.
    /// A question that would need more fails with ANX_DECODER_MEMORY; an answer that comes to need more ends with ANX_FINISH_MEMORY.
    pub memory_limit: usize,
    /// An anx_switch, by default on: opening runs the bundle's golden input on the provider and compares the outputs. Switched off,
    /// opening is faster, but a provider that computes wrong results goes unnoticed: only for a bundle that was opened before with
    /// this library on this machine.
    pub golden_check: usize,
    /// An anx_switch, by default on: prompt look-up decoding, by which one run of the decoder verifies several tokens. The answers are
    /// the same either way.
    pub look_up: usize,
    /// Receives messages about what the engine does, or NULL. It may be called until the engine and the last of its studies are freed.
    pub log: anx_log_callback,
    /// Handed to log as it is.
    pub log_user_data: *mut c_void,
    /// Called once with log_user_data, or NULL: when log will not be called any more, or when anx_engine_open fails. Any thread may call
    /// it. It is not called if struct_size is wrong.
    pub log_free: anx_free_callback,
    /// A public key of minisign, or NULL: the text of its .pub file, or the second line of that file. With a key, only a bundle is opened
    /// whose manifest is signed by the owner of the key, and the hashes of all its files are compared, however large they are.
    /// They are opened again to be used: nobody else may be able to write into the folder meanwhile.
    pub public_key: *const c_char,
    /// The cost that look-up assumes for one more draft token in a run of the decoder, relative to a run of one token; greater than 0, at
    /// most 1. 0 (recommended) measures it while the engine decodes. With a given cost, anx_answer_run_count and the last digits of
    /// log probabilities do not depend on the machine's speed, but look-up may take more time than it saves.
    pub draft_cost: f64,
    /// Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A call that
    /// is not finished by then fails with ANX_DEADLINE, between two of its parts: a mebibyte of a file that is hashed, a graph that is
    /// loaded, a run of the golden input.
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
unsafe impl Options for anx_engine_options {
    const NAME: &'static str = "anx_engine_options";
}

/// The options that opening and verifying have in common.
pub(super) struct Watched {
    pub public_key: *const c_char,
    pub deadline_ms: usize,
    pub cancel: *const anx_cancel,
    pub progress: Observer,
}

impl Watched {
    /// Sets them.
    ///
    /// # Safety
    /// Pointers are NULL or valid.
    pub(super) unsafe fn apply(self, mut builder: EngineBuilder) -> Result<EngineBuilder, Failure> {
        // SAFETY: NULL or valid, by the caller's promise.
        let (key, cancel) = unsafe { (optional_text(self.public_key, "options.public_key")?, self.cancel.as_ref()) };
        if let Some(key) = key {
            let wrong = |error: BundleError| Failure::argument("options.public_key", format!("cannot be used: {error}"));
            builder = builder.public_key(key.parse().map_err(wrong)?);
        }
        if self.deadline_ms > 0 {
            builder = builder.deadline(Duration::from_millis(self.deadline_ms as u64));
        }
        if let Some(anx_cancel(handle)) = cancel {
            builder = builder.cancel(handle);
        }
        Ok(match self.progress.into_callback() {
            Some(progress) => builder.progress(progress),
            None => builder,
        })
    }
}

/// Opens a bundle: checks its files, loads ONNX Runtime and the graphs, and runs the bundle's golden input.
///
/// bundle: path of the bundle's folder. options: NULL for the defaults. engine: takes the new engine, which the caller
/// frees with anx_engine_free; NULL on failure.
/// Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_BUNDLE, ANX_RETRIEVAL, ANX_RUNTIME, ANX_PROMPT,
/// ANX_DECODER.
/// Takes from less than a second to minutes, depending on the bundle's size. The files of a bundle larger than 256 MiB are compared by size
/// only, unless options has a public_key; anx_verify_bundle compares their hashes. Files are mapped: none may be changed or cut
/// while an engine is open. The golden check needs a KV cache, so a memory_limit that is too small for it fails with ANX_DECODER_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_open(
    bundle: *const c_char,
    options: *const anx_engine_options,
    engine: *mut *mut anx_engine,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        // Whatever fails from here on drops the receiver, which frees its user data.
        let options = read_options(options).map(|options| {
            let receiver = Receiver { callback: options.log, user_data: options.log_user_data, free: options.log_free };
            (receiver, options)
        });
        make(engine, error, || {
            let (receiver, options) = options?;
            let bundle = path(bundle, "bundle")?;
            let progress = Observer { callback: options.progress, user_data: options.progress_user_data };
            let anx_engine_options { public_key, deadline_ms, cancel, .. } = options;
            let mut builder = Watched { public_key, deadline_ms, cancel, progress }.apply(Engine::builder())?;
            if let Some(provider) = optional_text(options.provider, "options.provider")? {
                let unknown = |problem: String| Failure::argument("options.provider", format!("cannot be used: {problem}"));
                builder = builder.provider(provider.parse().map_err(unknown)?);
            }
            builder = builder.threads(options.threads);
            if let Some(library) = optional_path(options.library, "options.library")? {
                if library.as_os_str().is_empty() {
                    return Err(Failure::argument("options.library", "is empty; pass a path, or NULL for the usual places"));
                }
                builder = builder.library(library);
            }
            if !(0.0..=1.0).contains(&options.draft_cost) {
                return Err(Failure::argument("options.draft_cost", format!("is {}; pass 0 to 1", options.draft_cost)));
            }
            if options.draft_cost > 0.0 {
                builder = builder.draft_cost(options.draft_cost as f32);
            }
            if options.memory_limit > 0 {
                builder = builder.memory_limit(options.memory_limit as u64);
            }
            builder = builder.golden_check(switch(options.golden_check, true, "options.golden_check")?);
            builder = builder.look_up(switch(options.look_up, true, "options.look_up")?);
            if let Some(log) = receiver.into_callback() {
                builder = builder.log(log);
            }
            Ok(anx_engine::new(builder.open(bundle)?))
        })
    }
}

/// Frees an engine. Its studies can still be used; they keep what they need. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_free(engine: *mut anx_engine) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(engine) }
}

/// The bundle's name, with control characters written as \u{1b}. Borrowed from the engine; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_bundle_name(engine: *const anx_engine) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, null(), |e| e.bundle_name) }
}

/// SHA-256 of the bundle's manifest in hexadecimal, which identifies the bundle. Borrowed from the engine; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_bundle_sha256(engine: *const anx_engine) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, null(), |e| e.bundle_sha256) }
}

/// The provider that the engine computes on, never "auto". Borrowed from the engine; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_provider(engine: *const anx_engine) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, null(), |e| e.provider) }
}

/// Bytes that the KV cache of a study takes at most for this many tokens: those of its context, and of the questions and answers of its
/// conversation, each answer with the most tokens that it may have (anx_ask_options.max_tokens, by default 512). A study takes them from
/// its first ask, its saving or its loading on until it is freed. The number does not decrease with more tokens, and stays the same from
/// the model's longest context on. If memory_limit is at least the sum of these values over all studies, no ask fails and no answer ends
/// for lack of KV cache. anx_study_cache_bytes is what one study takes exactly. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_study_bytes(engine: *const anx_engine, tokens: usize) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, 0, |e| usize::try_from(e.engine.study_bytes(tokens)).unwrap_or(usize::MAX)) }
}

/// The largest number of radiographs that one run of the perception module takes. anx_studies_from_files and its like open and perceive
/// this many at a time. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_batch_size(engine: *const anx_engine) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, 0, |e| e.engine.batch_size()) }
}

/// How many notes there are on where graphs are computed; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_note_count(engine: *const anx_engine) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, 0, |e| e.notes.len()) }
}

/// A note on where graphs are computed, a line such as why a GPU is not used, or that the bundle was checked on other kinds of
/// processors only. Borrowed from the engine; NULL if index is not below anx_engine_note_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_engine_note(engine: *const anx_engine, index: usize) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(engine, null(), |e| e.notes.get(index).copied().unwrap_or(null())) }
}
