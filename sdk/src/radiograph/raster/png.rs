//! PNG, row by row: only the grey picture and a few rows are in memory, whatever the number of channels and bits.

use super::grey::Layout;
use super::orientation;
use super::picture::{self, Raster};
use crate::cause::Problem;
use crate::radiograph::decoded::{self, Noticed};
use crate::radiograph::stored::{Depth, Samples};
use crate::radiograph::{RadiographError, check_sides, memory};
use image::metadata::Orientation;
use png::{BitDepth, Decoder, InterlaceInfo, Transformations, expand_interlaced_row};
use std::io::Cursor;

pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Raster, RadiographError> {
    let damaged = |error: png::DecodingError| picture::damaged(name, Problem::caused(picture::UNDECODED, error));
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // Colour profiles and texts are not used. They are compressed, so a small one can unpack to gigabytes.
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
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
    let mut part = vec![0u8; stride];
    let (mut rows, mut coloured) = (0, 0);
    while let Some(row) = reader.next_interlaced_row().map_err(damaged)? {
        let count = row.data().len() / layout.channels / layout.depth.bytes();
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                // The first frame of an animation can be smaller than the picture.
                let out = pixels.chunks_exact_mut(stride).nth(rows).filter(|_| count == width as usize);
                coloured += layout.row(row.data(), out.ok_or_else(|| picture::damaged(name, "its rows are not those of its header"))?);
            }
            InterlaceInfo::Adam7(pass) => {
                let part = part.get_mut(..count * size).ok_or_else(|| picture::damaged(name, "its rows are not those of its header"))?;
                coloured += layout.row(row.data(), part);
                expand_interlaced_row(&mut pixels, stride, part, pass, 8 * size as u8);
            }
        }
        rows += 1;
    }
    if !reader.info().interlaced && rows != height as usize {
        return Err(picture::damaged(name, "its rows are not those of its header"));
    }
    // Metadata may follow the pixels. The picture is complete even if they are cut.
    let _ = reader.finish();
    let orientation = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let (pixels, [rotated_width, rotated_height]) = orientation::apply(pixels, size, [width, height], orientation, name)?;
    let colour = coloured as f32 / (width as f32 * height as f32);
    Ok(Raster {
        width: rotated_width,
        height: rotated_height,
        samples: Samples { depth: layout.grey(), bytes: pixels.into() },
        noticed: Noticed { colour, damage: surplus(bytes) },
    })
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
