//! Tensors that are read from files when they are requested, by ranges of rows.

use super::error::ParamsError;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A source of parameters that are not in memory.
pub(crate) trait Source: Debug + Send {
    /// Names of all tensors.
    fn names(&self) -> Vec<String>;
    /// Shape of a tensor; `None` if there is none of this name.
    fn shape(&self, name: &str) -> Option<&[i64]>;
    /// Reads `count` rows of the first dimension, from row `from` on, as fp32.
    ///
    /// # Errors
    /// If the tensor or a row does not exist, or cannot be read.
    fn rows(&self, name: &str, from: i64, count: i64) -> io::Result<Tensor>;
}

/// A tensor in a file.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub file: Arc<File>,
    /// Offset of the first value in bytes.
    pub at: u64,
    pub kind: Kind,
    pub shape: Vec<i64>,
}

impl Stored {
    /// Reads rows as fp32. They are not memory-mapped, so that they do not stay resident.
    pub fn rows(&self, from: i64, count: i64) -> io::Result<Tensor> {
        let mut shape = self.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = count;
        }
        let inside = from >= 0 && count >= 0 && from.checked_add(count).is_some_and(|end| end <= self.shape.first().copied().unwrap_or(1));
        if !inside {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it does not have {count} rows from row {from} on")));
        }
        let row = self.shape.iter().skip(1).product::<i64>() as u64 * self.kind.elt_size_in_bytes() as u64;
        let mut bytes = vec![0; (row * count as u64) as usize];
        self.file.read_exact_at(&mut bytes, self.at + row * from as u64)?;
        let tensor = Tensor::f_from_data_size(&bytes, &shape, self.kind).map_err(io::Error::other)?;
        Ok(tensor.to_kind(Kind::Float))
    }
}

/// Tensors of safetensors files. If a name is in several files, the last file's tensor is used.
#[derive(Debug, Default)]
pub(crate) struct Safetensors {
    tensors: BTreeMap<String, Stored>,
}

impl Safetensors {
    /// Adds the tensors of a file. Only the header is read and checked here.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or has a tensor of another type than floating point.
    pub fn add(&mut self, path: &Path) -> Result<(), ParamsError> {
        let failed = |message: String| ParamsError::File { path: path.into(), message };
        let file = File::open(path).map_err(|e| failed(e.to_string()))?;
        if !file.metadata().is_ok_and(|m| m.is_file()) {
            return Err(failed("it is not a file".into()));
        }
        let bytes = map(&file).map_err(|e| failed(e.to_string()))?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| failed(e.to_string()))?;
        let file = Arc::new(file);
        for (name, info) in metadata.tensors() {
            let kind = match info.dtype {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::F64 => Kind::Double,
                other => return Err(failed(format!("{name} is of type {other:?} instead of a floating-point type"))),
            };
            let shape = info.shape.iter().map(|&d| i64::try_from(d)).collect::<Result<_, _>>();
            let shape = shape.map_err(|_| failed(format!("{name} has a dimension that is too large")))?;
            // The values come after the header's length and the header.
            let at = (size_of::<u64>() + header + info.data_offsets.0) as u64;
            self.tensors.insert(name, Stored { file: Arc::clone(&file), at, kind, shape });
        }
        Ok(())
    }
}

impl Source for Safetensors {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    fn rows(&self, name: &str, from: i64, count: i64) -> io::Result<Tensor> {
        self.tensors.get(name).ok_or(io::ErrorKind::NotFound)?.rows(from, count)
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only, is used as bytes within its length, and is dropped after the header is checked. The files of a run
    // are replaced by renaming and not modified in place.
    unsafe { Mmap::map(file) }
}
