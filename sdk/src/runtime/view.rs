//! A part of a tensor as a tensor of its own, without a copy.

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::DynTensor;
use std::ptr::{NonNull, null_mut};

/// All heads but the last of `[1, heads, rows, width]` in fp32 on the CPU, each from its row `first` on, over the same memory. The
/// shape says `[1, heads - 1, rows, width]`, so that heads lie as far apart; the last `first` rows of each are the next one's.
///
/// # Errors
/// If it has another shape, or no such row.
#[allow(unsafe_code)]
pub(crate) fn rows_from(tensor: &mut DynTensor, first: usize) -> ort::Result<DynTensor> {
    let (shape, values) = tensor.try_extract_tensor_mut::<f32>()?;
    let [1, heads, rows, width] = shape[..] else { return Err(ort::Error::new("a view is of one row of a batch")) };
    let shape = [1, heads - 1, rows, width];
    let count = shape.iter().product::<i64>() as usize;
    let start = first * width as usize;
    // Inside the tensor, all of it: what the shape says is there.
    let part = values.get_mut(start..start + count).ok_or_else(|| ort::Error::new("a view ends behind its tensor"))?;
    let mut view = null_mut();
    // SAFETY: the pointers are valid for the call, and the data are as many as the shape says. ONNX Runtime keeps their address
    // only: the view is bound for one run, over which its cache is borrowed.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            MemoryInfo::default().ptr(),
            part.as_mut_ptr().cast(),
            size_of_val(part),
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
