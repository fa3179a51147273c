//! The version of the loaded ONNX Runtime.

use std::ffi::CStr;
use std::path::Path;

/// The version of a library that is already loaded, such as "1.31.1"; "unknown" if it cannot be found out.
#[allow(unsafe_code)]
pub(super) fn version(library: &Path) -> String {
    // SAFETY: the library is already loaded, so no initialiser runs.
    let Ok(library) = (unsafe { libloading::Library::new(library) }) else { return "unknown".into() };
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: ONNX Runtime exports the function with this type (onnxruntime_c_api.h), and the environment was created through it.
    let Ok(base) = (unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") }) else { return "unknown".into() };
    // SAFETY: the function returns a table that lives as long as the library, or NULL. The version is a string constant.
    let text = unsafe { base().as_ref().map(|base| CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned()) };
    text.unwrap_or_else(|| "unknown".into())
}
