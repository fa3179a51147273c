//! Checkpoints in their published forms: safetensors files, PyTorch pickles, and Hugging Face folders of either.
//!
//! Opening reads headers only. The pickle reader builds tensors and plain values; it does not import modules or call functions that a
//! pickle names.

use super::error::ImportError;
use super::stored::Stored;
use pytorch_reader::{DType, PytorchReader};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest header of a safetensors file in bytes, a limit of the format.
const MAX_HEADER: u64 = 100_000_000;
/// Largest index of shards, configuration or tokenizer in bytes.
const MAX_JSON: u64 = 256 << 20;

/// Named tensors of one or several files.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Path of the file or folder, for messages.
    pub path: PathBuf,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Opens a safetensors file or a pickle. The first bytes decide which of them it is.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let file = open(path)?;
        let length = file.metadata().map_err(|e| ImportError::file(path, e))?.len();
        let mut head = [0; 9];
        let is_safetensors = length >= 9
            && file.read_exact_at(&mut head, 0).is_ok()
            && head[8] == b'{'
            && head.first_chunk().is_some_and(|n| u64::from_le_bytes(*n) <= MAX_HEADER);
        let tensors = if is_safetensors { safetensors(path, file, length)? } else { pickle(path, length)? };
        Ok(Self { path: path.into(), tensors })
    }

    /// Opens the model in a Hugging Face folder: a single file, or shards with an index.
    pub fn folder(folder: &Path) -> Result<Self, ImportError> {
        let file = |name: &str| folder.join(name);
        for index in ["model.safetensors.index.json", "pytorch_model.bin.index.json"] {
            if file(index).exists() {
                return Self::shards(folder, &file(index));
            }
        }
        let single = ["model.safetensors", "pytorch_model.bin"].map(file).into_iter().find(|path| path.exists()).ok_or_else(|| {
            ImportError::file(
                folder,
                "it holds neither model.safetensors nor pytorch_model.bin, nor an index of shards; name a model's folder",
            )
        })?;
        Ok(Self { path: folder.into(), ..Self::open(&single)? })
    }

    fn shards(folder: &Path, index: &Path) -> Result<Self, ImportError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = json(index)?;
        let mut tensors = BTreeMap::new();
        let mut problems = Vec::new();
        for name in weight_map.values().collect::<BTreeSet<_>>() {
            if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
                return Err(ImportError::file(index, format!("{name:?} is not the name of a file beside it")));
            }
            for (tensor, stored) in Self::open(&folder.join(name))?.tensors {
                if tensors.insert(tensor.clone(), stored).is_some() {
                    problems.push(format!("{tensor} is in more than one shard"));
                }
            }
        }
        problems.extend(weight_map.iter().filter(|(n, _)| !tensors.contains_key(*n)).map(|(n, file)| format!("{n} is missing in {file}")));
        if !problems.is_empty() {
            return Err(ImportError::Misfit { path: index.into(), problems });
        }
        Ok(Self { path: folder.into(), tensors })
    }

    /// Renames the tensors by a function that returns `None` for tensors to leave out.
    ///
    /// # Errors
    /// If two tensors get the same name.
    pub fn renamed(self, name: impl Fn(&str) -> Option<String>) -> Result<Self, ImportError> {
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        let mut problems = Vec::new();
        for (source, stored) in self.tensors {
            let Some(target) = name(&source) else { continue };
            // An empty tensor, such as the register tokens of an encoder without any, counts as missing.
            if stored.shape.contains(&0) {
                continue;
            }
            if let Some(other) = tensors.get(&target) {
                problems.push(format!("{} and {source} are both {target}", other.source));
                continue;
            }
            tensors.insert(target, stored);
        }
        if !problems.is_empty() {
            return Err(ImportError::Misfit { path: self.path, problems });
        }
        Ok(Self { path: self.path, tensors })
    }

    /// Compares names, shapes and types with the model's parameters.
    ///
    /// # Errors
    /// [`ImportError::Misfit`], which lists all tensors that are missing, extra, or of another shape or type.
    pub fn check(&self, expected: &BTreeMap<String, Vec<i64>>) -> Result<(), ImportError> {
        let mut problems = Vec::new();
        for (name, shape) in expected {
            match self.tensors.get(name) {
                None => problems.push(format!("{name} is missing")),
                Some(found) if !found.has_shape(shape) => {
                    problems.push(format!("{} is {:?} instead of {shape:?}", found.source, found.shape));
                }
                Some(found) if !found.is_floating() => {
                    problems.push(format!("{} is of {:?}, not of floating point", found.source, found.dtype));
                }
                Some(_) => {}
            }
        }
        let extra = self.tensors.iter().filter(|(name, _)| !expected.contains_key(*name));
        problems.extend(extra.map(|(_, stored)| format!("{} is not part of the model", stored.source)));
        if problems.is_empty() { Ok(()) } else { Err(ImportError::Misfit { path: self.path.clone(), problems }) }
    }

    /// Size of a tensor's dimension; `None` if the tensor is missing or the size is implausible.
    pub fn size(&self, name: &str, dimension: usize) -> Option<i64> {
        let size = *self.tensors.get(name)?.shape.get(dimension)?;
        (1..=1 << 24).contains(&size).then_some(size as i64)
    }

    /// Number of parts `prefix0.`, `prefix1.`, ...; `None` if there are none.
    pub fn count(&self, prefix: &str) -> Option<i64> {
        let numbers = self.tensors.keys().filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok());
        numbers.filter(|n| (0..1000).contains(n)).max().map(|n| n + 1)
    }
}

/// Reads a JSON file of at most [`MAX_JSON`] bytes.
pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    let bytes = bytes(path)?;
    serde_json::from_slice(&bytes).map_err(|e| ImportError::file(path, e))
}

/// Reads a file of at most [`MAX_JSON`] bytes.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, ImportError> {
    let length = open(path)?.metadata().map_err(|e| ImportError::file(path, e))?.len();
    if length > MAX_JSON {
        return Err(ImportError::file(path, format!("it has {length} bytes, more than the {MAX_JSON} that such a file can need")));
    }
    std::fs::read(path).map_err(|e| ImportError::file(path, e))
}

/// Opens a file. Only regular files are accepted, because reading a pipe could block.
fn open(path: &Path) -> Result<File, ImportError> {
    let found = std::fs::metadata(path).map_err(|e| ImportError::file(path, e))?;
    if !found.is_file() {
        return Err(ImportError::file(path, "it is not a file"));
    }
    File::open(path).map_err(|e| ImportError::file(path, e))
}

fn safetensors(path: &Path, file: File, length: u64) -> Result<BTreeMap<String, Stored>, ImportError> {
    let damaged = |message: String| ImportError::file(path, format!("it is not a complete safetensors file: {message}"));
    let mut size = [0; 8];
    file.read_exact_at(&mut size, 0).map_err(|e| damaged(e.to_string()))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size.saturating_add(8) > length {
        return Err(damaged(format!("a header of {size} bytes does not fit into {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact_at(&mut header, 8).map_err(|e| damaged(e.to_string()))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
    let start = 8 + size;
    let end = start.checked_add(metadata.data_len() as u64);
    if end != Some(length) {
        return Err(damaged(format!("its tensors take {} bytes, but {} are there", metadata.data_len(), length - start)));
    }
    let file = Arc::new(file);
    let tensor = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let at = start + info.data_offsets.0 as u64;
        let stored = Stored::in_file(name.clone(), info.dtype, info.shape.clone(), Arc::clone(&file), at);
        (name, stored)
    };
    Ok(metadata.tensors().into_iter().map(tensor).collect())
}

fn pickle(path: &Path, length: u64) -> Result<BTreeMap<String, Stored>, ImportError> {
    let failed = |e| {
        let advice = "if it holds objects of other classes beside the model, save the model's tensors alone";
        ImportError::file(path, format!("it is neither a safetensors file nor a PyTorch checkpoint that can be read: {e}; {advice}"))
    };
    let tensors = PytorchReader::new(path).map_err(failed)?.into_tensors();
    let stored = |(name, tensor): (String, pytorch_reader::Tensor)| {
        // A view can repeat one value many times, and so need far more memory than the file has.
        let bytes = tensor.shape().iter().try_fold(tensor.dtype().size() as u64, |bytes, &d| bytes.checked_mul(d as u64));
        if bytes.is_none_or(|bytes| bytes > length) {
            return Err(ImportError::file(path, format!("{name} {:?} takes more bytes than the file has", tensor.shape())));
        }
        Ok((name.clone(), Stored::in_pickle(name, dtype(tensor.dtype()), tensor)))
    };
    tensors.into_iter().map(stored).collect()
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
