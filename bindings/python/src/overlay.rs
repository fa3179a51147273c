//! Overlays as arrays and as PNG bytes.

use crate::errors::Failure;
use crate::waiting::run;
use anatomix::output::Overlay;
use numpy::PyArray3;
use numpy::ndarray::Array3;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Draws an overlay as an array `[height, width, 3]`: rows of red, green and blue.
pub fn array<'py>(py: Python<'py>, overlay: &Overlay) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let picture = run(py, || {}, || Ok::<_, Failure>(overlay.render()))?;
    let shape = (picture.height() as usize, picture.width() as usize, 3);
    let array = Array3::from_shape_vec(shape, picture.into_raw()).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyArray3::from_owned_array(py, array))
}

/// Draws an overlay as the bytes of a PNG file.
pub fn png<'py>(py: Python<'py>, overlay: &Overlay) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &run(py, || {}, || Ok(overlay.to_png()?))?))
}
