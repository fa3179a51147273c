//! The elements of a DICOM file that are used here, as slices of the file.
//!
//! dicom-rs can also build a whole object, but then a hostile file determines how much memory is allocated and how deep the recursion is.
//! Its token reader allocates nothing and does not recurse, and values that are not used are not read.

use super::sequence::{self, Broken, Encoding, Sequence, UNDEFINED};
use crate::cause::Problem;
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
use std::io::{Cursor, Read, Seek, SeekFrom};

/// Explicit VR Big Endian, which is retired, but used by archived files.
pub(super) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// The sequence of elements that are not in a sequence.
pub(super) const TOP: Tag = Tag(0, 0);
/// Groups that are kept: identification, patient, acquisition, relationship, image, view codes, presentation.
const GROUPS: [u16; 7] = [0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x0054, 0x2050];
/// Sequences that are kept, each with the number of its items that are kept at most.
const SEQUENCES: [(Tag, usize); 4] = [
    (tags::MODALITY_LUT_SEQUENCE, 1),
    (tags::VOILUT_SEQUENCE, MAX_CHOICES),
    (tags::ANATOMIC_REGION_SEQUENCE, 1),
    (tags::VIEW_CODE_SEQUENCE, 1),
];
/// Most windows or tables of interest that can be chosen from.
pub(super) const MAX_CHOICES: usize = 64;
/// Most texts of an element of which all are kept.
const MAX_LISTED: usize = 32;
/// Most elements of these groups. Images have far fewer, but each element takes memory.
const MAX_ELEMENTS: usize = 1 << 14;
/// Most values of an element. Look-up tables have the most.
const MAX_WORDS: usize = 1 << 16;
/// Most texts of an element. Image Orientation has the most that are used.
const MAX_VALUES: usize = 6;
/// Most characters of a text: the largest length of a UID or a long string.
const MAX_TEXT: usize = 64;

/// Where an element is: in an item of a sequence, or in none ([`TOP`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    sequence: Tag,
    item: usize,
}

impl Place {
    pub fn new(sequence: Tag, item: usize) -> Self {
        Self { sequence, item }
    }
}

impl From<Tag> for Place {
    /// The first item of a sequence.
    fn from(sequence: Tag) -> Self {
        Self::new(sequence, 0)
    }
}

/// The elements of a file.
pub(super) struct DataSet<'a, 'n> {
    /// The file's name in messages.
    pub name: &'n str,
    /// Pixel Data, if they are present.
    pub pixels: Option<Pixels<'a>>,
    implicit: bool,
    big_endian: bool,
    elements: BTreeMap<(Place, Tag), Element<'a>>,
}

struct Element<'a> {
    vr: VR,
    value: &'a [u8],
}

/// Pixel Data as the file holds them.
pub(super) enum Pixels<'a> {
    /// Uncompressed; `swapped` if the two bytes of each word have the other order.
    Native { bytes: &'a [u8], swapped: bool },
    /// The start and length that the header gives; the data end before that. Of compressed pixels the length is not known, and 0.
    Cut { start: usize, length: usize },
    /// Compressed, with the offset table.
    Fragments { offsets: &'a [u8], parts: Vec<&'a [u8]> },
}

impl<'a, 'n> DataSet<'a, 'n> {
    /// Reads `body` up to its pixels. What follows them is not used.
    pub fn read(body: &'a [u8], syntax: &str, name: &'n str) -> Result<Self, RadiographError> {
        Self::parse(body, syntax, name, false)
    }

    /// Reads the beginning of a body, whose pixels may be [`Pixels::Cut`].
    pub fn read_beginning(body: &'a [u8], syntax: &str, name: &'n str) -> Result<Self, RadiographError> {
        Self::parse(body, syntax, name, true)
    }

    fn parse(body: &'a [u8], syntax: &str, name: &'n str, may_be_cut: bool) -> Result<Self, RadiographError> {
        let (implicit, big_endian) = (syntax == uids::IMPLICIT_VR_LITTLE_ENDIAN, syntax == BIG_ENDIAN);
        let mut data = Self { name, pixels: None, implicit, big_endian, elements: BTreeMap::new() };
        data.elements(body, Encoding { explicit: !implicit, big_endian }, TOP.into(), may_be_cut)?;
        Ok(data)
    }

    /// Keeps the used elements of `part`, which is at `place`: an item of a sequence, or the whole body.
    fn elements(&mut self, part: &'a [u8], encoding: Encoding, place: Place, may_be_cut: bool) -> Result<(), RadiographError> {
        let is_top = place == TOP.into();
        let written = match (encoding.explicit, encoding.big_endian) {
            (false, _) => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
            (_, true) => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
            // Compressed and deflated syntaxes have the same encoding.
            _ => explicit_little_endian(),
        };
        let name = self.name;
        let lost = |e: &dyn std::error::Error| data_damaged(name, Problem::caused("its elements cannot be read", e));
        let position = Cell::new(0);
        let reader_at = |from| LazyDataSetReader::new_with_ts(Tracked::new(part, from, &position), &written).map_err(|e| lost(&e));
        let mut reader = reader_at(0)?;
        while let Some(token) = reader.advance() {
            match token.map_err(|e| lost(&e))? {
                LazyDataToken::ElementHeader(_) => {}
                LazyDataToken::SequenceStart { tag, len } => {
                    let (at, length) = (position.get(), len.get().unwrap_or(UNDEFINED));
                    let inside = encoding.inside(part, at, length);
                    let most = SEQUENCES.iter().find(|(kept, _)| is_top && *kept == tag).map_or(0, |(_, most)| *most);
                    let found = Sequence::read(part, at, length, inside, most).map_err(|broken| self.broken(&broken, tag))?;
                    for (item, range) in found.items.into_iter().enumerate() {
                        self.elements(&part[range], inside, Place::new(tag, item), false)?;
                    }
                    reader = reader_at(found.end)?;
                }
                LazyDataToken::PixelSequenceStart => {
                    let found = match sequence::fragments(part, position.get()) {
                        Err(_) if may_be_cut && is_top => {
                            self.pixels = Some(Pixels::Cut { start: position.get(), length: 0 });
                            return Ok(());
                        }
                        found => found.map_err(|broken| self.broken(&broken, tags::PIXEL_DATA))?,
                    };
                    if is_top {
                        // The first item is the offset table.
                        let (offsets, parts) = found.split_first().map_or((&[][..], &[][..]), |(first, rest)| (*first, rest));
                        self.pixels = Some(Pixels::Fragments { offsets, parts: parts.to_vec() });
                    }
                    return Ok(());
                }
                LazyDataToken::LazyValue { header, decoder } => {
                    let (start, length) = (decoder.position(), header.len.0);
                    if is_top && header.tag == tags::PIXEL_DATA {
                        self.pixels = Some(match self.slice(part, start, length, header.tag) {
                            Ok(bytes) => Pixels::Native { bytes, swapped: encoding.big_endian && header.vr == VR::OW },
                            Err(_) if may_be_cut => Pixels::Cut { start: start as usize, length: length as usize },
                            Err(error) => return Err(error),
                        });
                        return Ok(());
                    }
                    let value = self.slice(part, start, length, header.tag)?;
                    if GROUPS.contains(&header.tag.group()) {
                        self.elements.insert((place, header.tag), Element { vr: header.vr, value });
                    }
                    if self.elements.len() > MAX_ELEMENTS {
                        return Err(self.damaged("it has too many elements"));
                    }
                    decoder.skip_bytes(length).map_err(|e| lost(&e))?;
                }
                LazyDataToken::ItemStart { .. } | LazyDataToken::LazyItemValue { .. } => {
                    return Err(self.damaged("an item begins outside a sequence"));
                }
                LazyDataToken::ItemEnd => return Err(self.damaged("an item ends without having begun")),
                LazyDataToken::SequenceEnd => return Err(self.damaged("a sequence ends without having begun")),
                // No other tokens exist yet.
                _ => return Err(self.damaged("its elements cannot be read")),
            }
        }
        Ok(())
    }

    fn broken(&self, broken: &Broken, tag: Tag) -> RadiographError {
        self.damaged(match broken {
            Broken::Unended => format!("its sequence {tag} does not end"),
            Broken::Deep => "its sequences are nested too deeply".into(),
            Broken::Fragments => "its pixels are split into too many fragments".into(),
        })
    }

    fn slice(&self, body: &'a [u8], start: u64, length: u32, tag: Tag) -> Result<&'a [u8], RadiographError> {
        let end = start.saturating_add(length.into());
        let cut = || self.damaged(format!("it ends inside element {tag}, {} bytes too early", end.saturating_sub(body.len() as u64)));
        usize::try_from(start).ok().zip(usize::try_from(end).ok()).and_then(|(a, b)| body.get(a..b)).ok_or_else(cut)
    }

    /// Whether there is an element at `place`.
    pub fn has(&self, place: Place) -> bool {
        self.elements.range((place, TOP)..).next().is_some_and(|(&(found, _), _)| found == place)
    }

    /// The bytes of an element that is not in a sequence; `None` if it is absent.
    pub fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        self.elements.get(&(TOP.into(), tag)).map(|element| element.value)
    }

    /// Values of 16 bits; `None` if the element is absent.
    pub fn words(&self, place: impl Into<Place>, tag: Tag) -> Option<Vec<u16>> {
        let element = self.elements.get(&(place.into(), tag))?;
        let word = if self.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        Some(element.value.as_chunks().0.iter().take(MAX_WORDS).map(|&pair| word(pair)).collect())
    }

    /// The first value of 16 bits.
    pub fn word(&self, tag: Tag) -> Option<u16> {
        self.words(TOP, tag)?.first().copied()
    }

    /// Whether a value is signed (SS) that is US or SS depending on the context. In implicit VR only the context decides.
    pub fn is_signed(&self, place: Place, tag: Tag, context: bool) -> bool {
        match self.elements.get(&(place, tag)) {
            Some(element) if !self.implicit => element.vr == VR::SS,
            _ => context,
        }
    }

    /// The values of a text, each as its bytes.
    fn values(&self, place: impl Into<Place>, tag: Tag) -> impl Iterator<Item = &'a [u8]> {
        let value = self.elements.get(&(place.into(), tag)).map_or(&[][..], |element| element.value);
        value.split(|&b| b == b'\\')
    }

    /// The first values of a text; see [`text`].
    pub fn texts(&self, sequence: Tag, tag: Tag) -> Vec<String> {
        self.values(sequence, tag).take(MAX_VALUES).map(text).collect()
    }

    /// All values of a text that is not in a sequence: more than any file has. See [`text`].
    pub fn all_texts(&self, tag: Tag) -> Vec<String> {
        self.values(TOP, tag).take(MAX_LISTED).map(text).collect()
    }

    /// The number of values of a text up to the last that is not empty, at most [`MAX_CHOICES`].
    pub fn count(&self, tag: Tag) -> usize {
        let values = self.values(TOP, tag).take(MAX_CHOICES);
        values.enumerate().filter(|(_, value)| !text(value).is_empty()).last().map_or(0, |(last, _)| last + 1)
    }

    /// The first value of a text; `None` if it is absent or empty. See [`text`].
    pub fn text(&self, sequence: Tag, tag: Tag) -> Option<String> {
        self.texts(sequence, tag).into_iter().next().filter(|text| !text.is_empty())
    }

    /// The first value of a decimal number; `None` if it is absent or empty. `what` is its name in messages.
    pub fn decimal(&self, tag: Tag, what: &str) -> Result<Option<f64>, RadiographError> {
        self.decimal_at(tag, 0, what)
    }

    /// The value at an index of a decimal number; as [`decimal`](Self::decimal).
    pub fn decimal_at(&self, tag: Tag, index: usize, what: &str) -> Result<Option<f64>, RadiographError> {
        let Some(text) = self.values(TOP, tag).nth(index).map(text).filter(|text| !text.is_empty()) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(self.malformed(format!("{what} is \"{text}\", which is not a number"))),
        }
    }

    pub fn damaged(&self, problem: impl Into<Problem>) -> RadiographError {
        data_damaged(self.name, problem.into())
    }

    pub fn malformed(&self, message: impl Into<String>) -> RadiographError {
        RadiographError::Header { name: self.name.into(), message: message.into() }
    }

    pub fn unsupported(&self, message: impl Into<String>) -> RadiographError {
        RadiographError::Unsupported { name: self.name.into(), message: message.into() }
    }
}

fn data_damaged(name: &str, Problem { message, source }: Problem) -> RadiographError {
    RadiographError::Damaged { name: name.into(), message, source }
}

/// A reader of a slice whose position can be read while the reader is borrowed.
struct Tracked<'a> {
    cursor: Cursor<&'a [u8]>,
    position: &'a Cell<usize>,
}

impl<'a> Tracked<'a> {
    /// Reads `bytes` from `start` on, and updates `position`.
    fn new(bytes: &'a [u8], start: usize, position: &'a Cell<usize>) -> Self {
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(start as u64);
        position.set(start);
        Self { cursor, position }
    }
}

impl Read for Tracked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.cursor.read(buffer);
        self.position.set(self.cursor.position() as usize);
        read
    }
}

impl Seek for Tracked<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let reached = self.cursor.seek(to);
        self.position.set(self.cursor.position() as usize);
        reached
    }
}

pub(super) fn explicit_little_endian() -> TransferSyntax {
    entries::EXPLICIT_VR_LITTLE_ENDIAN.erased()
}

/// A text that can be displayed: of bounded length, trimmed, without control and formatting characters.
pub(super) fn text(value: &[u8]) -> String {
    let head = value.get(..4 * MAX_TEXT).unwrap_or(value);
    let is_kept = |c: &char| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ';
    let clean: String = String::from_utf8_lossy(head).chars().filter(is_kept).take(MAX_TEXT).collect();
    clean.trim().to_owned()
}
