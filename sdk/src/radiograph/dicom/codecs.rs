//! Compressions that dicom-rs has no decoder for: JPEG with 12 bits, and JPEG-LS.

use openreadout_codecs::{CodecError, Raster, jpeg_decode_limited, jpegls_decode_limited};
use std::panic::catch_unwind;

/// Decodes a sequential JPEG with values of 12 bits to two bytes a value. `most` is the number of bytes that the picture has.
pub(super) fn jpeg_extended(packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    decode(packed, most, jpeg_decode_limited)
}

/// Decodes a JPEG-LS to one byte a value up to 8 bits, else two.
pub(super) fn jpeg_ls(packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    decode(packed, most, jpegls_decode_limited)
}

type Decode = fn(&[u8], usize) -> Result<Raster, CodecError>;

fn decode(packed: &[u8], most: usize, decode: Decode) -> Result<Vec<u8>, String> {
    // Damaged data may make a decoder panic. It has no state that lasts.
    match catch_unwind(|| decode(packed, most)) {
        Ok(Ok(Raster { channels: 1, data, .. })) => Ok(data),
        Ok(Ok(_)) => Err("the picture is not grey".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the decoder failed".into()),
    }
}
