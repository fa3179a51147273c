//! Tensors of a checkpoint, which are read in blocks of a few megabytes.

use anatomix::parts::hash::{Digest, Hasher};
use half::{bf16, f16};
use safetensors::Dtype;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Size of a block in bytes; a multiple of the size of every type.
const BLOCK: u64 = 8 << 20;

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Name in the checkpoint, for messages.
    pub source: String,
    /// Type of the values.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// Contiguous values in a file from this byte offset on.
    File(Arc<File>, u64),
    Pickle(pytorch_reader::Tensor),
    /// Another tensor, followed by the bytes of further rows.
    Extended(Box<Stored>, Vec<u8>),
    Zeros,
}

impl Stored {
    /// A tensor in a file. The caller has checked that all its values are inside the file.
    pub fn in_file(source: String, dtype: Dtype, shape: Vec<usize>, file: Arc<File>, at: u64) -> Self {
        Self { source, dtype, shape, values: Values::File(file, at) }
    }

    /// A tensor of a pickle.
    pub fn in_pickle(source: String, dtype: Dtype, tensor: pytorch_reader::Tensor) -> Self {
        Self { source, dtype, shape: tensor.shape().to_vec(), values: Values::Pickle(tensor) }
    }

    /// A tensor of zeros in fp32.
    pub fn zeros(source: String, shape: Vec<usize>) -> Self {
        Self { source, dtype: Dtype::F32, shape, values: Values::Zeros }
    }

    /// Whether the tensor has this shape.
    pub fn has_shape(&self, shape: &[i64]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(&found, &expected)| i64::try_from(found) == Ok(expected))
    }

    /// Whether the values are of a floating-point type that the models support.
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

    /// Calls `take` with the bytes of the values, block by block.
    pub fn read(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.values {
            Values::File(file, at) => {
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
            // The pickle reader checks the checksum of a tensor and returns the tensor as a whole.
            Values::Pickle(tensor) => {
                let bytes = tensor.read()?;
                if bytes.len() as u64 != self.bytes() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} has {} bytes", self.source, bytes.len())));
                }
                take(&bytes)
            }
            Values::Extended(base, rows) => {
                base.read(take)?;
                take(rows)
            }
            Values::Zeros => {
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

    /// Whether two tensors have the same type, shape and bytes.
    pub fn equals(&self, other: &Self) -> io::Result<bool> {
        Ok(self.dtype == other.dtype && self.shape == other.shape && self.digest()? == other.digest()?)
    }

    fn digest(&self) -> io::Result<Digest> {
        let mut hash = Hasher::default();
        self.read(&mut |block| {
            hash.update(block);
            Ok(())
        })?;
        Ok(hash.finish())
    }

    /// The table with `count` further rows, each of which is the mean of the existing rows. (`resize_token_embeddings` of transformers
    /// does the same, with noise of 3e-5 of the table's deviation.)
    pub fn with_mean_rows(self, count: usize) -> io::Result<Self> {
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
            values: Values::Extended(Box::new(self), row.repeat(count)),
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
