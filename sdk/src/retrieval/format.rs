//! Layout of a sentence database, and its checks. [`tables`] checks what takes the same time for a file of any size. Everything else
//! is checked where it is used, and all at once by [`verify`].

use super::RetrievalError;
use crate::anatomy::Structure;
use crate::cause;
use pulp::bytemuck;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

/// Value of the metadata entry `format`.
pub(super) const FORMAT: &str = "anatomix-sentences";
/// The version that this SDK writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;
/// Size in bytes of the field that holds the header's length.
pub(super) const PREFIX: usize = 8;
/// Largest accepted header in bytes; real headers have about 10 kB.
const MAX_HEADER: usize = 1 << 20;
/// Largest number of sentences of one structure.
pub(super) const MAX_SENTENCES: usize = 1 << 24;
/// Largest accepted difference between the norm of an embedding and 1. Rounding to fp16 stays well within it.
const NORM_TOLERANCE: f64 = 1e-3;

/// The three tensors of a structure, named by their suffix after the structure's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Offsets,
    Embeddings,
    Text,
}

impl Part {
    /// All parts in file order: widest type first, so that every tensor is aligned to its type.
    pub(super) const ALL: [Self; 3] = [Self::Offsets, Self::Embeddings, Self::Text];

    pub(super) fn name(self, structure: Structure) -> String {
        let part = match self {
            Self::Offsets => "offsets",
            Self::Embeddings => "embeddings",
            Self::Text => "text",
        };
        format!("{:02}.{part}", structure.index())
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Offsets => Dtype::U64,
            Self::Embeddings => Dtype::F32,
            Self::Text => Dtype::U8,
        }
    }
}

/// Byte ranges of one structure's tensors in the file.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Number of sentences.
    pub count: usize,
    pub embeddings: Range<usize>,
    pub text: Range<usize>,
    pub offsets: Range<usize>,
}

/// Why a file is refused, without its path; [`Problem::at`] adds the path.
#[derive(Debug)]
pub(super) enum Problem {
    Damaged(cause::Problem),
    Newer(u32),
    Width(usize),
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Damaged(message.into())
    }
}

impl From<cause::Problem> for Problem {
    fn from(problem: cause::Problem) -> Self {
        Self::Damaged(problem)
    }
}

impl Problem {
    pub(super) fn at(self, path: &Path, expected: usize) -> RetrievalError {
        let path = path.into();
        match self {
            Self::Damaged(cause::Problem { message, source }) => RetrievalError::Damaged { path, message, source },
            Self::Newer(found) => RetrievalError::NewerVersion { path, found, known: VERSION },
            Self::Width(found) => RetrievalError::Width { path, found, expected },
        }
    }
}

/// Reads the header and returns the table of each structure. Of the data, only the first and last offset of each structure are read.
pub(super) fn tables(bytes: &[u8], width: usize) -> Result<Vec<Table>, Problem> {
    let (start, header) = header(bytes)?;
    check_version(&header)?;
    Structure::all().map(|structure| table(bytes, start, &header, structure, width)).collect()
}

/// Returns the position of the first data byte, and the parsed header.
fn header(bytes: &[u8]) -> Result<(usize, Metadata), Problem> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(format!("it has only {} bytes", bytes.len()).into());
    };
    let length = usize::try_from(u64::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > MAX_HEADER {
        return Err("it does not begin with the header of a safetensors file".to_string().into());
    }
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(format!("it ends after {} bytes, within its header", bytes.len()).into());
    };
    let header: Metadata = serde_json::from_slice(header).map_err(|e| cause::Problem::caused("its header cannot be read", e))?;
    if header.data_len() != data.len() {
        let (found, expected) = (data.len(), header.data_len());
        return Err(format!("it holds {found} bytes of data, but its header describes {expected}").into());
    }
    Ok((PREFIX + length, header))
}

fn check_version(header: &Metadata) -> Result<(), Problem> {
    let value = |key| header.metadata().as_ref().and_then(|m| m.get(key)).map(String::as_str);
    if value("format") != Some(FORMAT) {
        return Err(format!("its metadata does not name the format {FORMAT}").into());
    }
    match value("version").and_then(|v| v.parse().ok()) {
        Some(VERSION) => Ok(()),
        Some(newer) if newer > VERSION => Err(Problem::Newer(newer)),
        _ => Err("its metadata does not have a supported version".to_string().into()),
    }
}

fn table(bytes: &[u8], start: usize, header: &Metadata, structure: Structure, width: usize) -> Result<Table, Problem> {
    let find = |part: Part| -> Result<(&TensorInfo, Range<usize>), Problem> {
        let name = part.name(structure);
        let info = header.info(&name).ok_or_else(|| format!("the tensor {name} is missing"))?;
        if info.dtype != part.dtype() {
            return Err(format!("the tensor {name} has the type {:?} instead of {:?}", info.dtype, part.dtype()).into());
        }
        // The data's length was compared with the header, so these sums cannot overflow for a valid header.
        let range = start.saturating_add(info.data_offsets.0)..start.saturating_add(info.data_offsets.1);
        if bytes.get(range.clone()).is_none() {
            return Err(format!("the tensor {name} lies outside of the file").into());
        }
        Ok((info, range))
    };
    let shape_error = |part: Part, shape: &[usize]| format!("the tensor {} has the shape {shape:?}", part.name(structure));
    let (info, embeddings) = find(Part::Embeddings)?;
    let [count, found] = info.shape[..] else { return Err(shape_error(Part::Embeddings, &info.shape).into()) };
    if !(1..=MAX_SENTENCES).contains(&count) {
        return Err(format!("{structure} has {count} sentences, but must have between 1 and {MAX_SENTENCES}").into());
    }
    if found != width {
        return Err(Problem::Width(found));
    }
    let (info, offsets) = find(Part::Offsets)?;
    if info.shape != [count + 1] {
        return Err(format!("{}, but there are {count} sentences", shape_error(Part::Offsets, &info.shape)).into());
    }
    let (info, text) = find(Part::Text)?;
    if info.shape.len() != 1 {
        return Err(shape_error(Part::Text, &info.shape).into());
    }
    let table = Table { count, embeddings, text, offsets };
    check_ends(bytes, &table, structure)?;
    Ok(table)
}

fn check_ends(bytes: &[u8], table: &Table, structure: Structure) -> Result<(), Problem> {
    let end = table.text.len();
    for (index, expected, problem) in [(0, 0, "the first is not 0"), (table.count, end, "the last is not the end of the text")] {
        let found = offset(bytes, table, index);
        if found != Some(expected) {
            let (name, found) = (Part::Offsets.name(structure), found.unwrap_or(usize::MAX));
            return Err(format!("number {index} of {name} is {found}: {problem}").into());
        }
    }
    Ok(())
}

/// Checks everything that [`tables`] does not check.
pub(super) fn verify(bytes: &[u8], tables: &[Table], width: usize) -> Result<(), Problem> {
    for (structure, table) in Structure::all().zip(tables) {
        check_text(bytes, table, structure)?;
        for (index, row) in rows(bytes, table).chunks_exact(width.max(1)).enumerate() {
            check_row(row, structure, index)?;
        }
    }
    Ok(())
}

fn check_text(bytes: &[u8], table: &Table, structure: Structure) -> Result<(), Problem> {
    let name = |part: Part| part.name(structure);
    let text = std::str::from_utf8(bytes.get(table.text.clone()).unwrap_or_default())
        .map_err(|e| cause::Problem::caused(format_args!("the tensor {} is not valid UTF-8", name(Part::Text)), e))?;
    let mut previous = None;
    for (index, offset) in offsets(bytes, table).enumerate() {
        let problem = match previous {
            Some(before) if offset <= before => "a sentence is empty or ends before it begins",
            _ if offset > text.len() => "it lies beyond the end of the text",
            _ if !text.is_char_boundary(offset) => "it lies within a character",
            _ => {
                previous = Some(offset);
                continue;
            }
        };
        return Err(format!("number {index} of {} is {offset}: {problem}", name(Part::Offsets)).into());
    }
    Ok(())
}

/// Checks that an embedding is a unit vector.
pub(super) fn check_row(row: &[f32], structure: Structure, index: usize) -> Result<(), Problem> {
    let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    if norm.is_nan() || (norm - 1.0).abs() > NORM_TOLERANCE {
        let name = Part::Embeddings.name(structure);
        return Err(format!("row {index} of {name} has the norm {norm} instead of 1").into());
    }
    Ok(())
}

fn offsets(bytes: &[u8], table: &Table) -> impl Iterator<Item = usize> {
    let (values, _) = bytes.get(table.offsets.clone()).unwrap_or_default().as_chunks::<8>();
    values.iter().map(|v| usize::try_from(u64::from_le_bytes(*v)).unwrap_or(usize::MAX))
}

fn offset(bytes: &[u8], table: &Table, index: usize) -> Option<usize> {
    let (values, _) = bytes.get(table.offsets.clone())?.as_chunks::<8>();
    values.get(index).map(|v| usize::try_from(u64::from_le_bytes(*v)).unwrap_or(usize::MAX))
}

/// The embeddings of a table, `[count, width]`, row by row. They are borrowed from the file, or copied if they are not aligned to 4
/// bytes or the machine is big-endian. [`super::write`] aligns them.
pub(super) fn rows<'a>(bytes: &'a [u8], table: &Table) -> Cow<'a, [f32]> {
    let bytes = bytes.get(table.embeddings.clone()).unwrap_or_default();
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
        _ => Cow::Owned(bytes.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()),
    }
}

/// The sentence with this index; empty if `index >= table.count`.
pub(super) fn sentence<'a>(bytes: &'a [u8], table: &Table, structure: Structure, index: usize) -> Result<&'a str, Problem> {
    if index >= table.count {
        return Ok("");
    }
    let [from, to] = [index, index + 1].map(|i| offset(bytes, table, i).unwrap_or(usize::MAX));
    let text = bytes.get(table.text.clone()).and_then(|text| text.get(from..to)).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| {
        let name = Part::Offsets.name(structure);
        format!("{name} places sentence {index} at bytes {from} to {to}, which is not a range of the text")
    })?;
    std::str::from_utf8(text).map_err(|e| {
        let name = Part::Text.name(structure);
        cause::Problem::caused(format_args!("sentence {index} in the tensor {name} is not valid UTF-8"), e).into()
    })
}
