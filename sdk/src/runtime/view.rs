//! A part of a tensor as a tensor of its own, without a copy.

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::DynTensor;
use std::ptr::{NonNull, null_mut};

/// The rows from `first` on of each head of `[batch, heads, rows, width]` in fp32 on the CPU, over the same memory, for a graph
/// that is told how many rows it may use. The shape stays, so that heads lie as far apart: `rows - first` rows of each are there.
#[allow(unsafe_code)]
pub(crate) fn rows_from(tensor: &mut DynTensor, first: usize) -> ort::Result<DynTensor> {
    let (shape, values) = tensor.try_extract_tensor_mut::<f32>()?;
    let shape: Vec<i64> = shape.to_vec();
    let bytes = size_of_val(values);
    let width = shape.last().map_or(0, |&width| width as usize);
    let part = values.get_mut(first * width..).ok_or_else(|| ort::Error::new("a view begins behind its tensor"))?;
    let mut view = null_mut();
    // SAFETY: the pointers are valid for the call. ONNX Runtime keeps the data's address only; whoever binds the view keeps the
    // tensor for as long, and the graph touches no more rows than it is told.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            MemoryInfo::default().ptr(),
            part.as_mut_ptr().cast(),
            bytes,
            shape.as_ptr(),
            shape.len(),
            ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &mut view,
        )
    };
    // SAFETY: the status is what the call returned, and was not freed.
    unsafe { ort::Error::result_from_status(status) }?;
    let view = NonNull::new(view).ok_or_else(|| ort::Error::new("ONNX Runtime made no tensor"))?;
    // SAFETY: the value was made just now and nobody else holds it. It does not own its data, so no allocator frees that.
    Ok(unsafe { DynTensor::from_ptr(view, Some(&Allocator::default())) })
}
