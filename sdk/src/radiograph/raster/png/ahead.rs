//! Decompression on a thread of its own, while the caller's thread undoes the filters of the rows before.
//!
//! Both take about as long for a radiograph. This is for the common case, whole files without a palette and not interlaced; whatever is
//! unusual about a file is left to the library's reader, and so are its errors.

use super::super::grey::Layout;
use super::filters;
use png::{DecodeOptions, Decoded, StreamingDecoder, UnfilterRegion};
use std::borrow::Cow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, scope};

/// How far back compressed data may refer to what is decompressed already.
const LOOK_BACK: usize = 1 << 15;
/// Bytes that are handed over at a time, and how many such pieces may wait.
const PIECE: usize = 1 << 17;
const MAX_WAITING: usize = 4;

/// What was read beside the grey values.
pub(super) struct Rows {
    /// Number of coloured pixels.
    pub coloured: u64,
    /// The EXIF chunk.
    pub exif: Option<Cow<'static, [u8]>>,
}

/// Reads the pixels of a file whose rows have `length` bytes, as grey values of `stride` bytes a row. `None` if there is no thread, or the
/// library's reader has to look at the file.
pub(super) fn read(bytes: &[u8], options: DecodeOptions, layout: Layout, length: usize, pixels: &mut [u8], stride: usize) -> Option<Rows> {
    let (sender, pieces) = sync_channel(MAX_WAITING);
    scope(|scope| {
        let work = move || decompress(bytes, options, &sender);
        let thread = Builder::new().name("anatomix png".into()).spawn_scoped(scope, work).ok()?;
        let coloured = rows(&pieces, layout, length, pixels, stride);
        // A thread whose pieces nobody takes ends.
        drop(pieces);
        let exif = thread.join().ok()??;
        Some(Rows { coloured: coloured?, exif })
    })
}

/// Decompresses all pixels and reads the chunks after them; `None` if anything is wrong. Returns the EXIF chunk.
fn decompress(bytes: &[u8], options: DecodeOptions, pieces: &SyncSender<Vec<u8>>) -> Option<Option<Cow<'static, [u8]>>> {
    let mut decoder = StreamingDecoder::new_with_options(options);
    let mut buffer = vec![0; LOOK_BACK + PIECE];
    let (mut region, mut sent, mut at) = (UnfilterRegion::default(), 0, 0);
    loop {
        let before = region.filled;
        let (used, decoded) = decoder.update(&bytes[at..], Some(&mut region.as_buf(&mut buffer))).ok()?;
        at += used;
        let is_over = matches!(decoded, Decoded::ImageDataFlushed);
        if is_over || region.filled == buffer.len() {
            pieces.send(buffer[sent..region.filled].to_vec()).ok()?;
            sent = region.filled.min(LOOK_BACK);
            buffer.copy_within(region.filled - sent..region.filled, 0);
            region = UnfilterRegion { available: 0, filled: sent };
        } else if used == 0 && region.filled == before && !matches!(decoded, Decoded::ChunkBegin(..) | Decoded::ChunkComplete(_)) {
            return None;
        }
        if is_over {
            break;
        }
    }
    // Metadata may follow the pixels. The picture is complete even if they are cut.
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match decoder.update(rest, None) {
            Ok((used, _)) if used > 0 => at += used,
            _ => break,
        }
    }
    Some(decoder.info()?.exif_metadata.clone())
}

/// Undoes the filters of rows and writes their grey values. Returns the number of coloured pixels; `None` if there are not exactly as many
/// rows as pixels.
fn rows(pieces: &Receiver<Vec<u8>>, layout: Layout, length: usize, pixels: &mut [u8], stride: usize) -> Option<u64> {
    let pixel = layout.channels * layout.depth.bytes();
    let (mut above, mut row) = (vec![0; length], vec![0; 1 + length]);
    let (mut filled, mut coloured) = (0, 0);
    let mut out = pixels.chunks_exact_mut(stride);
    for piece in pieces {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(row.len() - filled));
            row[filled..filled + part.len()].copy_from_slice(part);
            (filled, rest) = (filled + part.len(), after);
            if filled == row.len() {
                let (filter, values) = row.split_first_mut()?;
                filters::undo(*filter, pixel, &above, values)?;
                coloured += layout.row(values, out.next()?);
                above.copy_from_slice(values);
                filled = 0;
            }
        }
    }
    (filled == 0 && out.next().is_none()).then_some(coloured)
}
