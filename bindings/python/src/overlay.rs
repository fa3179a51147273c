//! Overlays as arrays and as PNG bytes.

use crate::errors::Failure;
use anatomix::output::Overlay;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use numpy::PyArray3;
use numpy::ndarray::Array3;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A drawn overlay: its rows of red, green and blue.
pub struct Drawn(image::RgbImage);

impl Drawn {
    pub fn new(overlay: &Overlay) -> Self {
        Self(overlay.render())
    }

    /// The picture as an array `[height, width, 3]`.
    pub fn array<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let shape = (self.0.height() as usize, self.0.width() as usize, 3);
        let array = Array3::from_shape_vec(shape, self.0.into_raw()).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyArray3::from_owned_array(py, array))
    }

    /// The picture as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(self.0.as_raw(), self.0.width(), self.0.height(), ExtendedColorType::Rgb8)
            .map_err(|error| Failure::Defect(error.to_string()))?;
        Ok(bytes)
    }
}
