//! Conversion of texts from and to C.

use super::failure::Failure;
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

/// The strings of a handle. They keep their addresses for as long as the handle lives.
#[derive(Debug, Default)]
pub(super) struct Strings(Vec<CString>);

impl Strings {
    /// Copies a text and returns its address.
    pub fn keep(&mut self, text: &str) -> *const c_char {
        self.0.push(c_string(text));
        self.0.last().map_or(c"".as_ptr(), |kept| kept.as_ptr())
    }
}

/// A NUL-terminated copy of a text. A NUL inside the text becomes U+FFFD.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).or_else(|_| CString::new(text.replace('\0', "\u{FFFD}"))).unwrap_or_default()
}

/// A text that may be left out.
///
/// # Safety
/// NULL or NUL-terminated, and unchanged for the length of the call.
pub(super) unsafe fn optional_text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, hence NUL-terminated by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|e| Failure::argument(name, format!("is not UTF-8 from byte {} on; convert it", e.valid_up_to())))
}

/// A text that may not be left out.
///
/// # Safety
/// As [`optional_text`].
pub(super) unsafe fn needed_text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: the same promise.
    unsafe { optional_text(text, name) }?.ok_or_else(|| Failure::argument(name, "is NULL; pass a text"))
}

/// A path that may be left out.
///
/// # Safety
/// As [`optional_text`].
pub(super) unsafe fn optional_path(path: *const c_char, name: &str) -> Result<Option<PathBuf>, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let _ = name;
        // SAFETY: not NULL, hence NUL-terminated by the caller's promise. On Unix any bytes can be a path.
        Ok((!path.is_null()).then(|| std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()).into()))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the same promise.
        Ok(unsafe { optional_text(path, name) }?.map(PathBuf::from))
    }
}

/// A path.
///
/// # Safety
/// As [`optional_text`].
pub(super) unsafe fn path(path: *const c_char, name: &str) -> Result<PathBuf, Failure> {
    // SAFETY: the same promise.
    unsafe { optional_path(path, name) }?.ok_or_else(|| Failure::argument(name, "is NULL; pass a path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        assert_eq!(c_string("a\0b").as_c_str(), c"a\u{FFFD}b");
        let mut strings = Strings::default();
        let kept: Vec<_> = (0..100).map(|i| strings.keep(&format!("text {i}"))).collect();
        // SAFETY: kept strings live as long as `strings`; the literals are NUL-terminated.
        unsafe {
            assert_eq!(CStr::from_ptr(kept[0]), c"text 0");
            assert_eq!(optional_text(kept[99], "x").unwrap(), Some("text 99"));
            assert_eq!(optional_text(std::ptr::null(), "x").unwrap(), None);
            let failure = optional_text(c"ab\xff".as_ptr(), "question").unwrap_err();
            assert_eq!(failure.message, "the argument question is not UTF-8 from byte 2 on; convert it");
            assert!(path(std::ptr::null(), "bundle").unwrap_err().message.contains("bundle is NULL"));
        }
    }
}
