//! The elements of a DICOM file that matter here, as slices of the file.
//!
//! dicom-rs can also build a whole object, but then a hostile file decides how much memory is allocated and how deep the
//! recursion goes. Its token reader does neither, and values that nobody asks for are never read.

use super::unknown::{self, Tracked};
use crate::radiograph::RadiographError;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::TransferSyntax;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::entries;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Retired, but such files are kept.
pub(super) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Stands for "not in a sequence".
pub(super) const TOP: Tag = Tag(0, 0);
/// Groups kept: identification, acquisition, relationship, image, view codes, presentation.
const GROUPS: [u16; 6] = [0x0008, 0x0018, 0x0020, 0x0028, 0x0054, 0x2050];
/// Sequences of which the first item is kept.
const SEQUENCES: [Tag; 4] = [tags::MODALITY_LUT_SEQUENCE, tags::VOILUT_SEQUENCE, tags::ANATOMIC_REGION_SEQUENCE, tags::VIEW_CODE_SEQUENCE];
/// Deeper than any image; a limit is needed because each level costs memory.
const MAX_DEPTH: usize = 64;
/// More than the largest accepted frame has in fragments of 32 KiB.
const MAX_FRAGMENTS: usize = 1 << 16;
/// Values kept of an element: Image Orientation has the most that matter.
const MAX_VALUES: usize = 6;
/// Characters kept of a text, which is the longest that a UID or a long string may be.
const MAX_TEXT: usize = 64;

/// Elements of one file.
pub(super) struct DataSet<'a, 'n> {
    /// What stands for the file in messages.
    pub name: &'n str,
    /// Pixel Data, where there are any.
    pub pixels: Option<Pixels<'a>>,
    implicit: bool,
    big_endian: bool,
    elements: BTreeMap<(Tag, Tag), Element<'a>>,
}

struct Element<'a> {
    vr: VR,
    value: &'a [u8],
}

/// Pixel Data as they lie in the file.
pub(super) enum Pixels<'a> {
    /// Uncompressed; `swapped` if their bytes come in pairs of the other order.
    Native { bytes: &'a [u8], swapped: bool },
    /// Compressed, without the offset table.
    Fragments(Vec<&'a [u8]>),
}

/// What has been entered and not left.
#[derive(Clone, Copy)]
enum Open {
    Sequence { tag: Tag, items: usize },
    Item,
}

impl<'a, 'n> DataSet<'a, 'n> {
    /// Follows `body` up to its pixels; what comes after them does not matter.
    pub fn read(body: &'a [u8], syntax: &str, name: &'n str) -> Result<Self, RadiographError> {
        let (implicit, big_endian) = (syntax == uids::IMPLICIT_VR_LITTLE_ENDIAN, syntax == BIG_ENDIAN);
        let written = match (implicit, big_endian) {
            (true, _) => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
            (_, true) => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
            // Compressed and deflated syntaxes are written so, too.
            _ => explicit_little_endian(),
        };
        let mut data = Self { name, pixels: None, implicit, big_endian, elements: BTreeMap::new() };
        let lost = |e: &dyn std::error::Error| data_damaged(name, format!("its elements cannot be followed ({e})"));
        let position = Cell::new(0);
        let follow = |from| LazyDataSetReader::new_with_ts(Tracked::new(body, from, &position), &written).map_err(|e| lost(&e));
        let mut reader = follow(0)?;
        let mut open: Vec<Open> = Vec::new();
        let mut fragments = Vec::new();
        while let Some(token) = reader.advance() {
            match token.map_err(|e| lost(&e))? {
                LazyDataToken::ElementHeader(_) => {}
                LazyDataToken::SequenceStart { tag, len } => {
                    let at = position.get();
                    let passed_on = if open.is_empty() && len.is_undefined() { unknown::end(body, at) } else { None };
                    match passed_on {
                        Some(Some(end)) => reader = follow(end)?,
                        Some(None) => return Err(data.damaged(format!("its sequence {tag} does not end"))),
                        None => open.push(Open::Sequence { tag, items: 0 }),
                    }
                }
                LazyDataToken::PixelSequenceStart => open.push(Open::Sequence { tag: tags::PIXEL_DATA, items: 0 }),
                LazyDataToken::ItemStart { .. } => match open.last_mut() {
                    Some(Open::Sequence { items, .. }) => {
                        *items += 1;
                        open.push(Open::Item);
                    }
                    _ => return Err(data.damaged("an item begins outside a sequence")),
                },
                // The reader relies on delimiters that match (it can panic at the next step), so they are checked here.
                LazyDataToken::ItemEnd => {
                    if !matches!(open.pop(), Some(Open::Item)) {
                        return Err(data.damaged("an item ends that did not begin"));
                    }
                }
                LazyDataToken::SequenceEnd => match (open.pop(), open.is_empty()) {
                    (Some(Open::Sequence { tag: tags::PIXEL_DATA, .. }), true) => {
                        data.pixels = Some(Pixels::Fragments(fragments));
                        return Ok(data);
                    }
                    (Some(Open::Sequence { .. }), _) => {}
                    _ => return Err(data.damaged("a sequence ends that did not begin")),
                },
                LazyDataToken::LazyValue { header, decoder } => {
                    let value = data.slice(body, decoder.position(), header.len.0, header.tag)?;
                    if open.is_empty() && header.tag == tags::PIXEL_DATA {
                        data.pixels = Some(Pixels::Native { bytes: value, swapped: big_endian && header.vr == VR::OW });
                        return Ok(data);
                    }
                    if let Some(sequence) = kept(&open, header.tag) {
                        data.elements.insert((sequence, header.tag), Element { vr: header.vr, value });
                    }
                    decoder.skip_bytes(header.len.0).map_err(|e| lost(&e))?;
                }
                LazyDataToken::LazyItemValue { len, decoder } => {
                    let value = data.slice(body, decoder.position(), len, tags::PIXEL_DATA)?;
                    // The first item is the offset table, which a single frame does not need.
                    if matches!(open[..], [Open::Sequence { items: 2.., .. }, Open::Item]) {
                        fragments.push(value);
                    }
                    if fragments.len() > MAX_FRAGMENTS {
                        return Err(data.damaged("its pixels are in more pieces than any image has"));
                    }
                    decoder.skip_bytes(len).map_err(|e| lost(&e))?;
                }
                // There are no others yet.
                _ => return Err(data.damaged("its elements cannot be followed")),
            }
            if open.len() > MAX_DEPTH {
                return Err(data.damaged("its sequences are nested deeper than any image's"));
            }
        }
        Ok(data)
    }

    fn slice(&self, body: &'a [u8], start: u64, length: u32, tag: Tag) -> Result<&'a [u8], RadiographError> {
        let end = start.saturating_add(length.into());
        let cut = || self.damaged(format!("it ends inside element {tag}, {} bytes too early", end.saturating_sub(body.len() as u64)));
        usize::try_from(start).ok().zip(usize::try_from(end).ok()).and_then(|(a, b)| body.get(a..b)).ok_or_else(cut)
    }

    /// Whether `sequence` has an item that is not empty.
    pub fn has(&self, sequence: Tag) -> bool {
        self.elements.range((sequence, TOP)..).next().is_some_and(|(&(found, _), _)| found == sequence)
    }

    /// Values of 16 bits; nothing if the element is absent.
    pub fn words(&self, sequence: Tag, tag: Tag) -> Option<Vec<u16>> {
        let element = self.elements.get(&(sequence, tag))?;
        let word = if self.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        Some(element.value.chunks_exact(2).map(|pair| word([pair[0], pair[1]])).collect())
    }

    /// The first value of 16 bits.
    pub fn word(&self, tag: Tag) -> Option<u16> {
        self.words(TOP, tag)?.first().copied()
    }

    /// Whether a value that is US or SS by context is SS. Without stated representations only the context knows.
    pub fn is_signed(&self, sequence: Tag, tag: Tag, context: bool) -> bool {
        match self.elements.get(&(sequence, tag)) {
            Some(element) if !self.implicit => element.vr == VR::SS,
            _ => context,
        }
    }

    /// All values of a text, cleaned; see [`text`].
    pub fn texts(&self, sequence: Tag, tag: Tag) -> Vec<String> {
        let value = self.elements.get(&(sequence, tag)).map_or(&[][..], |element| element.value);
        value.split(|&b| b == b'\\').take(MAX_VALUES).map(text).collect()
    }

    /// The first value of a text, cleaned; nothing if it is absent or empty.
    pub fn text(&self, sequence: Tag, tag: Tag) -> Option<String> {
        self.texts(sequence, tag).into_iter().next().filter(|text| !text.is_empty())
    }

    /// The first value of a number in decimal text; nothing if it is absent or empty.
    pub fn decimal(&self, tag: Tag, what: &str) -> Result<Option<f64>, RadiographError> {
        let Some(text) = self.text(TOP, tag) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(self.malformed(format!("{what} is \"{text}\", which is not a number"))),
        }
    }

    pub fn damaged(&self, message: impl Into<String>) -> RadiographError {
        data_damaged(self.name, message.into())
    }

    pub fn malformed(&self, message: impl Into<String>) -> RadiographError {
        RadiographError::Header { name: self.name.into(), message: message.into() }
    }

    pub fn unsupported(&self, message: impl Into<String>) -> RadiographError {
        RadiographError::Unsupported { name: self.name.into(), message: message.into() }
    }
}

fn data_damaged(name: &str, message: String) -> RadiographError {
    RadiographError::Damaged { name: name.into(), message }
}

/// Under which sequence an element is kept, if it is.
fn kept(open: &[Open], tag: Tag) -> Option<Tag> {
    let sequence = match *open {
        [] => TOP,
        [Open::Sequence { tag, items: 1 }, Open::Item] if SEQUENCES.contains(&tag) => tag,
        _ => return None,
    };
    GROUPS.contains(&tag.group()).then_some(sequence)
}

pub(super) fn explicit_little_endian() -> TransferSyntax {
    entries::EXPLICIT_VR_LITTLE_ENDIAN.erased()
}

/// A text fit to be shown: bounded, trimmed, without control and formatting characters, whoever wrote it.
pub(super) fn text(value: &[u8]) -> String {
    let head = value.get(..4 * MAX_TEXT).unwrap_or(value);
    let shown = |c: &char| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ';
    let clean: String = String::from_utf8_lossy(head).chars().filter(shown).take(MAX_TEXT).collect();
    clean.trim().to_owned()
}
