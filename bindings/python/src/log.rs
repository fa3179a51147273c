//! An engine's messages, for a Python callable.

use crate::waiting::within_callback;
use anatomix::LogLevel;
use pyo3::prelude::*;

/// A callback of the SDK that calls a Python callable with the level's name and the message. What it raises goes to
/// `sys.unraisablehook`, because the call that logs must not fail by it.
pub fn callback(callable: Py<PyAny>) -> impl Fn(LogLevel, &str) + Send + Sync + 'static {
    move |level, message| {
        // There is no interpreter to attach to while the process ends.
        Python::try_attach(|py| {
            if let Err(error) = within_callback(|| callable.call1(py, (level.to_string(), message))) {
                error.write_unraisable(py, Some(callable.bind(py)));
            }
        });
    }
}
