//! Which version of ONNX Runtime was loaded.

use std::ffi::CStr;
use std::path::Path;

/// The version of a library that is loaded already, such as "1.31.1"; "unknown" where it does not tell.
#[allow(unsafe_code)]
pub(super) fn version(library: &Path) -> String {
    // SAFETY: the library is loaded already, so that this runs none of its initialisers again.
    let Ok(library) = (unsafe { libloading::Library::new(library) }) else { return "unknown".into() };
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: ONNX Runtime exports the function with this type (onnxruntime_c_api.h), and the environment was made through it.
    let Ok(base) = (unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") }) else { return "unknown".into() };
    // SAFETY: the function returns a table that lives as long as the library, or NULL. The version is a string constant.
    let text = unsafe { base().as_ref().map(|base| CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned()) };
    text.unwrap_or_else(|| "unknown".into())
}
