//! The radiograph of a study as a display shows it.

use super::call::call;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::{check_array, with};
use super::output::kept;
use super::status::anx_status;
use super::study::anx_study;
use std::slice;

/// Copies the study's radiograph as a display shows it, after modality LUT, VOI LUT or window, and polarity: 0 is black, as air, 1 is
/// white, and padding is 0.
///
/// study: one that was made with anx_perceive_options.keep_radiograph. values: room for count numbers, which are written row by row from
/// the top. count: anx_study_width times anx_study_height.
/// Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph or count is another number. Nothing is written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_intensities(
    study: *const anx_study,
    values: *mut f32,
    count: usize,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers, as the header asks; the helpers look for NULL.
    unsafe {
        call(error, || {
            with(study, |study| {
                let radiograph = kept(&study.radiograph, "study")?;
                let (width, height) = (radiograph.width() as usize, radiograph.height() as usize);
                if count != width * height {
                    let problem = format!("is {count}, but the image has {width} x {height} pixels; pass {}", width * height);
                    return Err(Failure::argument("count", problem));
                }
                check_array(values, count, "values")?;
                // SAFETY: not NULL, aligned, and `count` writable numbers by the caller's promise; any bytes are a number.
                let values = slice::from_raw_parts_mut(values, count);
                values.chunks_mut(width).enumerate().for_each(|(row, out)| radiograph.row(row, out));
                Ok(())
            })
        })
    }
}
