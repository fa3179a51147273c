//! The files of a graph: nodes in `NAME.onnx`, weights in `NAME.onnx.data`, streamed tensor by tensor.

use super::proto::{
    DataType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use anyhow::{Context, Result};
use prost::Message;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// How weights are stored. Arithmetic stays in fp32 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    /// Four bytes a weight.
    F32,
    /// Two bytes a weight, widened when the graph is loaded.
    F16,
}

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// Known.
    Is(i64),
    /// Free, with a name.
    Free(&'static str),
}

/// Offsets of tensors, so that they can be mapped as they are.
const ALIGNMENT: u64 = 64;
/// The opset that graphs are written in; TensorRT's parser takes it too.
const OPSET: i64 = 21;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 10;

pub(super) struct GraphFile {
    pub graph: GraphProto,
    /// Outputs that are listed after all others: a reader looks for logits first, not for caches.
    pub caches: Vec<ValueInfoProto>,
    path: PathBuf,
    data: BufWriter<File>,
    offset: u64,
    failure: Option<std::io::Error>,
}

impl GraphFile {
    pub fn create(path: &Path, name: &str) -> Result<Self> {
        let data = path.with_extension("onnx.data");
        let file = File::create(&data).with_context(|| format!("cannot write {}", data.display()))?;
        let graph = GraphProto { name: name.into(), ..Default::default() };
        Ok(Self { graph, caches: Vec::new(), path: path.into(), data: BufWriter::new(file), offset: 0, failure: None })
    }

    /// Adds an initializer from a tensor, in the data file.
    pub fn weight(&mut self, name: &str, tensor: &Tensor, storage: Storage) {
        let (kind, data_type) = match storage {
            Storage::F32 => (Kind::Float, DataType::Float),
            Storage::F16 => (Kind::Half, DataType::Half),
        };
        let tensor = tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        if let Err(error) = self.append(&bytes) {
            self.failure.get_or_insert(error);
        }
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        let location = self.path.with_extension("onnx.data").file_name().map(|n| n.to_string_lossy().into_owned());
        self.graph.initializer.push(TensorProto {
            dims: tensor.size(),
            data_type: data_type as i32,
            name: name.into(),
            external_data: vec![
                entry("location", location.unwrap_or_default()),
                entry("offset", (self.offset - bytes.len() as u64).to_string()),
                entry("length", bytes.len().to_string()),
            ],
            data_location: 1,
            ..Default::default()
        });
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let padding = self.offset.next_multiple_of(ALIGNMENT) - self.offset;
        self.data.write_all(&vec![0; padding as usize])?;
        self.offset += padding + bytes.len() as u64;
        self.data.write_all(bytes)
    }

    /// Adds a small integer initializer, in the graph itself.
    pub fn integers(&mut self, name: &str, values: &[i64], dims: &[i64]) {
        self.graph.initializer.push(TensorProto {
            dims: dims.into(),
            data_type: DataType::Int64 as i32,
            name: name.into(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
    }

    /// Adds a number, in the graph itself.
    pub fn number(&mut self, name: &str, value: f32) {
        self.graph.initializer.push(TensorProto {
            data_type: DataType::Float as i32,
            name: name.into(),
            raw_data: value.to_le_bytes().into(),
            ..Default::default()
        });
    }

    pub fn node(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// Writes both files.
    pub fn finish(mut self) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        if let Some(error) = self.failure.take() {
            return Err(error).with_context(failed);
        }
        self.data.flush().with_context(failed)?;
        self.graph.output.append(&mut self.caches);
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let contrib = self.graph.node.iter().any(|n| n.domain == "com.microsoft");
        let mut opset_import = vec![opset("", OPSET)];
        opset_import.extend(contrib.then(|| opset("com.microsoft", 1)));
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "anatomix-trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import,
        };
        std::fs::write(&self.path, model.encode_to_vec()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Describes an input or output.
pub(super) fn value_info(name: &str, data_type: DataType, dims: &[Dim]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim {
                Dim::Is(value) => DimensionValue::Value(*value),
                Dim::Free(name) => DimensionValue::Param((*name).into()),
            }),
        })
        .collect();
    let tensor_type = TensorType { elem_type: data_type as i32, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
