//! Opening and searching.

use super::RetrievalError;
use super::format::{self, Problem, Table};
use crate::anatomy::Structure;
use memmap2::Mmap;
use pulp::{Arch, Simd, WithSimd};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Sentences of a database from which on a search of all structures is worth several threads: waking one takes as long as
/// searching a hundred thousand.
const MANY: usize = 300_000;

/// An opened sentence database. It is mapped, so processes share its memory, and only what is used of it is read.
///
/// Opening looks at its header, and for each structure at two numbers. Whatever else may be damaged is an error where it is
/// used: a sentence that is not valid UTF-8, an embedding that is not finite, or one that is found and does not have the length 1.
/// What a search has no reason to look at (an embedding that is too short to be found, say) is seen by
/// [`SentenceDatabase::verify`] alone.
///
/// ```no_run
/// # fn main() -> Result<(), anatomix::retrieval::RetrievalError> {
/// use anatomix::anatomy::Structure;
/// use anatomix::retrieval::SentenceDatabase;
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

/// A sentence that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which sentence of the structure.
    pub index: usize,
    /// Cosine of the angle between its embedding and the query, -1..1.
    pub similarity: f32,
}

impl SentenceDatabase {
    /// Maps a database and checks its header, however large it is; `embedding_width` is what the perception module gives.
    ///
    /// An engine has read a file of up to 1 MiB once before, for its hash ([`crate::bundle::Bundle::open`]). Of a larger one nothing
    /// else is read.
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
        Ok(Self { path: path.into(), bytes, tables, width: embedding_width })
    }

    /// Checks everything in it: offsets, UTF-8, lengths of embeddings. This reads the whole file.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`], naming the tensor at fault.
    pub fn verify(&self) -> Result<(), RetrievalError> {
        self.named(format::verify(&self.bytes, &self.tables, self.width))
    }

    /// How many sentences a structure has, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self, structure: Structure) -> usize {
        self.table(structure).map_or(0, |table| table.count)
    }

    /// A sentence of a structure; empty for an index from [`SentenceDatabase::len`] on.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if its offsets are not in order or within the text, or it is not valid UTF-8.
    pub fn sentence(&self, structure: Structure, index: usize) -> Result<&str, RetrievalError> {
        let Some(table) = self.table(structure) else { return Ok("") };
        self.named(format::sentence(&self.bytes, table, structure, index))
    }

    /// The `k` sentences (or all, where there are fewer) that are most similar to a query of the database's width, best
    /// first; of equally similar ones the one with the lower index comes first. The search is exact. The query may have
    /// any length; one that has no direction (zero or not finite) is equally dissimilar to all, one of another width
    /// finds nothing.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if an embedding of the structure is not finite, or one that was found has not the length 1.
    pub fn search(&self, structure: Structure, query: &[f32], k: usize) -> Result<Vec<Hit>, RetrievalError> {
        let Some(table) = self.table(structure).filter(|_| query.len() == self.width && k > 0) else { return Ok(Vec::new()) };
        let query = normalized(query);
        let rows = format::rows(&self.bytes, table);
        let check = |index: usize| {
            let row = rows.chunks_exact(self.width.max(1)).nth(index).unwrap_or_default();
            self.named(format::check_row(row, structure, index))
        };
        // With whatever vector instructions the machine has.
        let found = Arch::new().dispatch(Nearest { rows: &rows, query: &query, k: k.min(table.count) });
        let hits = found.or_else(|index| check(index).map(|()| Vec::new()))?;
        hits.iter().try_for_each(|hit| check(hit.index))?;
        Ok(hits)
    }

    /// [`SentenceDatabase::search`] of every structure in its own list, by `queries` `[36, width]`, in order of the structures.
    ///
    /// # Errors
    /// As [`SentenceDatabase::search`].
    pub fn search_all(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Hit>>, RetrievalError> {
        let search = |structure: Structure| {
            let from = structure.index() * self.width;
            self.search(structure, queries.get(from..from + self.width).unwrap_or_default(), k)
        };
        if self.tables.iter().map(|table| table.count).sum::<usize>() < MANY {
            return Structure::all().map(search).collect();
        }
        Structure::all().collect::<Vec<_>>().into_par_iter().map(search).collect()
    }

    fn named<T>(&self, outcome: Result<T, Problem>) -> Result<T, RetrievalError> {
        outcome.map_err(|problem| problem.at(&self.path, self.width))
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

/// Finds the `k` best rows, or the first that is not finite.
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
        // The published width fills two registers of 256 bits.
        if let ([first, second], [], 8) = (parts.0, parts.1, S::F32_LANES) {
            let (blocks, _) = S::as_simd_f32s(rows);
            let (fours, rest) = blocks.as_chunks::<2>().0.as_chunks::<4>();
            let mut best = Best::new(k);
            for four in fours {
                best.take(sums(simd, four, *first, *second))?;
            }
            let mut last = [[simd.splat_f32s(0.0); 2]; 4];
            last[..rest.len()].copy_from_slice(rest);
            for similarity in &sums(simd, &last, *first, *second)[..rest.len()] {
                best.take([*similarity])?;
            }
            return Ok(best.into_hits());
        }
        let products = rows.chunks_exact(query.len().max(1)).map(
            #[inline(always)]
            |row| dot(simd, row, parts),
        );
        let mut best = Best::new(k);
        for product in products {
            best.take([product])?;
        }
        Ok(best.into_hits())
    }
}

/// The products of four rows, of two registers of eight lanes each, with a query: together they take less than half of what each
/// takes by itself.
#[inline(always)]
fn sums<S: Simd>(simd: S, rows: &[[S::f32s; 2]; 4], first: S::f32s, second: S::f32s) -> [f32; 4] {
    let mut products = [simd.splat_f32s(0.0); 4];
    for (product, row) in products.iter_mut().zip(rows) {
        *product = simd.mul_add_f32s(row[1], second, simd.mul_f32s(row[0], first));
    }
    // The first, second, third and fourth of each four lanes: all rows' first halves, then their second.
    let [a, b, c, d] = simd.deinterleave_shfl_f32s(products);
    let halves = simd.add_f32s(simd.add_f32s(a, c), simd.add_f32s(b, d));
    let halves: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&halves));
    let mut sums = [0.0; 4];
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum = halves[row] + halves[row + halves.len() / 2];
    }
    sums
}

/// The `k` greatest similarities so far.
struct Best {
    hits: BinaryHeap<Reverse<Hit>>,
    k: usize,
    /// From which on a similarity is not among them: of equals the first stays.
    least: f32,
    seen: usize,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { hits: BinaryHeap::with_capacity(k + 1), k, least: f32::NEG_INFINITY, seen: 0 }
    }

    /// Takes the next rows' similarities; the error is the index of one that is not finite.
    #[inline(always)]
    fn take<const N: usize>(&mut self, similarities: [f32; N]) -> Result<(), usize> {
        // Nearly always none is better. NaN is not less than anything.
        let mut behind = self.hits.len() == self.k;
        for similarity in similarities {
            behind &= similarity <= self.least;
        }
        if !behind {
            self.look(&similarities)?;
        }
        self.seen += N;
        Ok(())
    }

    #[cold]
    fn look(&mut self, similarities: &[f32]) -> Result<(), usize> {
        for (index, &similarity) in (self.seen..).zip(similarities) {
            if self.hits.len() == self.k && similarity <= self.least {
                continue;
            }
            if !similarity.is_finite() {
                return Err(index);
            }
            // Adding 0 turns -0 into 0, which would otherwise not tie with it.
            self.hits.push(Reverse(Hit { index, similarity: similarity + 0.0 }));
            if self.hits.len() > self.k {
                self.hits.pop();
            }
            if self.hits.len() == self.k {
                self.least = self.hits.peek().map_or(self.least, |worst| worst.0.similarity);
            }
        }
        Ok(())
    }

    fn into_hits(self) -> Vec<Hit> {
        self.hits.into_sorted_vec().into_iter().map(|Reverse(hit)| hit).collect()
    }
}

/// Of a row and a query that is in registers already, as far as it fills them.
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
