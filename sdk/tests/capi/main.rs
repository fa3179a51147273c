//! The C interface from a caller's side, including NULL and misuse. The tests of `without_bundle` need no bundle. The others need
//! `examples/reference-bundle` and ONNX Runtime, and fail without them.
#![allow(unsafe_code)]

mod log;
mod opening;
mod perceiving;
mod pixels;
mod questions;
mod reports;
mod results;
mod studies;
mod without_bundle;

use anatomix::capi::*;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

const ON: usize = anx_switch::ANX_SWITCH_ON as usize;

/// A file of the repository.
fn file(path: &str) -> CString {
    CString::new(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).expect("no NUL")
}

fn text<'a>(borrowed: *const c_char) -> &'a str {
    assert!(!borrowed.is_null());
    // SAFETY: the library lends NUL-terminated strings; tests keep their handles long enough.
    unsafe { CStr::from_ptr(borrowed) }.to_str().expect("UTF-8")
}

/// Runs a call that must fail. Returns status, message and cause.
fn failure(call: impl FnOnce(*mut *mut anx_error) -> anx_status) -> (anx_status, String, Option<String>) {
    let mut error = null_mut();
    let status = call(&mut error);
    assert_ne!(status, anx_status::ANX_OK);
    // SAFETY: a failed call gives an error, which is freed once.
    unsafe {
        assert_eq!(anx_error_code(error), status);
        let cause = anx_error_cause(error);
        let given = (status, text(anx_error_message(error)).to_string(), (!cause.is_null()).then(|| text(cause).to_string()));
        anx_error_free(error);
        given
    }
}

fn open_failure(bundle: *const c_char, options: *const anx_engine_options) -> (anx_status, String, Option<String>) {
    // Must be overwritten by NULL.
    let mut engine = std::ptr::dangling_mut();
    // SAFETY: the tests pass valid pointers or NULL.
    let given = failure(|error| unsafe { anx_engine_open(bundle, options, &mut engine, error) });
    assert!(engine.is_null());
    given
}

fn options() -> anx_engine_options {
    let struct_size = size_of::<anx_engine_options>();
    // SAFETY: the header promises that all zero means every default.
    anx_engine_options { struct_size, ..unsafe { std::mem::zeroed() } }
}

struct Engine(*mut anx_engine);
// SAFETY: the header lets threads share an engine.
unsafe impl Sync for Engine {}
impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { anx_engine_free(self.0) }
    }
}

fn check(status: anx_status, error: *mut anx_error) {
    // SAFETY: NULL or live.
    assert_eq!(status, anx_status::ANX_OK, "{}", text(unsafe { anx_error_message(error) }));
    assert!(error.is_null());
}

fn engine() -> Engine {
    let (mut engine, mut error) = (null_mut(), null_mut());
    let options = anx_engine_options { provider: c"cpu".as_ptr(), ..options() };
    // SAFETY: valid pointers.
    let status = unsafe { anx_engine_open(file("examples/reference-bundle").as_ptr(), &options, &mut engine, &mut error) };
    check(status, error);
    Engine(engine)
}

fn study(engine: &Engine) -> *mut anx_study {
    let (mut study, mut error) = (null_mut(), null_mut());
    // SAFETY: valid pointers.
    let status = unsafe { anx_study_from_file(engine.0, file("examples/phantom.dcm").as_ptr(), null(), &mut study, &mut error) };
    check(status, error);
    study
}

fn ask(study: *mut anx_study, question: &CStr, options: &anx_ask_options) -> *mut anx_answer {
    let (mut answer, mut error) = (null_mut(), null_mut());
    // SAFETY: valid pointers.
    let status = unsafe { anx_study_ask(study, question.as_ptr(), options, &mut answer, &mut error) };
    check(status, error);
    answer
}

fn asking() -> anx_ask_options {
    let struct_size = size_of::<anx_ask_options>();
    // SAFETY: the header promises that all zero means every default.
    anx_ask_options { struct_size, ..unsafe { std::mem::zeroed() } }
}
