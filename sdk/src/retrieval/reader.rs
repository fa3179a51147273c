//! Opening and searching.

use super::RetrievalError;
use super::format::{self, Table};
use crate::anatomy::Structure;
use memmap2::Mmap;
use pulp::Arch;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Sums that run side by side in a dot product, so that the compiler can keep them in one register of 512 bits.
const LANES: usize = 16;
/// Sentences of a database from which on a search of all structures is worth several threads.
const MANY: usize = 20_000;

/// An opened sentence database. It is mapped, so processes share its memory.
///
/// ```no_run
/// # fn main() -> Result<(), anatomix::retrieval::RetrievalError> {
/// use anatomix::anatomy::Structure;
/// use anatomix::retrieval::SentenceDatabase;
/// let database = SentenceDatabase::open("bundle/sentences.safetensors".as_ref(), 16)?;
/// for hit in database.search(Structure::LEFT_LUNG, &[0.25; 16], 3) {
///     println!("{:.2} {}", hit.similarity, database.sentence(Structure::LEFT_LUNG, hit.index));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SentenceDatabase {
    bytes: Mmap,
    tables: Vec<Table>,
    width: usize,
}

/// A sentence that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which sentence of the structure.
    pub index: usize,
    /// Cosine of the angle between its embedding and the query, -1..1.
    pub similarity: f32,
}

impl SentenceDatabase {
    /// Maps a database and checks all of it; `embedding_width` is what the perception module gives.
    ///
    /// The file must not be changed while it is open. (Replace it by renaming another over it, as [`super::write`] does.)
    ///
    /// # Errors
    /// [`RetrievalError`], naming the file and the tensor at fault.
    pub fn open(path: &Path, embedding_width: usize) -> Result<Self, RetrievalError> {
        let failed = |source| RetrievalError::Read { path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "it is not a file")));
        }
        let bytes = map(&file).map_err(failed)?;
        let tables = format::tables(&bytes, embedding_width).map_err(|problem| problem.at(path, embedding_width))?;
        Ok(Self { bytes, tables, width: embedding_width })
    }

    /// How many sentences a structure has, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self, structure: Structure) -> usize {
        self.table(structure).map_or(0, |table| table.count)
    }

    /// A sentence of a structure; empty for an index from [`SentenceDatabase::len`] on.
    pub fn sentence(&self, structure: Structure, index: usize) -> &str {
        self.table(structure).map_or("", |table| format::sentence(&self.bytes, table, index))
    }

    /// The `k` sentences (or all, where there are fewer) that are most similar to a query of the database's width, best
    /// first; of equally similar ones the one with the lower index comes first. The search is exact. The query may have
    /// any length; one that has no direction (zero or not finite) is equally dissimilar to all, one of another width
    /// finds nothing.
    pub fn search(&self, structure: Structure, query: &[f32], k: usize) -> Vec<Hit> {
        let Some(table) = self.table(structure).filter(|_| query.len() == self.width) else { return Vec::new() };
        let query = normalized(query);
        let rows = format::rows(&self.bytes, table, self.width);
        // With whatever vector instructions the machine has.
        Arch::new().dispatch(
            #[inline(always)]
            || nearest(rows, &query, k.min(table.count)),
        )
    }

    /// [`SentenceDatabase::search`] of every structure in its own list, by `queries` `[36, width]`, in order of the structures.
    pub fn search_all(&self, queries: &[f32], k: usize) -> Vec<Vec<Hit>> {
        let search = |structure: Structure| {
            let from = structure.index() * self.width;
            self.search(structure, queries.get(from..from + self.width).unwrap_or_default(), k)
        };
        if self.tables.iter().map(|table| table.count).sum::<usize>() < MANY {
            return Structure::all().map(search).collect();
        }
        Structure::all().collect::<Vec<_>>().into_par_iter().map(search).collect()
    }

    fn table(&self, structure: Structure) -> Option<&Table> {
        self.tables.get(structure.index())
    }
}

impl Eq for Hit {}

impl Ord for Hit {
    /// The better hit is the greater one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.similarity.total_cmp(&other.similarity).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only and private to this module, which reads it as bytes and bounds every access by
    // the length at this moment. What remains is a file that is changed or shortened in place while it is open; the
    // documentation of `open` forbids it, and `write` replaces a file by renaming.
    unsafe { Mmap::map(file) }
}

/// With length 1; zero where the query has no direction. In f64, so that no finite query overflows.
fn normalized(query: &[f32]) -> Vec<f32> {
    let norm = query.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let direction = norm.is_finite() && norm > 0.0;
    query.iter().map(|&v| if direction { (f64::from(v) / norm) as f32 } else { 0.0 }).collect()
}

/// The `k` best rows.
#[inline(always)]
fn nearest<'a>(rows: impl Iterator<Item = &'a [u8]>, query: &[f32], k: usize) -> Vec<Hit> {
    let mut best: BinaryHeap<Reverse<Hit>> = BinaryHeap::with_capacity(k + 1);
    let mut least = f32::NEG_INFINITY;
    for (index, row) in rows.enumerate() {
        let similarity = dot(row, query);
        // Of equals the first stays.
        if best.len() == k && similarity <= least {
            continue;
        }
        best.push(Reverse(Hit { index, similarity }));
        if best.len() > k {
            best.pop();
        }
        if best.len() == k {
            least = best.peek().map_or(least, |worst| worst.0.similarity);
        }
    }
    best.into_sorted_vec().into_iter().map(|Reverse(hit)| hit).collect()
}

/// Of a row in little-endian bytes, which need not be aligned.
#[inline(always)]
fn dot(row: &[u8], query: &[f32]) -> f32 {
    let (values, _) = row.as_chunks::<4>();
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (block, query) in blocks.iter().zip(query_blocks) {
        for lane in 0..LANES {
            sums[lane] += f32::from_le_bytes(block[lane]) * query[lane];
        }
    }
    let tail: f32 = rest.iter().zip(query_rest).map(|(v, q)| f32::from_le_bytes(*v) * q).sum();
    // Adding 0 turns -0 into 0, which would otherwise not tie with it.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0] + tail + 0.0
}
