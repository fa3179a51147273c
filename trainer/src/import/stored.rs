//! A tensor that stays where it is until it is copied, a few megabytes at a time.

use half::{bf16, f16};
use safetensors::Dtype;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that are read at once; a multiple of every value's size.
const BLOCK: u64 = 8 << 20;

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its name there, for messages.
    pub source: String,
    /// Type of its values.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Values in a row from this offset on.
    File(Arc<File>, u64),
    Pickle(pytorch_reader::Tensor),
    /// Another tensor with these rows behind it.
    Grown(Box<Stored>, Vec<u8>),
    /// Zeros, which are made when they are asked for.
    Zeros,
}

impl Stored {
    /// A tensor whose values stand in a file; that they are all there was checked.
    pub fn in_file(source: String, dtype: Dtype, shape: Vec<usize>, file: Arc<File>, at: u64) -> Self {
        Self { source, dtype, shape, place: Place::File(file, at) }
    }

    /// A tensor of a pickle.
    pub fn in_pickle(source: String, dtype: Dtype, tensor: pytorch_reader::Tensor) -> Self {
        Self { source, dtype, shape: tensor.shape().to_vec(), place: Place::Pickle(tensor) }
    }

    /// Zeros in fp32.
    pub fn zeros(source: String, shape: Vec<usize>) -> Self {
        Self { source, dtype: Dtype::F32, shape, place: Place::Zeros }
    }

    /// Whether it has this shape.
    pub fn has_shape(&self, shape: &[i64]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(&found, &wanted)| i64::try_from(found) == Ok(wanted))
    }

    /// Whether its values are of floating point, in a width that the models are read from.
    pub fn is_floating(&self) -> bool {
        matches!(self.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.values() * self.dtype.bitsize() as u64 / 8
    }

    /// Hands the values on, block by block.
    pub fn read(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.place {
            Place::File(file, at) => {
                let mut block = vec![0; self.bytes().min(BLOCK) as usize];
                let mut done = 0;
                while done < self.bytes() {
                    let part = &mut block[..(self.bytes() - done).min(BLOCK) as usize];
                    file.read_exact_at(part, at + done)?;
                    take(part)?;
                    done += part.len() as u64;
                }
                Ok(())
            }
            // A pickle's reader checks the sum of a whole tensor, and gives it as a whole.
            Place::Pickle(tensor) => {
                let bytes = tensor.read()?;
                if bytes.len() as u64 != self.bytes() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} has {} bytes", self.source, bytes.len())));
                }
                take(&bytes)
            }
            Place::Grown(base, rows) => {
                base.read(take)?;
                take(rows)
            }
            Place::Zeros => {
                let block = vec![0; self.bytes().min(BLOCK) as usize];
                let mut left = self.bytes();
                while left > 0 {
                    let part = &block[..left.min(BLOCK) as usize];
                    take(part)?;
                    left -= part.len() as u64;
                }
                Ok(())
            }
        }
    }

    /// Whether two tensors hold the same bytes.
    pub fn equals(&self, other: &Self) -> io::Result<bool> {
        Ok(self.dtype == other.dtype && self.shape == other.shape && self.digest()? == other.digest()?)
    }

    fn digest(&self) -> io::Result<[u8; 32]> {
        let mut hash = Sha256::new();
        self.read(&mut |block| {
            hash.update(block);
            Ok(())
        })?;
        Ok(hash.finalize().into())
    }

    /// A table with `count` rows more, each the mean of the rows that are there: so `resize_token_embeddings` of transformers
    /// begins, but for a deviation of 3e-5 of the table's own.
    pub fn grown(self, count: usize) -> io::Result<Self> {
        let &[rows, columns] = self.shape.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a table", self.source)));
        };
        let mut sums = vec![0f64; columns];
        let width = self.dtype.bitsize() / 8;
        let dtype = self.dtype;
        let mut column = 0;
        self.read(&mut |block| {
            for value in block.chunks_exact(width) {
                sums[column] += number(dtype, value);
                column = if column + 1 == columns { 0 } else { column + 1 };
            }
            Ok(())
        })?;
        let row: Vec<u8> = sums.iter().flat_map(|sum| encoded(dtype, sum / rows as f64)).collect();
        Ok(Self {
            source: self.source.clone(),
            dtype,
            shape: vec![rows + count, columns],
            place: Place::Grown(Box::new(self), row.repeat(count)),
        })
    }
}

fn number(dtype: Dtype, bytes: &[u8]) -> f64 {
    match (dtype, bytes) {
        (Dtype::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f64(),
        (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f64(),
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
        (Dtype::F64, bytes) => bytes.first_chunk().map_or(f64::NAN, |b| f64::from_le_bytes(*b)),
        _ => f64::NAN,
    }
}

fn encoded(dtype: Dtype, value: f64) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => bf16::from_f64(value).to_le_bytes().into(),
        Dtype::F16 => f16::from_f64(value).to_le_bytes().into(),
        Dtype::F32 => (value as f32).to_le_bytes().into(),
        _ => value.to_le_bytes().into(),
    }
}
