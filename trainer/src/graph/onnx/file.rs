//! The files of a graph: nodes in `NAME.onnx`, weights in `NAME.onnx.data`. Weights are written tensor by tensor.

use super::proto::{
    DataType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use anyhow::{Context, Result};
use prost::Message;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// A fixed size.
    Is(i64),
    /// A free size with this name.
    Free(&'static str),
}

/// Alignment of tensors in the data file, so that they can be memory-mapped.
const ALIGNMENT: u64 = 64;
/// Version of the operator set. TensorRT's parser supports it.
const OPSET: i64 = 21;
/// Version of the file format for this operator set.
const IR_VERSION: i64 = 10;
/// The producer in the file.
const PRODUCER: &str = "anatomix-trainer";
/// Largest size of a graph in bytes, without its data file.
const MAX_GRAPH: u64 = 64 << 20;

pub(super) struct GraphFile {
    pub graph: GraphProto,
    /// Outputs of the KV cache, which are listed after all others.
    pub caches: Vec<ValueInfoProto>,
    path: PathBuf,
    data: BufWriter<Box<dyn Write>>,
    offset: u64,
    failure: Option<std::io::Error>,
}

impl GraphFile {
    pub fn create(path: &Path, name: &str) -> Result<Self> {
        let data = path.with_extension("onnx.data");
        let file = File::create(&data).with_context(|| format!("cannot write {}", data.display()))?;
        let graph = GraphProto { name: name.into(), ..Default::default() };
        Ok(Self { graph, caches: Vec::new(), path: path.into(), data: BufWriter::new(Box::new(file)), offset: 0, failure: None })
    }

    /// Makes a graph without files, of which only the nodes are used.
    pub fn unwritten() -> Self {
        let data: Box<dyn Write> = Box::new(std::io::sink());
        let (graph, path) = Default::default();
        Self { graph, caches: Vec::new(), path, data: BufWriter::new(data), offset: 0, failure: None }
    }

    /// Adds an initializer with a tensor's values, in the data file.
    pub fn weight(&mut self, name: &str, tensor: &Tensor, data_type: DataType) {
        self.begin(name, &tensor.size(), data_type, (tensor.numel() * data_type.kind().elt_size_in_bytes()) as u64);
        self.values(tensor, data_type);
    }

    /// Adds an initializer of `bytes` bytes in the data file, which have to be appended next.
    pub fn begin(&mut self, name: &str, dims: &[i64], data_type: DataType, bytes: u64) {
        let padding = self.offset.next_multiple_of(ALIGNMENT) - self.offset;
        self.append(&vec![0; padding as usize]);
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        let location = self.path.with_extension("onnx.data").file_name().map(|n| n.to_string_lossy().into_owned());
        self.graph.initializer.push(TensorProto {
            dims: dims.into(),
            data_type: data_type as i32,
            name: name.into(),
            external_data: vec![
                entry("location", location.unwrap_or_default()),
                entry("offset", self.offset.to_string()),
                entry("length", bytes.to_string()),
            ],
            data_location: 1,
            ..Default::default()
        });
    }

    /// Appends a tensor's values.
    pub fn values(&mut self, tensor: &Tensor, data_type: DataType) {
        let kind = data_type.kind();
        let tensor = tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        self.append(&bytes);
    }

    /// Appends bytes to the data file. [`GraphFile::finish`] returns the error of a failure.
    pub fn append(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        if let Err(error) = self.data.write_all(bytes) {
            self.failure.get_or_insert(error);
        }
    }

    /// Adds an initializer with another shape that shares the bytes of an existing one.
    pub fn alias(&mut self, name: &str, of: &str, dims: &[i64]) {
        let found = self.graph.initializer.iter().find(|t| t.name == of).cloned();
        self.graph.initializer.extend(found.map(|tensor| TensorProto { name: name.into(), dims: dims.into(), ..tensor }));
    }

    /// Adds an initializer of integers, in the graph itself.
    pub fn integers(&mut self, name: &str, values: &[i64], dims: &[i64]) {
        self.graph.initializer.push(TensorProto {
            dims: dims.into(),
            data_type: DataType::Int64 as i32,
            name: name.into(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
    }

    /// Adds an initializer of a number, in the graph itself.
    pub fn number(&mut self, name: &str, value: f32, data_type: DataType) {
        let raw_data = match data_type {
            DataType::Half => half::f16::from_f32(value).to_le_bytes().into(),
            DataType::BFloat16 => half::bf16::from_f32(value).to_le_bytes().into(),
            _ => value.to_le_bytes().into(),
        };
        self.graph.initializer.push(TensorProto { data_type: data_type as i32, name: name.into(), raw_data, ..Default::default() });
    }

    /// Adds an initializer of a byte, in the graph itself.
    pub fn byte(&mut self, name: &str, value: u8) {
        let (data_type, raw_data) = (DataType::UInt8 as i32, vec![value]);
        self.graph.initializer.push(TensorProto { data_type, name: name.into(), raw_data, ..Default::default() });
    }

    pub fn node(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// Finishes both files. Returns the data file, opened for reading, and the initializers.
    pub fn finish(mut self) -> Result<(File, Vec<TensorProto>)> {
        let path = self.path.clone();
        let failed = || format!("cannot write {}", path.display());
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
            producer_name: PRODUCER.into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import,
        };
        std::fs::write(&self.path, model.encode_to_vec()).with_context(failed)?;
        let data = File::open(self.path.with_extension("onnx.data")).with_context(failed)?;
        Ok((data, model.graph.map(|g| g.initializer).unwrap_or_default()))
    }
}

/// Whether a file is a graph that this program wrote.
pub fn is_own(path: &Path) -> bool {
    let small = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_GRAPH);
    let bytes = if small { std::fs::read(path).ok() } else { None };
    bytes.and_then(|bytes| ModelProto::decode(bytes.as_slice()).ok()).is_some_and(|model| model.producer_name == PRODUCER)
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
