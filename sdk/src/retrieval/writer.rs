//! Writing a sentence database. Equal lists give equal bytes.

use super::RetrievalError;
use super::format::{FORMAT, MAX_SENTENCES, PREFIX, Part, VERSION};
use crate::anatomy::{STRUCTURE_COUNT, Structure};
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Size of a cache line in bytes. A row of the published width, 16, is one cache line.
const LINE: usize = 64;

/// The sentences of one structure.
#[derive(Clone, Debug, Default)]
pub struct SentenceList {
    /// At least one sentence; none is empty.
    pub sentences: Vec<String>,
    /// Embeddings, `[sentences, width]`, row by row, with one width for all structures. A row is finite and not zero; it is normalised
    /// when it is written.
    pub embeddings: Vec<f32>,
}

impl SentenceList {
    fn bytes(&self, part: Part, width: usize) -> Vec<u8> {
        match part {
            Part::Text => self.sentences.concat().into_bytes(),
            Part::Offsets => {
                let mut end = 0u64;
                let ends = self.sentences.iter().map(|sentence| {
                    end += sentence.len() as u64;
                    end
                });
                std::iter::once(0).chain(ends).flat_map(u64::to_le_bytes).collect()
            }
            Part::Embeddings => self.embeddings.chunks_exact(width).flat_map(normalized).flat_map(f32::to_le_bytes).collect(),
        }
    }

    fn shape(&self, part: Part, width: usize) -> Vec<usize> {
        match part {
            Part::Text => vec![self.sentences.iter().map(String::len).sum()],
            Part::Offsets => vec![self.sentences.len() + 1],
            Part::Embeddings => vec![self.sentences.len(), width],
        }
    }

    /// Size of a part in bytes.
    fn size(&self, part: Part, width: usize) -> usize {
        self.shape(part, width).iter().product::<usize>() * (part.dtype().bitsize() / 8)
    }
}

/// The header of a safetensors file, with sorted names. The library's own writer puts the metadata in a random order.
#[derive(Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// Writes a database atomically; `lists` has one list for each of the 36 structures, in index order.
///
/// # Errors
/// [`RetrievalError::Lists`] if a list is missing or invalid, [`RetrievalError::Write`] if the file cannot be written.
pub fn write(path: &Path, lists: &[SentenceList]) -> Result<(), RetrievalError> {
    let width = check(lists).map_err(|message| RetrievalError::Lists { path: path.into(), message })?;
    store(path, lists, width).map_err(|source| RetrievalError::Write { path: path.into(), source })
}

/// Checks the lists and returns the width of the embeddings.
fn check(lists: &[SentenceList]) -> Result<usize, String> {
    if lists.len() != STRUCTURE_COUNT {
        return Err(format!("there are {} lists instead of {STRUCTURE_COUNT}", lists.len()));
    }
    let width = lists.first().map_or(0, |list| list.embeddings.len() / list.sentences.len().max(1));
    for (structure, list) in Structure::all().zip(lists) {
        let count = list.sentences.len();
        if !(1..=MAX_SENTENCES).contains(&count) {
            return Err(format!("{structure} has {count} sentences, but must have between 1 and {MAX_SENTENCES}"));
        }
        if width == 0 || list.embeddings.len() != count * width {
            let found = list.embeddings.len();
            return Err(format!("{structure} has {found} values for {count} embeddings of width {width}"));
        }
        if let Some(index) = list.sentences.iter().position(String::is_empty) {
            return Err(format!("sentence {index} of {structure} is empty"));
        }
        let has_direction = |row: &[f32]| row.iter().all(|v| v.is_finite()) && row.iter().any(|&v| v != 0.0);
        if let Some(index) = list.embeddings.chunks_exact(width).position(|row| !has_direction(row)) {
            return Err(format!("embedding {index} of {structure} is zero or not finite"));
        }
    }
    Ok(width)
}

fn store(path: &Path, lists: &[SentenceList], width: usize) -> io::Result<()> {
    let tensors = || Part::ALL.into_iter().flat_map(|part| Structure::all().zip(lists).map(move |(s, list)| (part, s, list)));
    let mut end = 0;
    let infos = tensors().map(|(part, structure, list)| {
        let begin = end;
        end += list.size(part, width);
        (part.name(structure), TensorInfo { dtype: part.dtype(), shape: list.shape(part, width), data_offsets: (begin, end) })
    });
    let tensor_infos = infos.collect();
    let metadata = BTreeMap::from([("format", FORMAT.into()), ("version", VERSION.to_string())]);
    let mut header = serde_json::to_vec(&Header { metadata, tensors: tensor_infos })?;
    // The offsets come first. The header is padded so that the embeddings start at a cache line, where reading them is fastest.
    let embeddings = PREFIX + lists.iter().map(|list| list.size(Part::Offsets, width)).sum::<usize>();
    header.resize((header.len() + embeddings).next_multiple_of(LINE) - embeddings, b' ');

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = io::BufWriter::new(NamedTempFile::new_in(folder)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (part, _, list) in tensors() {
        file.write_all(&list.bytes(part, width))?;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    // Temporary files are readable by their owner only; a bundle is readable by everyone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn normalized(row: &[f32]) -> Vec<f32> {
    let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    row.iter().map(|&v| (f64::from(v) / norm) as f32).collect()
}
