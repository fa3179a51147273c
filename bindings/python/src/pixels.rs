//! Grey pixels from NumPy arrays.

use crate::errors::Failure;
use anatomix::Radiograph;
use anatomix::error::RadiographError;
use numpy::ndarray::ArrayView2;
use numpy::{Element, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Pixels of an array that was checked as far as its type goes.
pub enum Pixels<'py> {
    U8(PyReadonlyArray2<'py, u8>),
    U16(PyReadonlyArray2<'py, u16>),
}

/// A kind of pixels.
trait Depth: Element + Copy + Into<u32> {
    const BITS: u32;
    const MAKE: fn(u32, u32, &[Self]) -> Result<Radiograph, RadiographError>;
    fn narrow(value: u32) -> Self;
}

impl Depth for u8 {
    const BITS: u32 = 8;
    const MAKE: fn(u32, u32, &[Self]) -> Result<Radiograph, RadiographError> = Radiograph::from_pixels_u8;

    fn narrow(value: u32) -> Self {
        value as Self
    }
}

impl Depth for u16 {
    const BITS: u32 = 16;
    const MAKE: fn(u32, u32, &[Self]) -> Result<Radiograph, RadiographError> = Radiograph::from_pixels_u16;

    fn narrow(value: u32) -> Self {
        value as Self
    }
}

/// Why pixels make no radiograph.
pub enum Unusable {
    Radiograph(RadiographError),
    /// A pixel that has more bits than are said to be stored.
    Value {
        value: u32,
        bits: u32,
    },
}

impl From<RadiographError> for Unusable {
    fn from(error: RadiographError) -> Self {
        Self::Radiograph(error)
    }
}

impl Unusable {
    pub fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Radiograph(error) => Failure::from(error).raise(py),
            Self::Value { value, bits } => PyValueError::new_err(format!(
                "bits_stored is {bits}, but a pixel is {value}; mask the other bits, or pass how many are used"
            )),
        }
    }
}

impl<'py> Pixels<'py> {
    /// Looks at type and sides of an argument.
    ///
    /// # Errors
    /// `TypeError` if it is not an array of 8-bit or 16-bit unsigned integers or has a mask, `ValueError` if it has not two dimensions,
    /// `RadiographError` if its sides are out of range.
    pub fn of(argument: &Bound<'py, PyAny>) -> PyResult<Self> {
        let Ok(array) = argument.cast::<PyUntypedArray>() else {
            let found = argument.get_type().name()?;
            return Err(PyTypeError::new_err(format!("pixels are a NumPy array of uint8 or uint16, not {found}; pass numpy.asarray(...)")));
        };
        // What a mask hides would be seen.
        if argument.is_instance(&argument.py().import("numpy.ma")?.getattr("MaskedArray")?)? {
            return Err(PyTypeError::new_err("the array of pixels is masked, and the mask would be ignored; pass pixels.filled(0)"));
        }
        if array.ndim() != 2 {
            let shape = array.shape();
            return Err(PyValueError::new_err(format!(
                "the array of pixels has the shape {shape:?}, but a radiograph has two dimensions, [height, width]; pass one grey picture"
            )));
        }
        let [height, width] = [0, 1].map(|axis| array.shape().get(axis).and_then(|&side| u32::try_from(side).ok()).unwrap_or(u32::MAX));
        // An array can repeat a pixel without end, so its sides are compared with the limits before anything of its size is allocated.
        if let Err(error @ RadiographError::Sides { .. }) = Radiograph::from_pixels_u8(width, height, &[]) {
            return Err(Failure::from(error).raise(argument.py()));
        }
        if let Ok(pixels) = argument.cast::<PyArray2<u8>>() {
            return Ok(Self::U8(pixels.try_readonly().map_err(|error| PyValueError::new_err(error.to_string()))?));
        }
        if let Ok(pixels) = argument.cast::<PyArray2<u16>>() {
            if !pixels.is_aligned() {
                return Self::of(&argument.call_method0("copy")?);
            }
            return Ok(Self::U16(pixels.try_readonly().map_err(|error| PyValueError::new_err(error.to_string()))?));
        }
        let found = array.dtype().str()?;
        Err(PyTypeError::new_err(format!(
            "the array of pixels has the dtype {found}, but uint8 or uint16 in the machine's byte order is needed; scale the values to \
             0..65535 and convert them with astype(\"uint16\")"
        )))
    }

    /// Checks how many bits a value may have.
    ///
    /// # Errors
    /// `ValueError`.
    pub fn bits(&self, stored: Option<u32>) -> PyResult<u32> {
        let allocated = match self {
            Self::U8(_) => u8::BITS,
            Self::U16(_) => u16::BITS,
        };
        match stored.unwrap_or(allocated) {
            bits if (1..=allocated).contains(&bits) => Ok(bits),
            bits => Err(PyValueError::new_err(format!("bits_stored is {bits}; pass 1 to {allocated}, or None for all"))),
        }
    }

    /// The radiograph of these pixels, without the GIL. They are copied once.
    ///
    /// # Errors
    /// If sides or values are out of range, or there is too little memory.
    pub fn radiograph(&self, py: Python<'_>, bits: u32) -> Result<Radiograph, Unusable> {
        match self {
            Self::U8(pixels) => {
                let view = pixels.as_array();
                py.detach(|| make(view, bits))
            }
            Self::U16(pixels) => {
                let view = pixels.as_array();
                py.detach(|| make(view, bits))
            }
        }
    }
}

fn make<T: Depth>(pixels: ArrayView2<'_, T>, bits: u32) -> Result<Radiograph, Unusable> {
    let (rows, columns) = pixels.dim();
    let [width, height] = [columns, rows].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    if let (Some(pixels), true) = (pixels.as_slice(), bits == T::BITS) {
        return Ok(T::MAKE(width, height, pixels)?);
    }
    let mut kept = Vec::new();
    let memory = |_| RadiographError::Memory { name: "pixels".into(), bytes: rows * columns * size_of::<T>() };
    kept.try_reserve_exact(rows * columns).map_err(memory)?;
    let (largest, full) = ((1u32 << bits) - 1, (1u32 << T::BITS) - 1);
    for row in pixels.rows() {
        for &pixel in row {
            let value: u32 = pixel.into();
            if value > largest {
                return Err(Unusable::Value { value, bits });
            }
            kept.push(T::narrow(value * full / largest));
        }
    }
    Ok(T::MAKE(width, height, &kept)?)
}
