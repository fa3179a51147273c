//! Radiographs.

use crate::errors::Failure;
use crate::pixels::Pixels;
use crate::waiting::run;
use anatomix::ReadOptions;
use anatomix::error::RadiographError;
use numpy::PyArray2;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{IntoPyDict, PyBytes, PyMemoryView};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// A frontal chest radiograph, bright where the patient is dense.
///
/// Rows and columns are those of the picture as it is displayed, and all boxes are in its pixels. A radiograph does not change, so threads
/// may share it. It holds at most two bytes for each pixel, or its file.
#[pyclass(frozen, module = "anatomix")]
pub struct Radiograph(pub Arc<anatomix::Radiograph>);

impl Radiograph {
    fn read(py: Python<'_>, work: impl FnOnce() -> Result<anatomix::Radiograph, RadiographError> + Send) -> PyResult<Self> {
        // Reading cannot be stopped; it takes a fraction of a second.
        Ok(Self(Arc::new(run(py, || {}, || Ok(work()?))?)))
    }
}

#[pymethods]
impl Radiograph {
    /// Opens a DICOM, PNG or JPEG file. Its first bytes decide which it is, not its name.
    ///
    /// window: which transform of the values of interest (VOI) a DICOM file is displayed with, counted from 1: first come the VOI LUTs of
    /// its header, then its windows.
    ///
    /// Raises RadiographError, which names the file, what is wrong with it and what to do.
    #[staticmethod]
    #[pyo3(signature = (path, *, window = 1))]
    fn open(py: Python<'_>, path: PathBuf, window: usize) -> PyResult<Self> {
        Self::read(py, || anatomix::Radiograph::open_with(path, &ReadOptions::new().window(window)))
    }

    /// Reads a DICOM, PNG or JPEG file that is in memory. `name` is its name in messages; `window` as for `open`.
    ///
    /// Raises RadiographError.
    #[staticmethod]
    #[pyo3(signature = (data, name = "bytes", *, window = 1))]
    fn from_bytes(py: Python<'_>, data: Bytes, name: &str, window: usize) -> PyResult<Self> {
        Self::read(py, || anatomix::Radiograph::from_bytes_with(&data, name, &ReadOptions::new().window(window)))
    }

    /// Makes a radiograph of grey pixels in which bone is bright. For the opposite (DICOM's MONOCHROME1) see `inverted`.
    ///
    /// pixels: an array [height, width] of uint8 or uint16, with sides of 32 to 20000. It is copied once, whatever its strides, and must
    /// not be written to meanwhile.
    /// bits_stored: how many bits of a value are used, so that 2**bits_stored - 1 is white: 12 for most detectors. By default all are.
    ///
    /// Raises TypeError or ValueError for another array, RadiographError if its sides are out of range or memory lacks.
    #[staticmethod]
    #[pyo3(signature = (pixels, *, bits_stored = None))]
    fn from_array(py: Python<'_>, pixels: &Bound<'_, PyAny>, bits_stored: Option<u32>) -> PyResult<Self> {
        let pixels = Pixels::of(pixels)?;
        let bits = pixels.bits(bits_stored)?;
        let radiograph = pixels.radiograph(py, bits).map_err(|unusable| unusable.raise(py))?;
        Ok(Self(Arc::new(radiograph)))
    }

    /// The file's path, or the name that was given for its bytes.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// Width in pixels.
    #[getter]
    fn width(&self) -> u32 {
        self.0.width()
    }

    /// Height in pixels.
    #[getter]
    fn height(&self) -> u32 {
        self.0.height()
    }

    /// SHA-256 of the file, or of the pixels if there was no file, in hexadecimal.
    #[getter]
    fn sha256(&self, py: Python<'_>) -> &str {
        py.detach(|| self.0.sha256())
    }

    /// Intensities 0..1 as a read-only float32 array [height, width]. It is computed when it is first requested, and shared by all that
    /// request it; it takes four bytes for each pixel.
    ///
    /// Raises RadiographError if memory lacks.
    #[getter]
    fn intensities<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (py, radiograph) = (slf.py(), &slf.get().0);
        let values = py.detach(|| radiograph.intensities()).map_err(|error| Failure::from(error).raise(py))?;
        // SAFETY: the values are in an allocation that the radiograph holds and never changes once it was computed. The array holds this
        // object, which holds the radiograph and is frozen. The array is made read-only before anybody sees it.
        #[allow(unsafe_code)]
        let array = unsafe { PyArray2::borrow_from_array(&values, slf.clone().into_any()) };
        let options = [("write", false)].into_py_dict(py)?;
        array.call_method("setflags", (), Some(&options))?;
        Ok(array)
    }

    /// The radiograph with bright and dark swapped, for pixels in which air is bright, as in DICOM's MONOCHROME1.
    fn inverted(&self, py: Python<'_>) -> Self {
        py.detach(|| Self(Arc::new(anatomix::Radiograph::clone(&self.0).inverted())))
    }

    /// The mirror image, left and right swapped.
    ///
    /// Raises RadiographError if memory lacks.
    fn mirrored(&self, py: Python<'_>) -> PyResult<Self> {
        let mirrored = py.detach(|| self.0.mirrored()).map_err(|error| Failure::from(error).raise(py))?;
        Ok(Self(Arc::new(mirrored)))
    }

    fn __repr__(&self) -> String {
        format!("<anatomix.Radiograph {:?}, {} x {} pixels>", self.name(), self.width(), self.height())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a radiograph cannot be pickled; pass its file's path, or the array that it was made of"))
    }
}

/// What can be perceived: a radiograph, or the path of its file.
pub enum Source {
    Radiograph(Arc<anatomix::Radiograph>),
    Path(PathBuf),
}

impl Source {
    /// Opens the file, if it is a path.
    pub fn open(self) -> Result<Arc<anatomix::Radiograph>, RadiographError> {
        match self {
            Self::Radiograph(radiograph) => Ok(radiograph),
            Self::Path(path) => anatomix::Radiograph::open(path).map(Arc::new),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(radiograph) = object.cast::<Radiograph>() {
            return Ok(Self::Radiograph(Arc::clone(&radiograph.get().0)));
        }
        object.extract().map(Self::Path).map_err(|_| {
            let found = object.get_type().name().map_or_else(|_| "this".into(), |name| name.to_string());
            PyTypeError::new_err(format!("a Radiograph or a path is needed, not {found}; for pixels use Radiograph.from_array"))
        })
    }
}

/// Bytes of an argument: `bytes`, and copies of what a `bytearray` or `memoryview` holds.
pub struct Bytes(PyBackedBytes);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Bytes {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.extract() {
            return Ok(Self(bytes));
        }
        if object.is_instance_of::<PyMemoryView>() {
            return Ok(Self(object.call_method0("tobytes")?.cast_into::<PyBytes>()?.into()));
        }
        let found = object.get_type().name()?;
        Err(PyTypeError::new_err(format!("bytes of a file are needed, not {found}; for pixels use Radiograph.from_array")))
    }
}
