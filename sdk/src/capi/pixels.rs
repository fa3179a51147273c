//! Grey pixels in memory.

use super::failure::Failure;
use super::options::{Options, read_sized};
use super::status::anx_status;
use super::study::array;
use crate::radiograph::{Radiograph, RadiographError, ReadOptions, check_sides};
use std::borrow::Cow;
use std::ffi::c_void;

/// What the smallest and the largest pixel value look like: DICOM's photometric interpretation.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_photometric {
    /// 0 is black, as air in a radiograph; the largest value is white.
    ANX_PHOTOMETRIC_MONOCHROME2 = 0,
    /// 0 is white; the largest value is black.
    ANX_PHOTOMETRIC_MONOCHROME1 = 1,
}

/// An image in memory as grey pixels, as a display shows them: the caller has applied modality LUT, VOI LUT and window, and masked padding.
/// (anx_study_from_bytes does that for a DICOM file.) Set struct_size to sizeof(anx_pixels) and everything else that you do not need to
/// zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_pixels {
    /// sizeof(anx_pixels).
    pub struct_size: usize,
    /// The pixels, row by row from the top, borrowed for the call: uint8_t, or uint16_t in the machine's byte order and aligned.
    pub values: *const c_void,
    /// How many bytes can be read there, so that a mistake is noticed: from the first pixel to the last, with or without the gap after
    /// the last row.
    pub size: usize,
    /// Bytes from the beginning of a row to the beginning of the next, or 0 if there are no gaps between rows.
    pub stride: usize,
    /// Pixels of a row, 32 to 20000.
    pub width: u32,
    /// Number of rows, 32 to 20000.
    pub height: u32,
    /// Bits that a pixel takes in memory: 8 or 16.
    pub bits_allocated: u32,
    /// Bits of a value, 1 to bits_allocated: the largest value is 2^bits_stored - 1, and an image with a larger one fails with
    /// ANX_RADIOGRAPH. 0 for bits_allocated.
    pub bits_stored: u32,
    /// An anx_photometric.
    pub photometric: usize,
}

// SAFETY: repr(C), words or pairs of half words, all zero is valid. (No image is described by it: bits_allocated is refused.)
unsafe impl Options for anx_pixels {
    const NAME: &'static str = "anx_pixels";
}

/// Pixels that were checked as far as a single number goes.
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a> {
    values: Values<'a>,
    size: usize,
    /// In bytes; 0 for no gaps.
    stride: usize,
    width: u32,
    height: u32,
    bits_stored: u32,
    is_inverted: bool,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
}

/// Reads a description of pixels; `argument` is its name in messages.
///
/// # Safety
/// NULL, or a struct of as many readable bytes as its first word says, whose values are NULL or readable.
pub(super) unsafe fn read_pixels<'a>(pixels: *const anx_pixels, argument: &str) -> Result<Pixels<'a>, Failure> {
    if pixels.is_null() {
        return Err(Failure::argument(argument, "is NULL; pass the address of an anx_pixels"));
    }
    let field = |name: &str| format!("{argument}.{name}");
    // SAFETY: the same promise; alignment is checked.
    let (pixels, values) = unsafe {
        let pixels = read_sized(pixels, argument)?;
        let values = match pixels.bits_allocated {
            8 => Values::U8(array(pixels.values.cast(), pixels.size, &field("values"))?),
            16 => Values::U16(array(pixels.values.cast(), pixels.size / 2, &field("values"))?),
            bits => return Err(Failure::argument(&field("bits_allocated"), format!("is {bits}; pass 8 or 16"))),
        };
        (pixels, values)
    };
    let anx_pixels { size, stride, width, height, bits_allocated, bits_stored, photometric, .. } = pixels;
    if bits_stored > bits_allocated {
        return Err(Failure::argument(&field("bits_stored"), format!("is {bits_stored}; pass 1 to {bits_allocated}, or 0")));
    }
    if bits_allocated == 16 && stride % 2 != 0 {
        return Err(Failure::argument(&field("stride"), format!("is {stride}; rows of 16-bit pixels begin at even addresses")));
    }
    let is_inverted = match photometric {
        0 => false,
        1 => true,
        other => {
            let problem = format!("is {other}; pass ANX_PHOTOMETRIC_MONOCHROME2 or ANX_PHOTOMETRIC_MONOCHROME1");
            return Err(Failure::argument(&field("photometric"), problem));
        }
    };
    let bits_stored = if bits_stored == 0 { bits_allocated } else { bits_stored };
    Ok(Pixels { values, size, stride, width, height, bits_stored, is_inverted })
}

impl Pixels<'_> {
    /// The radiograph of these pixels, which have no window that could be chosen.
    pub fn open_with(&self, options: &ReadOptions) -> Result<Radiograph, Failure> {
        if options.window != 1 {
            return Err(Failure::argument("options.window", format!("is {}, but pixels have no windows; pass 0", options.window)));
        }
        let (width, height) = (self.width, self.height);
        check_sides(width, height, "pixels")?;
        let radiograph = match self.values {
            Values::U8(values) => Radiograph::from_pixels_u8(width, height, &self.rows(values, |value| value as u8)?),
            Values::U16(values) => Radiograph::from_pixels_u16(width, height, &self.rows(values, |value| value as u16)?),
        }?;
        Ok(if self.is_inverted { radiograph.inverted() } else { radiograph })
    }

    /// The values without gaps between rows, scaled so that the largest possible value has all bits set.
    fn rows<'a, T: Copy + Into<u32>>(&self, values: &'a [T], narrow: fn(u32) -> T) -> Result<Cow<'a, [T]>, Failure> {
        let (bytes, width, height) = (size_of::<T>(), self.width as usize, self.height as usize);
        let row = width * bytes;
        let stride = if self.stride == 0 { row } else { self.stride };
        let least = stride.checked_mul(height.saturating_sub(1)).and_then(|before| before.checked_add(row));
        let most = stride.checked_mul(height);
        if stride < row || !least.zip(most).is_some_and(|(least, most)| (least..=most).contains(&self.size)) {
            let Self { size, width, height, .. } = self;
            let message =
                format!("{width} x {height} pixels in rows of {stride} bytes do not take {size} bytes; pass the true size and stride");
            return Err(Failure { status: anx_status::ANX_RADIOGRAPH_SIZE, message, cause: None });
        }
        let (largest, full) = ((1u32 << self.bits_stored) - 1, (1u32 << (8 * bytes)) - 1);
        if stride == row && largest == full {
            return Ok(Cow::Borrowed(values.get(..width * height).unwrap_or(values)));
        }
        let mut kept = Vec::new();
        let memory = |_| RadiographError::Memory { name: "pixels".into(), bytes: row * height };
        kept.try_reserve_exact(width * height).map_err(memory)?;
        for row in values.chunks(stride / bytes).take(height) {
            for &value in row.iter().take(width) {
                let value: u32 = value.into();
                if value > largest {
                    let Self { bits_stored, .. } = self;
                    // Not an invalid argument: among several images, this one fails alone.
                    let message =
                        format!("bits_stored is {bits_stored}, but a pixel is {value}; mask the other bits, or pass how many are used");
                    return Err(Failure { status: anx_status::ANX_RADIOGRAPH, message, cause: None });
                }
                kept.push(narrow(value * full / largest));
            }
        }
        Ok(Cow::Owned(kept))
    }
}
