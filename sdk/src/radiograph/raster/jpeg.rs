//! JPEG. The decoder returns the picture in one piece, with one or three bytes per pixel.

use super::picture::{Raster, UNDECODED, damaged};
use super::{grey, orientation};
use crate::cause::Problem;
use crate::radiograph::decoded::{Noticed, surplus};
use crate::radiograph::stored::{Depth, Samples};
use crate::radiograph::{RadiographError, check_sides, entropy, memory};
use image::ImageDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::metadata::Orientation;
use std::io::Cursor;

/// Pixels that a decoder may add on the right and at the bottom to complete a unit, at the coarsest subsampling.
const FILL: usize = 32;

pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Raster, RadiographError> {
    memory::available(2 * bytes.len(), name)?;
    let mut decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|e| damaged(name, Problem::caused(UNDECODED, e)))?;
    let (width, height) = decoder.dimensions();
    check_sides(width, height, name)?;
    let checked = entropy::check(bytes, [width, height]).map_err(|problem| damaged(name, problem))?;
    // Cameras write a smaller picture behind the first.
    let after = &bytes[bytes.len() - checked.after..];
    let damage = checked.doubt.or_else(|| if after.starts_with(&[0xFF, 0xD8]) { None } else { surplus(after) });
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let channels = usize::from(decoder.color_type().channel_count());
    // The decoder keeps a picture in several scans as coefficients of two bytes until the last scan.
    let kept = if checked.in_scans { 2 * checked.components } else { 0 };
    memory::available((width as usize + FILL) * (height as usize + FILL) * (channels + kept), name)?;
    let mut pixels = memory::filled(0u8, width as usize * height as usize * channels, name)?;
    decoder.read_image(&mut pixels).map_err(|e| damaged(name, Problem::caused(UNDECODED, e)))?;
    let (depth, coloured) = if channels == 1 { (Depth::One, 0) } else { (Depth::Two, grey::in_place(&mut pixels)) };
    let colour = coloured as f32 / (width as f32 * height as f32);
    let (pixels, [width, height]) = orientation::apply(pixels, depth.bytes(), [width, height], orientation, name)?;
    let samples = Samples { depth, bytes: pixels.into() };
    Ok(Raster { width, height, samples, noticed: Noticed { colour, damage } })
}
