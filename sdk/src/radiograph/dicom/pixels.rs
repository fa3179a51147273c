//! Stored values: their description in the header, and their decompression.

use super::codecs;
use super::codestream::{self, EXTENDED, Frame};
use super::dataset::{BIG_ENDIAN, DataSet, Pixels, TOP};
use super::display::Bits;
use super::rle;
use crate::cause::Problem;
use crate::parallel;
use crate::radiograph::decoded::surplus;
use crate::radiograph::stored::{Depth, Samples};
use crate::radiograph::{RadiographError, check_sides, entropy, memory};
use dicom_core::value::C;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::Codec;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How pixels are stored.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Coding {
    Native,
    EncapsulatedNative,
    Rle,
    Jpeg(&'static str),
    JpegLs(&'static str),
    Jpeg2000(&'static str),
}

impl Coding {
    /// The coding of a transfer syntax that can be read.
    pub fn of(syntax: &str, name: &str) -> Result<Self, RadiographError> {
        Ok(match syntax {
            uids::IMPLICIT_VR_LITTLE_ENDIAN | uids::EXPLICIT_VR_LITTLE_ENDIAN | BIG_ENDIAN | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
                Self::Native
            }
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Self::EncapsulatedNative,
            uids::RLE_LOSSLESS => Self::Rle,
            uids::JPEG_BASELINE8_BIT => Self::Jpeg(uids::JPEG_BASELINE8_BIT),
            uids::JPEG_EXTENDED12_BIT => Self::Jpeg(uids::JPEG_EXTENDED12_BIT),
            uids::JPEG_LOSSLESS => Self::Jpeg(uids::JPEG_LOSSLESS),
            uids::JPEG_LOSSLESS_SV1 => Self::Jpeg(uids::JPEG_LOSSLESS_SV1),
            uids::JPEGLS_LOSSLESS => Self::JpegLs(uids::JPEGLS_LOSSLESS),
            uids::JPEGLS_NEAR_LOSSLESS => Self::JpegLs(uids::JPEGLS_NEAR_LOSSLESS),
            uids::JPEG2000_LOSSLESS => Self::Jpeg2000(uids::JPEG2000_LOSSLESS),
            uids::JPEG2000 => Self::Jpeg2000(uids::JPEG2000),
            uids::HTJ2K_LOSSLESS => Self::Jpeg2000(uids::HTJ2K_LOSSLESS),
            uids::HTJ2K_LOSSLESS_RPCL => Self::Jpeg2000(uids::HTJ2K_LOSSLESS_RPCL),
            uids::HTJ2K => Self::Jpeg2000(uids::HTJ2K),
            _ => return Err(unsupported_syntax(syntax, "", name)),
        })
    }

    /// Whether a fragment is the first one of a frame.
    fn begins(self, fragment: &[u8], shape: &Shape) -> bool {
        match self {
            Self::Native | Self::EncapsulatedNative => false,
            // Number of segments, and offset of the first.
            Self::Rle => fragment.starts_with(&[shape.depth.bytes() as u8, 0, 0, 0, 64, 0, 0, 0]),
            Self::Jpeg(_) | Self::JpegLs(_) => fragment.starts_with(&[0xFF, 0xD8, 0xFF]),
            Self::Jpeg2000(_) => fragment.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) || fragment.starts_with(b"\0\0\0\x0CjP  "),
        }
    }
}

/// Bytes per pixel that a decoder allocates, including its result.
const DECODER: usize = 10;
/// Pixels that a decoder may add on the right and at the bottom to complete a block.
const FILL: usize = 64;

fn unsupported_syntax(uid: &str, detail: &str, name: &str) -> RadiographError {
    let known = TransferSyntaxRegistry.get(uid).map_or("an unknown transfer syntax", |syntax| syntax.name());
    RadiographError::TransferSyntax { name: name.into(), syntax: format!("{known}{detail}"), uid: uid.into() }
}

/// Size and format of the only frame.
pub(super) struct Shape {
    pub columns: u32,
    pub rows: u32,
    pub bits: Bits,
    /// How many bytes an uncompressed value has.
    depth: Depth,
}

impl Shape {
    /// Reads and checks the header, before anything is allocated.
    pub fn read(data: &DataSet) -> Result<Self, RadiographError> {
        if data.pixels.is_none() {
            return Err(data.unsupported("it holds no pixels; choose the file of its study that holds the image"));
        }
        let word =
            |tag, what: &str| data.word(tag).ok_or_else(|| data.malformed(format!("{what} is missing, so its pixels cannot be read")));
        let (rows, columns) = (word(tags::ROWS, "Rows")?.into(), word(tags::COLUMNS, "Columns")?.into());
        check_sides(columns, rows, data.name)?;
        if let Some(frames) = data.decimal(tags::NUMBER_OF_FRAMES, "Number of Frames")?.filter(|&frames| frames > 1.0) {
            return Err(several(data, frames));
        }
        let photometric = data.text(TOP, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        let samples = data.word(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        if samples != 1 || !matches!(photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
            let kind = if photometric.is_empty() { "no Photometric Interpretation" } else { &photometric };
            return Err(data.unsupported(format!(
                "it is not a grey image ({kind}, {samples} samples per pixel); export it as MONOCHROME1 or MONOCHROME2"
            )));
        }
        let allocated = word(tags::BITS_ALLOCATED, "Bits Allocated")?;
        let stored = word(tags::BITS_STORED, "Bits Stored")?;
        let high = data.word(tags::HIGH_BIT).unwrap_or(stored.wrapping_sub(1));
        if !matches!(allocated, 8 | 16) || !(8..=allocated).contains(&stored) || !(stored - 1..allocated).contains(&high) {
            return Err(data.unsupported(format!(
                "its pixels have {stored} bits in {allocated} (high bit {high}), but 8 to 16 bits in 8 or 16 are accepted; \
                 export it with such a bit depth"
            )));
        }
        let signed = data.word(tags::PIXEL_REPRESENTATION) == Some(1);
        let bits = Bits { stored: stored.into(), shift: u32::from(high + 1 - stored), signed };
        Ok(Self { columns, rows, bits, depth: if allocated == 8 { Depth::One } else { Depth::Two } })
    }

    pub fn pixels(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// Checks that `length` bytes of uncompressed pixels are not several frames, whatever the header says. Returns the length.
    pub fn one_frame(&self, data: &DataSet, length: usize) -> Result<usize, RadiographError> {
        match length / (self.pixels() * self.depth.bytes()) {
            0 | 1 => Ok(length),
            frames => Err(several(data, frames)),
        }
    }
}

fn several(data: &DataSet, frames: impl std::fmt::Display) -> RadiographError {
    data.unsupported(format!("it holds {frames} frames; export one of them as a single image"))
}

/// The decompressed values of the frame.
pub(super) struct Unpacked<'a> {
    pub samples: Samples<'a>,
    /// The bits of a value that are used.
    pub bits: Bits,
    /// Why they may be damaged although they could be decompressed.
    pub damage: Option<String>,
}

/// Decompresses the frame, if it is compressed.
pub(super) fn unpack<'a>(data: &DataSet<'a, '_>, coding: Coding, shape: &Shape) -> Result<Unpacked<'a>, RadiographError> {
    let mut packed: Cow<'a, [u8]> = match (&data.pixels, coding) {
        (Some(Pixels::Native { bytes, .. }), Coding::Native) => Cow::Borrowed(*bytes),
        (Some(Pixels::Fragments { offsets, parts }), coding) if coding != Coding::Native => {
            let frames = (offsets.len() / 4).max(parts.iter().filter(|part| coding.begins(part, shape)).count());
            if frames > 1 {
                return Err(several(data, frames));
            }
            match parts[..] {
                [only] => Cow::Borrowed(only),
                _ => {
                    let mut joined = memory::room(parts.iter().map(|part| part.len()).sum(), data.name)?;
                    parts.iter().for_each(|part| joined.extend_from_slice(part));
                    Cow::Owned(joined)
                }
            }
        }
        _ => return Err(data.damaged("its pixels are not encoded as its transfer syntax says")),
    };
    if matches!(data.pixels, Some(Pixels::Native { swapped: true, .. })) {
        let mut swapped = memory::copied(&packed, data.name)?;
        swapped.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        packed = Cow::Owned(swapped);
    }
    let exact = |samples| Unpacked { samples, bits: shape.bits, damage: None };
    match coding {
        Coding::Native | Coding::EncapsulatedNative => {
            shape.one_frame(data, packed.len())?;
            Ok(exact(whole(data, packed, shape.depth, shape.pixels())?))
        }
        Coding::Rle => {
            let out = memory::filled(0, shape.pixels() * shape.depth.bytes(), data.name)?;
            let rle::Unpacked { bytes, doubt } =
                rle::decode(&packed, out, shape.depth.bytes()).ok_or_else(|| data.damaged("its run-length coded pixels are cut short"))?;
            let samples = whole(data, bytes.into(), shape.depth, shape.pixels())?;
            Ok(Unpacked { samples, bits: shape.bits, damage: doubt })
        }
        Coding::Jpeg(uid) => {
            let frame = announced(data, uid, codestream::jpeg(&packed), shape)?;
            let checked = entropy::check(&packed, [shape.columns, shape.rows]).map_err(|problem| data.damaged(problem))?;
            let doubt = checked.doubt.or_else(|| surplus(&packed[packed.len() - checked.after..]));
            if !checked.odd_bands.is_empty() {
                let mut corrected = memory::copied(&packed, data.name)?;
                checked.odd_bands.iter().for_each(|&at| corrected[at..at + 3].copy_from_slice(&entropy::WHOLE_BAND));
                packed = Cow::Owned(corrected);
            }
            let source = Source::new(uid, shape, &frame, &packed);
            if frame.process == EXTENDED && frame.precision == 12 {
                return compressed(data, &packed, &frame, shape, doubt, || codecs::jpeg_extended(&packed, 2 * shape.pixels()));
            }
            // The decoder of JPEG uses the pool of its thread. Without one it would panic.
            parallel::in_pool(|is_pool| match is_pool {
                true => compressed(data, &packed, &frame, shape, doubt, || decode(&source)),
                false => Err(RadiographError::Threads { name: data.name.into() }),
            })
        }
        Coding::JpegLs(uid) => {
            let frame = announced(data, uid, codestream::jpeg_ls(&packed), shape)?;
            let doubt = surplus(codestream::after_jpeg_ls(&packed));
            compressed(data, &packed, &frame, shape, doubt, || codecs::jpeg_ls(&packed, 2 * shape.pixels()))
        }
        Coding::Jpeg2000(uid) => {
            let frame = announced(data, uid, codestream::jpeg_2000(&packed), shape)?;
            let doubt = surplus(codestream::after_jpeg_2000(&packed));
            let source = Source::new(uid, shape, &frame, &packed);
            compressed(data, &packed, &frame, shape, doubt, || decode(&source))
        }
    }
}

/// As many values as there are pixels; surplus bytes are cut off.
fn whole<'a>(data: &DataSet, mut bytes: Cow<'a, [u8]>, depth: Depth, pixels: usize) -> Result<Samples<'a>, RadiographError> {
    let needed = pixels * depth.bytes();
    if bytes.len() < needed {
        return Err(data.damaged(format!("it has {} bytes of pixels, but its header implies {needed}", bytes.len())));
    }
    match &mut bytes {
        Cow::Borrowed(bytes) => *bytes = &bytes[..needed],
        Cow::Owned(bytes) => bytes.truncate(needed),
    }
    Ok(Samples { depth, bytes })
}

/// Checks a codestream's header against that of the file before a decoder is called, so that the decoder neither allocates nor writes more
/// than both announce.
fn announced(data: &DataSet, uid: &str, frame: Option<Frame>, shape: &Shape) -> Result<Frame, RadiographError> {
    let Some(frame) = frame else {
        return Err(data.damaged("its compressed pixels have no readable header"));
    };
    if (frame.width, frame.height) != (shape.columns, shape.rows) {
        return Err(data.damaged(format!(
            "its compressed picture is {}x{}, but its header says {}x{}",
            frame.width, frame.height, shape.columns, shape.rows
        )));
    }
    if frame.components != 1 {
        return Err(data.unsupported(format!(
            "its compressed picture has {} components, but a grey one has 1; export it as MONOCHROME1 or MONOCHROME2",
            frame.components
        )));
    }
    match frame.obstacle {
        Some(obstacle) => Err(unsupported_syntax(uid, &format!(" with {obstacle}"), data.name)),
        None => Ok(frame),
    }
}

/// Decompresses JPEG, JPEG-LS and JPEG 2000 by `decode`.
fn compressed(
    data: &DataSet,
    packed: &[u8],
    frame: &Frame,
    shape: &Shape,
    damage: Option<String>,
    decode: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Unpacked<'static>, RadiographError> {
    memory::available((shape.columns as usize + FILL) * (shape.rows as usize + FILL) * DECODER + 3 * packed.len(), data.name)?;
    let unpacked = decode().map_err(|e| data.damaged(Problem::caused("its compressed pixels cannot be decoded", e)))?;
    // The codestream's precision is that of the decompressed values.
    let bits = Bits { stored: frame.precision, shift: 0, ..shape.bits };
    Ok(Unpacked { samples: whole(data, unpacked.into(), frame.depth_of_value(), shape.pixels())?, bits, damage })
}

fn decode(source: &Source) -> Result<Vec<u8>, String> {
    let Some(Codec::EncapsulatedPixelData(Some(reader), _)) = TransferSyntaxRegistry.get(source.uid).map(|s| s.codec()) else {
        return Err("no decoder is built in".into());
    };
    let mut unpacked = Vec::new();
    // The adapters and the JPEG 2000 decoder can panic on damaged data. Only `unpacked` is changed, which is dropped after a panic.
    match catch_unwind(AssertUnwindSafe(|| reader.decode_frame(source, 0, &mut unpacked))) {
        Ok(Ok(())) => Ok(unpacked),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the decoder failed".into()),
    }
}

/// A compressed frame as an object of dicom-rs.
struct Source<'a> {
    uid: &'a str,
    columns: u16,
    rows: u16,
    bits: u16,
    packed: &'a [u8],
}

impl<'a> Source<'a> {
    fn new(uid: &'a str, shape: &Shape, frame: &Frame, packed: &'a [u8]) -> Self {
        let bits = 8 * frame.depth_of_value().bytes() as u16;
        Self { uid, columns: shape.columns as u16, rows: shape.rows as u16, bits, packed }
    }
}

impl PixelDataObject for Source<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.uid
    }

    fn rows(&self) -> Option<u16> {
        Some(self.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.columns)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.packed))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        None
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: C::from_vec(vec![self.packed.to_vec()]), offset_table: C::new() })
    }
}
