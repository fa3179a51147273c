//! Tensors for callers that run graphs by themselves, without a type of ONNX Runtime's binding.

use super::error::RuntimeError;
use crate::cause::source;
use ort::memory::Allocator;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor as Typed, TensorElementType};
use std::fmt::Debug;

/// A tensor on the CPU: an input of a graph, or memory that an output is written to.
#[derive(Debug)]
pub struct Tensor(pub(super) DynTensor);

impl Tensor {
    /// A tensor of type f32; `values` are row by row.
    ///
    /// # Errors
    /// [`RuntimeError::Tensor`] if there are not as many values as the shape says.
    pub fn of_f32(shape: &[usize], values: Vec<f32>) -> Result<Self, RuntimeError> {
        Self::of(shape, values)
    }

    /// A tensor of type i64.
    ///
    /// # Errors
    /// As [`Tensor::of_f32`].
    pub fn of_i64(shape: &[usize], values: Vec<i64>) -> Result<Self, RuntimeError> {
        Self::of(shape, values)
    }

    /// A tensor of type i32.
    ///
    /// # Errors
    /// As [`Tensor::of_f32`].
    pub fn of_i32(shape: &[usize], values: Vec<i32>) -> Result<Self, RuntimeError> {
        Self::of(shape, values)
    }

    /// A tensor of type f32 whose values are not set: memory for an output.
    ///
    /// # Errors
    /// [`RuntimeError::Tensor`] if the memory cannot be allocated.
    pub fn uninitialised(shape: &[usize]) -> Result<Self, RuntimeError> {
        let made = DynTensor::new(&Allocator::default(), TensorElementType::Float32, shape.to_vec());
        made.map(Self).map_err(|e| RuntimeError::Tensor { shape: shape.into(), source: source(e) })
    }

    fn of<T: PrimitiveTensorElementType + Debug + Clone + 'static>(shape: &[usize], values: Vec<T>) -> Result<Self, RuntimeError> {
        let made = Typed::from_array((shape.to_vec(), values));
        made.map(|tensor| Self(tensor.upcast())).map_err(|e| RuntimeError::Tensor { shape: shape.into(), source: source(e) })
    }
}
