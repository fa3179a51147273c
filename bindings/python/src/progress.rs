//! How far a call has come, for a Python callable.

use crate::waiting::within_callback;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// A function that calls a Python callable with a phase, what is done and what there is to do. What it raises goes to
/// `sys.unraisablehook`, because the call must not fail by it.
///
/// # Errors
/// `TypeError` if it is not callable.
pub fn callback(py: Python<'_>, callable: Py<PyAny>) -> PyResult<impl Fn(&str, u64, u64) + Send + Sync + 'static> {
    if !callable.bind(py).is_callable() {
        return Err(PyTypeError::new_err("progress is not callable; pass a function of a phase, what is done and what there is to do"));
    }
    Ok(move |phase: &str, done, total| {
        // There is no interpreter to attach to while the process ends.
        Python::try_attach(|py| {
            if let Err(error) = within_callback(|| callable.call1(py, (phase, done, total))) {
                error.write_unraisable(py, Some(callable.bind(py)));
            }
        });
    })
}
