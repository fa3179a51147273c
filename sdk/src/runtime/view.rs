//! Tensors over existing memory, without a copy.

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::DynTensor;
use std::ptr::{NonNull, null_mut};

/// A view `[1, heads, rows, width]` of a tensor in fp32 on the CPU, which holds the heads one after the other, each of `rows` rows, and
/// spare rows behind the last head.
///
/// The view begins `first` rows into the tensor. Row `i` of a head in the view is therefore the head's row `first + i` in the tensor. The
/// last `first` rows of a head in the view are rows of the next head, or spare rows; a caller must not use their values.
///
/// # Errors
/// If the tensor has fewer than `first` spare rows.
pub(crate) fn rows_from(tensor: &mut DynTensor, [heads, rows]: [usize; 2], first: usize) -> ort::Result<DynTensor> {
    let (shape, values) = tensor.try_extract_tensor_mut::<f32>()?;
    let width = shape.last().map_or(0, |&width| width as usize);
    let start = first * width;
    let part = values.get_mut(start..start + heads * rows * width).ok_or_else(|| ort::Error::new("a view ends behind its tensor"))?;
    // SAFETY: the view is bound for one run, during which the cache is borrowed.
    #[allow(unsafe_code)]
    unsafe {
        over(part, &[1, heads as i64, rows as i64, width as i64])
    }
}

/// A tensor of this shape over values on the CPU.
///
/// # Safety
/// The tensor holds only the address of the values. No run may use it after the values are dropped, and the values must not be accessed
/// during a run that uses it.
///
/// # Errors
/// If there are fewer values than the shape says.
#[allow(unsafe_code)]
pub(super) unsafe fn over(values: &mut [f32], shape: &[i64]) -> ort::Result<DynTensor> {
    let mut view = null_mut();
    // SAFETY: the pointers are valid for the call, which compares the size of the data with the shape.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            MemoryInfo::default().ptr(),
            values.as_mut_ptr().cast(),
            size_of_val(values),
            shape.as_ptr(),
            shape.len(),
            ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &mut view,
        )
    };
    // SAFETY: the status is what the call returned, and was not freed.
    unsafe { ort::Error::result_from_status(status) }?;
    let view = NonNull::new(view).ok_or_else(|| ort::Error::new("ONNX Runtime made no tensor"))?;
    // SAFETY: the value was just created and nothing else owns it. It does not own its data, so no allocator frees them.
    Ok(unsafe { DynTensor::from_ptr(view, Some(&Allocator::default())) })
}
