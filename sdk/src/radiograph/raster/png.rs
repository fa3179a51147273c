//! PNG, row by row: only the grey picture and a few rows are in memory, whatever the number of channels and bits.

mod ahead;
mod filters;

use super::grey::Layout;
use super::orientation;
use super::picture::{self, Raster};
use crate::cause::Problem;
use crate::parallel;
use crate::radiograph::decoded::{self, Noticed};
use crate::radiograph::stored::{Depth, Samples};
use crate::radiograph::{RadiographError, check_sides, memory};
use image::metadata::Orientation;
use png::{BitDepth, DecodeOptions, Decoder, Info, InterlaceInfo, Reader, Transformations, expand_interlaced_row};
use std::io::Cursor;

/// Smallest number of bytes of pixels that is worth the start of a second thread.
const MIN_AHEAD: usize = 1 << 20;

pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Raster, RadiographError> {
    let damaged = |error: png::DecodingError| picture::damaged(name, Problem::caused(picture::UNDECODED, error));
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options());
    // Palettes become colours, transparent colours become an alpha channel, and fewer than eight bits become eight.
    decoder.set_transformations(Transformations::EXPAND);
    let (width, height) = decoder.read_header_info().map_err(damaged)?.size();
    check_sides(width, height, name)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (color, depth) = reader.output_color_type();
    let layout = Layout { channels: color.samples(), depth: if depth == BitDepth::Sixteen { Depth::Two } else { Depth::One } };
    let size = layout.grey().bytes();
    let stride = width as usize * size;
    let mut pixels = memory::filled(0u8, stride * height as usize, name)?;
    let length = width as usize * layout.channels * layout.depth.bytes();
    let is_worth = length * height as usize >= MIN_AHEAD && parallel::threads() > 1;
    let ahead = (is_worth && is_plain(reader.info())).then(|| ahead::read(bytes, options(), layout, length, &mut pixels, stride));
    let (coloured, exif) = match ahead.flatten() {
        Some(rows) => (rows.coloured, rows.exif),
        None => {
            let coloured = read(&mut reader, layout, &mut pixels, stride, name)?;
            // Metadata may follow the pixels. The picture is complete even if they are cut.
            let _ = reader.finish();
            (coloured, reader.info().exif_metadata.clone())
        }
    };
    let orientation = exif.as_deref().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let (pixels, [rotated_width, rotated_height]) = orientation::apply(pixels, size, [width, height], orientation, name)?;
    let colour = coloured as f32 / (width as f32 * height as f32);
    Ok(Raster {
        width: rotated_width,
        height: rotated_height,
        samples: Samples { depth: layout.grey(), bytes: pixels.into() },
        noticed: Noticed { colour, damage: surplus(bytes) },
    })
}

/// Colour profiles and texts are not used. They are compressed, so a small one can unpack to gigabytes.
fn options() -> DecodeOptions {
    let mut options = DecodeOptions::default();
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_text_chunk(true);
    options
}

/// Whether rows are stored as they are read: not interlaced, without palette, transparent colours and animation, of whole bytes.
fn is_plain(info: &Info) -> bool {
    let whole = matches!(info.bit_depth, BitDepth::Eight | BitDepth::Sixteen);
    whole && !info.interlaced && info.palette.is_none() && info.trns.is_none() && info.animation_control.is_none()
}

/// Reads all pixels by the library's reader, as grey values of `stride` bytes a row. Returns the number of coloured pixels.
fn read(reader: &mut Reader<Cursor<&[u8]>>, layout: Layout, pixels: &mut [u8], stride: usize, name: &str) -> Result<u64, RadiographError> {
    let damaged = |error: png::DecodingError| picture::damaged(name, Problem::caused(picture::UNDECODED, error));
    let (width, height) = reader.info().size();
    let size = layout.grey().bytes();
    let mut part = vec![0u8; stride];
    let (mut rows, mut coloured) = (0, 0);
    while let Some(row) = reader.next_interlaced_row().map_err(damaged)? {
        let count = row.data().len() / layout.channels / layout.depth.bytes();
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                // The first frame of an animation can be smaller than the picture.
                let out = pixels.chunks_exact_mut(stride).nth(rows).filter(|_| count == width as usize);
                coloured += layout.row(row.data(), out.ok_or_else(|| picture::damaged(name, "its rows do not match its header"))?);
            }
            InterlaceInfo::Adam7(pass) => {
                let part = part.get_mut(..count * size).ok_or_else(|| picture::damaged(name, "its rows do not match its header"))?;
                coloured += layout.row(row.data(), part);
                expand_interlaced_row(pixels, stride, part, pass, 8 * size as u8);
            }
        }
        rows += 1;
    }
    if !reader.info().interlaced && rows != height as usize {
        return Err(picture::damaged(name, "its rows do not match its header"));
    }
    Ok(coloured)
}

/// Bytes of the signature, and those of a chunk beside its data: length, type and checksum.
const SIGNATURE: usize = 8;
const CHUNK: usize = 12;

/// Whether bytes follow the last chunk (IEND), as a doubt about the file. Padding with zeros is none.
fn surplus(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes.get(SIGNATURE..)?;
    while let Some(&[a, b, c, d, ref kind @ ..]) = rest.first_chunk::<8>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        rest = rest.get(length.checked_add(CHUNK)?..)?;
        if kind == b"IEND" {
            return decoded::surplus(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests;
