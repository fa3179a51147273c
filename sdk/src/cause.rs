//! Causes of errors: the text of a dependency's or the system's error, apart from our own message.
//!
//! A message says what is wrong and what to do. It never contains the text of its source, so that printing an error with its causes
//! prints each of them once. A dependency's error is kept by its text, bounded by [`brief`]: a damaged file may be quoted in it, and no
//! type of a dependency becomes part of the public interface.

use crate::text::brief;
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The source of an error, as fields of error enums hold it.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// The bounded text of a dependency's error.
#[derive(Debug)]
struct Foreign(String);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Foreign {}

/// A dependency's error as a source: one line of at most 240 characters, without control characters.
pub(crate) fn source(error: impl fmt::Display) -> Source {
    Box::new(Foreign(brief(error)))
}

/// Runs code of a library that can panic on hostile input. A panic in it becomes a source with the panic's text.
///
/// What `library` changes is in an unknown state after a failure and is not used any more.
pub(crate) fn caught<T, E: fmt::Display>(library: impl FnOnce() -> Result<T, E>) -> Result<T, Source> {
    let ran = catch_unwind(AssertUnwindSafe(library));
    ran.map_err(|payload| source(panic_text(&*payload)))?.map_err(source)
}

/// The panic message.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("no message")
}

/// What to do if this process, or the machine, has as many files open as it may.
pub(crate) const CLOSE_FILES: &str = "too many files are open; close some, or raise the limit of open files (ulimit -n)";

/// What to do about an error of reading or writing a file: if the system refuses to open more files, that; else `otherwise`.
pub(crate) fn advice<'a>(error: &io::Error, otherwise: &'a str) -> &'a str {
    if too_many_files().contains(&error.raw_os_error()) { CLOSE_FILES } else { otherwise }
}

/// Whether the text of a dependency's error says that the system refuses to open more files.
pub(crate) fn refuses_files(text: &str) -> bool {
    let is = |rest: &str, number: i32| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(&number.to_string());
    too_many_files().into_iter().flatten().any(|number| {
        let system = io::Error::from_raw_os_error(number).to_string();
        // Where ONNX Runtime does not give the system's text, it gives the number.
        text.contains(system.split(" (os error").next().unwrap_or(&system))
            || ["error number ", "SystemError : "].into_iter().any(|named| text.split(named).skip(1).any(|rest| is(rest, number)))
    })
}

/// The numbers of the system's errors that say so: of this process, and of the machine.
fn too_many_files() -> [Option<i32>; 2] {
    #[cfg(unix)]
    return [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|error| Some(error.raw_os_error()));
    #[cfg(not(unix))]
    [None; 2]
}

/// What is wrong, in our own words, and the dependency's error that it was reported by, if there is one.
#[derive(Debug)]
pub(crate) struct Problem {
    pub message: String,
    pub source: Option<Source>,
}

impl Problem {
    /// A problem that a dependency's error reports.
    pub fn caused(message: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self { message: brief(message), source: Some(source(error)) }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message: brief(message), source: None }
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        Self { message: brief(message), source: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.source.iter().try_for_each(|source| write!(f, ": {source}"))
    }
}

/// The causes of an error on one line, from its source to the innermost one; `None` if it has no source.
pub(crate) fn causes(error: &dyn Error) -> Option<String> {
    let causes: Vec<String> = std::iter::successors(error.source(), |&cause| cause.source()).map(brief).collect();
    (!causes.is_empty()).then(|| causes.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_library_is_a_cause() {
        let number = 7;
        let told = |source: Result<(), Source>| source.unwrap_err().to_string();
        assert_eq!(told(caught(|| -> Result<(), &str> { panic!("provoked by test {number}") })), "provoked by test 7");
        assert_eq!(told(caught(|| -> Result<(), &str> { panic!("provoked") })), "provoked");
        assert_eq!(told(caught(|| Err("refused"))), "refused");
        assert_eq!(caught(|| Ok::<_, &str>(7)).unwrap(), 7);
    }

    #[test]
    #[cfg(unix)]
    fn too_many_open_files_are_told_apart() {
        for told in [
            "a.so: cannot open shared object file: Too many open files",
            "Load model from a.onnx failed:system error number 24",
            "Exception during initialization: initializer.cc:51 SystemError : 24",
            "open file \"a.data\" failed: Too many open files in system",
        ] {
            assert!(refuses_files(told), "{told}");
        }
        for told in ["Load model from a.onnx failed:system error number 240", "system error number 2", "No such file or directory"] {
            assert!(!refuses_files(told), "{told}");
        }
        let error = |number| io::Error::from_raw_os_error(number);
        assert_eq!([24, 23, 2].map(|number| advice(&error(number), "look")), [CLOSE_FILES, CLOSE_FILES, "look"]);
    }
}
