//! The beginning of a file: its transfer syntax, and the position of its data set.

use super::dataset::{BIG_ENDIAN, DataSet, Pixels, explicit_little_endian, text};
use super::pixels::Shape;
use crate::cause::source;
use crate::radiograph::{RadiographError, memory};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::Codec;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::borrow::Cow;
use std::io::{Cursor, Read};

const PREAMBLE: usize = 128;
const MAGIC: &[u8] = b"DICM";
const META_GROUP: u16 = 0x0002;

/// The beginning of a file, with its data set.
pub(super) struct Start<'a> {
    /// UID of the transfer syntax.
    pub syntax: String,
    /// UID of the SOP class that the file meta information names.
    pub class: Option<String>,
    /// The data set, still deflated if the syntax says so.
    body: &'a [u8],
}

/// Whether `bytes` begin as DICOM files do: with a preamble or, in files of older devices, without one.
pub fn is_dicom(bytes: &[u8]) -> bool {
    meta_offset(bytes).is_some() || bare_syntax(bytes).is_some()
}

pub(super) fn start<'a>(bytes: &'a [u8], name: &str) -> Result<Start<'a>, RadiographError> {
    let Meta { syntax, class, end } = meta_offset(bytes).map(|offset| meta(bytes, offset)).unwrap_or_default();
    let body = bytes.get(end..).unwrap_or_default();
    match syntax.or_else(|| bare_syntax(body).map(str::to_owned)) {
        Some(syntax) => Ok(Start { syntax, class, body }),
        None => Err(RadiographError::Damaged {
            name: name.into(),
            message: "its file meta information is cut short or names no transfer syntax".into(),
            source: None,
        }),
    }
}

/// Bytes of a deflated data set that are inflated before the size of its pixels is known.
const BEGINNING: u64 = 16 << 20;

/// The data set, inflated if it is deflated. Only its header and one frame are inflated, because a small file can inflate to a thousand
/// times its size.
pub(super) fn body<'a>(start: &Start<'a>, name: &str) -> Result<Cow<'a, [u8]>, RadiographError> {
    let adapter = match TransferSyntaxRegistry.get(&start.syntax).map(|syntax| syntax.codec()) {
        Some(Codec::Dataset(Some(adapter))) => adapter,
        _ => return Ok(Cow::Borrowed(start.body)),
    };
    let mut reader = adapter.adapt_reader(Box::new(start.body));
    let mut inflated = memory::room(BEGINNING as usize, name)?;
    let mut inflate = |inflated: &mut Vec<u8>, length: u64| {
        reader.by_ref().take(length).read_to_end(inflated).map_err(|e| {
            let message = "its data set cannot be inflated".into();
            RadiographError::Damaged { name: name.into(), message, source: Some(source(e)) }
        })
    };
    inflate(&mut inflated, BEGINNING)?;
    if inflated.len() as u64 == BEGINNING {
        let data = DataSet::read_beginning(&inflated, &start.syntax, name)?;
        if let Some(Pixels::Cut { start, length }) = data.pixels {
            let end = start + Shape::read(&data)?.one_frame(&data, length)?;
            let missing = end.saturating_sub(inflated.len());
            inflated.try_reserve_exact(missing).map_err(|_| RadiographError::Memory { name: name.into(), bytes: end })?;
            inflate(&mut inflated, missing as u64)?;
        }
    }
    Ok(Cow::Owned(inflated))
}

/// Where the file meta information begins.
fn meta_offset(bytes: &[u8]) -> Option<usize> {
    if bytes.get(PREAMBLE..PREAMBLE + MAGIC.len()) == Some(MAGIC) {
        return Some(PREAMBLE + MAGIC.len());
    }
    if bytes.starts_with(MAGIC) {
        return Some(MAGIC.len());
    }
    (bytes.starts_with(&[0x02, 0x00]) && has_vr(bytes) && bytes.get(3) == Some(&0)).then_some(0)
}

/// The transfer syntax of a data set without file meta information. The data set of an image begins with group 0008.
fn bare_syntax(bytes: &[u8]) -> Option<&'static str> {
    let &[a, b, c, d, length @ ..] = bytes.first_chunk::<8>()?;
    match ([a, b, c, d], has_vr(bytes)) {
        ([0x08, 0x00, _, 0x00], true) => Some(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        ([0x00, 0x08, 0x00, _], true) => Some(BIG_ENDIAN),
        ([0x08, 0x00, _, 0x00], false) if u32::from_le_bytes(length) as usize <= bytes.len() => Some(uids::IMPLICIT_VR_LITTLE_ENDIAN),
        _ => None,
    }
}

/// Whether the first element has an explicit value representation.
fn has_vr(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, _, a, b, ..] if VR::from_binary([*a, *b]).is_some())
}

/// The file meta information, as far as it is used.
#[derive(Default)]
struct Meta {
    syntax: Option<String>,
    class: Option<String>,
    /// Where the data set begins.
    end: usize,
}

fn meta(bytes: &[u8], offset: usize) -> Meta {
    let mut cursor = Cursor::new(bytes);
    cursor.set_position(offset as u64);
    let mut meta = Meta { end: offset, ..Meta::default() };
    let Ok(mut reader) = LazyDataSetReader::new_with_ts(cursor, &explicit_little_endian()) else {
        return meta;
    };
    // The data set that follows may have another syntax, so its first header may be misread. Any group but 2 ends the loop.
    while let Some(Ok(token)) = reader.advance() {
        match token {
            LazyDataToken::ElementHeader(header) if header.tag.group() == META_GROUP => {}
            LazyDataToken::LazyValue { header, decoder } => {
                let start = decoder.position() as usize;
                let Some(value) = bytes.get(start..start.saturating_add(header.len.0 as usize)) else { break };
                let uid = || Some(text(value)).filter(|uid| !uid.is_empty());
                match header.tag {
                    tags::TRANSFER_SYNTAX_UID => meta.syntax = uid(),
                    tags::MEDIA_STORAGE_SOP_CLASS_UID => meta.class = uid(),
                    _ => {}
                }
                if decoder.skip_bytes(header.len.0).is_err() {
                    break;
                }
                meta.end = start + value.len();
            }
            _ => break,
        }
    }
    meta
}
