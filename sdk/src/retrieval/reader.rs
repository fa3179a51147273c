//! Opening and searching a sentence database.

use super::RetrievalError;
use super::format::{self, Problem, Table};
use crate::anatomy::Structure;
use crate::files;
use crate::parallel;
use memmap2::Mmap;
use pulp::{Arch, Simd, WithSimd};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Number of sentences in a database from which [`SentenceDatabase::search_all`] uses several threads. Waking a thread takes as long as
/// searching 100,000 sentences.
const PARALLEL_FROM: usize = 300_000;

/// An open sentence database. The file is memory-mapped: processes share its memory, and only the parts that are used are read.
///
/// Opening checks the header and two offsets for each structure. Other damage is reported where it is met: a sentence that is not
/// valid UTF-8, an embedding that is not finite, or a hit whose embedding does not have norm 1. Damage that a search does not meet,
/// such as an embedding with a norm too small to be found, is reported only by [`SentenceDatabase::verify`].
///
/// ```no_run
/// # fn main() -> Result<(), anatomix::error::RetrievalError> {
/// use anatomix::Structure;
/// use anatomix::parts::retrieval::SentenceDatabase;
/// let database = SentenceDatabase::open("bundle/sentences.safetensors".as_ref(), 16)?;
/// for hit in database.search(Structure::LEFT_LUNG, &[0.25; 16], 3)? {
///     println!("{:.2} {}", hit.similarity, database.sentence(Structure::LEFT_LUNG, hit.index)?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SentenceDatabase {
    path: PathBuf,
    bytes: Mmap,
    tables: Vec<Table>,
    width: usize,
}

/// A search result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Index of the sentence among those of its structure.
    pub index: usize,
    /// Cosine similarity of its embedding and the query, -1..1.
    pub similarity: f32,
}

impl SentenceDatabase {
    /// Maps a database and checks its header; the rest of the file is not read, whatever its size. `embedding_width` is the width of
    /// the perception module's object embeddings.
    ///
    /// (An engine hashes a database of at most 1 MiB before, and so reads it; see [`crate::bundle::Bundle::open`].)
    ///
    /// The file must not be modified or truncated while it is open. It can be replaced by renaming another file over it, as
    /// [`super::write`] does.
    ///
    /// # Errors
    /// [`RetrievalError`], which names the file and the tensor.
    pub fn open(path: &Path, embedding_width: usize) -> Result<Self, RetrievalError> {
        let failed = |source| RetrievalError::Read { path: path.into(), source };
        let file = files::open(path).map_err(failed)?;
        let bytes = map(&file).map_err(failed)?;
        let tables = format::tables(&bytes, embedding_width).map_err(|problem| problem.at(path, embedding_width))?;
        Ok(Self { path: path.into(), bytes, tables, width: embedding_width })
    }

    /// Checks all offsets, texts (UTF-8) and embeddings (norm 1). This reads the whole file.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`], which names the tensor.
    pub fn verify(&self) -> Result<(), RetrievalError> {
        self.with_path(format::verify(&self.bytes, &self.tables, self.width))
    }

    /// Number of sentences of a structure, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self, structure: Structure) -> usize {
        self.table(structure).map_or(0, |table| table.count)
    }

    /// A sentence of a structure; empty if `index` is not below [`SentenceDatabase::len`].
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if its offsets are not a range of the text, or it is not valid UTF-8.
    pub fn sentence(&self, structure: Structure, index: usize) -> Result<&str, RetrievalError> {
        let Some(table) = self.table(structure) else { return Ok("") };
        self.with_path(format::sentence(&self.bytes, table, structure, index))
    }

    /// Returns the `k` sentences (or all, if there are fewer) most similar to `query`, the most similar first and equally similar ones
    /// by index. The search is exact. `query` is normalised first; if it is zero or not finite, all similarities are 0. If its width
    /// differs from the database's, nothing is found.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if an embedding of the structure is not finite, or a hit's embedding does not have norm 1.
    pub fn search(&self, structure: Structure, query: &[f32], k: usize) -> Result<Vec<Hit>, RetrievalError> {
        let Some(table) = self.table(structure).filter(|_| query.len() == self.width && k > 0) else { return Ok(Vec::new()) };
        let query = normalized(query);
        let rows = format::rows(&self.bytes, table);
        let check = |index: usize| {
            let row = rows.chunks_exact(self.width.max(1)).nth(index).unwrap_or_default();
            self.with_path(format::check_row(row, structure, index))
        };
        // `dispatch` chooses the vector instructions at run time.
        let found = Arch::new().dispatch(Nearest { rows: &rows, query: &query, k: k.min(table.count) });
        let hits = found.or_else(|index| check(index).map(|()| Vec::new()))?;
        hits.iter().try_for_each(|hit| check(hit.index))?;
        Ok(hits)
    }

    /// Calls [`SentenceDatabase::search`] for each structure with its row of `queries`, `[36, width]`. Returns the hits by structure.
    ///
    /// # Errors
    /// As [`SentenceDatabase::search`].
    pub fn search_all(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Hit>>, RetrievalError> {
        let search = |structure: Structure| {
            let from = structure.index() * self.width;
            self.search(structure, queries.get(from..from + self.width).unwrap_or_default(), k)
        };
        if self.tables.iter().map(|table| table.count).sum::<usize>() < PARALLEL_FROM {
            return Structure::all().map(search).collect();
        }
        parallel::map(Structure::all(), search).into_iter().collect()
    }

    fn with_path<T>(&self, result: Result<T, Problem>) -> Result<T, RetrievalError> {
        result.map_err(|problem| problem.at(&self.path, self.width))
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
    // SAFETY: the mapping is read-only and private to this module, which reads it as bytes and checks every access against the length
    // at the time of mapping. A file that is modified or truncated in place while it is mapped would still be unsound: the
    // documentation of `open` forbids that, and `write` replaces a file by renaming.
    unsafe { Mmap::map(file) }
}

/// The query scaled to norm 1; zero if it is zero or not finite. The norm is computed in f64, so that no finite query overflows.
fn normalized(query: &[f32]) -> Vec<f32> {
    let norm = query.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let direction = norm.is_finite() && norm > 0.0;
    query.iter().map(|&v| if direction { (f64::from(v) / norm) as f32 } else { 0.0 }).collect()
}

/// Finds the `k` rows with the largest dot product; the error is the index of the first row whose product is not finite.
struct Nearest<'a> {
    rows: &'a [f32],
    query: &'a [f32],
    k: usize,
}

impl WithSimd for Nearest<'_> {
    type Output = Result<Vec<Hit>, usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { rows, query, k } = self;
        let parts = S::as_simd_f32s(query);
        // The published width, 16, fills two registers of 256 bits.
        if let ([first, second], [], 8) = (parts.0, parts.1, S::F32_LANES) {
            let (blocks, _) = S::as_simd_f32s(rows);
            let (groups, rest) = blocks.as_chunks::<2>().0.as_chunks::<4>();
            let mut best = Best::new(k);
            for group in groups {
                best.push(dot_four(simd, group, *first, *second))?;
            }
            let mut last = [[simd.splat_f32s(0.0); 2]; 4];
            last[..rest.len()].copy_from_slice(rest);
            for similarity in &dot_four(simd, &last, *first, *second)[..rest.len()] {
                best.push([*similarity])?;
            }
            return Ok(best.into_hits());
        }
        let products = rows.chunks_exact(query.len().max(1)).map(
            #[inline(always)]
            |row| dot(simd, row, parts),
        );
        let mut best = Best::new(k);
        for product in products {
            best.push([product])?;
        }
        Ok(best.into_hits())
    }
}

/// Dot products of four rows with a query, each of which fills two registers of eight lanes. This takes less than half the time of four
/// separate dot products.
#[inline(always)]
fn dot_four<S: Simd>(simd: S, rows: &[[S::f32s; 2]; 4], first: S::f32s, second: S::f32s) -> [f32; 4] {
    let mut products = [simd.splat_f32s(0.0); 4];
    for (product, row) in products.iter_mut().zip(rows) {
        *product = simd.mul_add_f32s(row[1], second, simd.mul_f32s(row[0], first));
    }
    // Transposed within each group of four lanes: register `i` holds lane `i` of each row's first half, then of its second half.
    let [a, b, c, d] = simd.deinterleave_shfl_f32s(products);
    let halves = simd.add_f32s(simd.add_f32s(a, c), simd.add_f32s(b, d));
    let halves: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&halves));
    let mut sums = [0.0; 4];
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum = halves[row] + halves[row + halves.len() / 2];
    }
    sums
}

/// The `k` largest similarities of the rows so far.
struct Best {
    hits: BinaryHeap<Reverse<Hit>>,
    k: usize,
    /// The smallest similarity among `k` hits. A later row must exceed it, so of equal rows the first stays.
    threshold: f32,
    /// Number of rows so far.
    rows: usize,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { hits: BinaryHeap::with_capacity(k + 1), k, threshold: f32::NEG_INFINITY, rows: 0 }
    }

    /// Adds the similarities of the next `N` rows; the error is the index of a row whose similarity is not finite.
    #[inline(always)]
    fn push<const N: usize>(&mut self, similarities: [f32; N]) -> Result<(), usize> {
        // This is the usual case. A NaN fails the comparison and goes to `insert`.
        let mut none_better = self.hits.len() == self.k;
        for similarity in similarities {
            none_better &= similarity <= self.threshold;
        }
        if !none_better {
            self.insert(&similarities)?;
        }
        self.rows += N;
        Ok(())
    }

    #[cold]
    fn insert(&mut self, similarities: &[f32]) -> Result<(), usize> {
        for (index, &similarity) in (self.rows..).zip(similarities) {
            if self.hits.len() == self.k && similarity <= self.threshold {
                continue;
            }
            if !similarity.is_finite() {
                return Err(index);
            }
            // Adding 0 turns -0 into 0, so that the two tie.
            self.hits.push(Reverse(Hit { index, similarity: similarity + 0.0 }));
            if self.hits.len() > self.k {
                self.hits.pop();
            }
            if self.hits.len() == self.k {
                self.threshold = self.hits.peek().map_or(self.threshold, |worst| worst.0.similarity);
            }
        }
        Ok(())
    }

    fn into_hits(self) -> Vec<Hit> {
        self.hits.into_sorted_vec().into_iter().map(|Reverse(hit)| hit).collect()
    }
}

/// Dot product of a row and a query, which is given as full registers and the remaining values.
#[inline(always)]
fn dot<S: Simd>(simd: S, row: &[f32], (query, query_rest): (&[S::f32s], &[f32])) -> f32 {
    let (blocks, rest) = S::as_simd_f32s(row);
    let mut sums = simd.splat_f32s(0.0);
    for (&block, &query) in blocks.iter().zip(query) {
        sums = simd.mul_add_f32s(block, query, sums);
    }
    let tail: f32 = rest.iter().zip(query_rest).map(|(v, q)| v * q).sum();
    simd.reduce_sum_f32s(sums) + tail
}
