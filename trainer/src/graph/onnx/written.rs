//! The large parameters of a graph that was written, which are read back from its data file.

use super::proto::{DataType, TensorProto};
use super::quantize::{Layout, Quantized};
use crate::graph::source::{Source, Stored};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// How a parameter is stored: the names of its initializers, and which part of them it is.
#[derive(Clone, Debug)]
pub(super) enum StoredAs {
    /// The parameter itself, `[out, in]`.
    Plain(String),
    /// These columns of a matrix `[in, out]`, which is transposed.
    Transposed(String, Range<i64>),
    /// These rows of quantised values, scales and zero points.
    Blocks { names: [String; 3], rows: Range<i64>, layout: Layout },
}

/// Where a parameter is in the data file.
#[derive(Debug)]
enum Location {
    Plain(Stored),
    Transposed { stored: Stored, first: i64, shape: [i64; 2] },
    Blocks { file: Arc<File>, at: [u64; 3], first: i64, shape: [i64; 2], layout: Layout },
}

/// The large parameters of a written graph, by their names in the model.
#[derive(Debug)]
pub(super) struct Written {
    locations: BTreeMap<String, Location>,
}

impl Written {
    /// Finds the positions of parameters in the data file.
    pub fn new(file: File, stored_as: BTreeMap<String, StoredAs>, initializers: &[TensorProto]) -> io::Result<Self> {
        let file = Arc::new(file);
        let by_name: BTreeMap<&str, &TensorProto> = initializers.iter().map(|t| (t.name.as_str(), t)).collect();
        let find = |name: &str| {
            let tensor = by_name.get(name)?;
            let offset = tensor.external_data.iter().find(|e| e.key == "offset")?.value.parse().ok()?;
            Some((*tensor, offset))
        };
        let plain = |name: &str| {
            let (tensor, at) = find(name)?;
            let kind = [(DataType::Float, Kind::Float), (DataType::Half, Kind::Half), (DataType::BFloat16, Kind::BFloat16)];
            let (_, kind) = kind.into_iter().find(|(t, _)| *t as i32 == tensor.data_type)?;
            Some(Stored { file: Arc::clone(&file), at, kind, shape: tensor.dims.clone() })
        };
        let locate = |stored_as: &StoredAs| match stored_as {
            StoredAs::Plain(name) => plain(name).map(Location::Plain),
            StoredAs::Transposed(name, rows) => plain(name).and_then(|stored| {
                let shape = [rows.end - rows.start, *stored.shape.first()?];
                Some(Location::Transposed { stored, first: rows.start, shape })
            }),
            StoredAs::Blocks { names: [values, scales, zeros], rows, layout } => {
                let at = [find(values)?.1, find(scales)?.1, find(zeros)?.1];
                let shape = [rows.end - rows.start, layout.columns as i64];
                Some(Location::Blocks { file: Arc::clone(&file), at, first: rows.start, shape, layout: *layout })
            }
        };
        let locations = stored_as
            .iter()
            .map(|(name, stored_as)| {
                Ok((name.clone(), locate(stored_as).ok_or_else(|| io::Error::other(format!("{name} was not written")))?))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { locations })
    }
}

impl Source for Written {
    fn names(&self) -> Vec<String> {
        self.locations.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[i64]> {
        Some(match self.locations.get(name)? {
            Location::Plain(stored) => &stored.shape,
            Location::Transposed { shape, .. } | Location::Blocks { shape, .. } => shape,
        })
    }

    fn rows(&self, name: &str, from: i64, count: i64) -> io::Result<Tensor> {
        match self.locations.get(name).ok_or(io::ErrorKind::NotFound)? {
            Location::Plain(stored) => stored.rows(from, count),
            Location::Transposed { stored, first, shape: [rows, columns] } => {
                if from < 0 || count < 0 || from + count > *rows {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                Ok(stored.rows(0, *columns)?.tr().narrow(0, first + from, count).contiguous())
            }
            Location::Blocks { file, at, first, shape: [rows, columns], layout } => {
                if from < 0 || count < 0 || from + count > *rows {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let read = |at: u64, row: usize| {
                    let mut bytes = vec![0; row * count as usize];
                    file.read_exact_at(&mut bytes, at + row as u64 * (first + from) as u64).map(|()| bytes)
                };
                let scales = read(at[1], layout.blocks() * size_of::<f32>())?;
                let scales = scales.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
                let quantized = Quantized { packed: read(at[0], layout.row_bytes())?, scales, zeros: read(at[2], layout.zero_bytes())? };
                Ok(Tensor::from_slice(&layout.dequantize(&quantized)).reshape([count, *columns]))
            }
        }
    }
}
