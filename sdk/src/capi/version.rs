//! Versions of the library and of its interface.

use std::ffi::{CStr, c_char};

/// Version of the interface that this header describes. It grows by one with every release that adds something. A program runs with every
/// library whose anx_abi_version() is equal or greater; see docs/abi.md.
pub const ANX_ABI_VERSION: u32 = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("the version holds no NUL"),
};

/// The library's version, such as "0.1.0". The string is static. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn anx_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The interface version that the loaded library implements; compare it with ANX_ABI_VERSION, which is the one that the
/// program was compiled against. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn anx_abi_version() -> u32 {
    ANX_ABI_VERSION
}
