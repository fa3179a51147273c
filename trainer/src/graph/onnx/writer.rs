//! A graph while it is written: its names, its nodes, its weights.

use super::file::{Dim, GraphFile, value_info};
use super::precision::{Operators, Precision};
use super::proto::{AttributeProto, DataType, NodeProto};
use super::ranges::Calibration;
use super::stored::{Held, Written};
use crate::graph::{Init, Params};
use crate::models::lora::Lora;
use anyhow::{Context, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Weights with fewer values than this stay in fp32 whatever the storage: biases, norms, scales.
const SMALL: usize = 1024;

/// Writes a model as an ONNX graph.
pub struct Writer<'a> {
    pub(super) params: &'a Params,
    pub(super) precision: Precision,
    pub(super) operators: Operators,
    pub(super) lora: Option<&'a Lora>,
    /// Longest context that rotary tables are written for.
    pub(super) max_positions: i64,
    pub(super) file: RefCell<GraphFile>,
    /// What the graph computes with, as parameters of the same model: small ones and those that were folded.
    pub(super) settled: Params,
    /// The others, which are read back from the data file.
    pub(super) held: RefCell<BTreeMap<String, Held>>,
    problems: RefCell<Vec<String>>,
    pub(super) calibration: Calibration,
    /// For each initializer the value that nodes refer to: itself, or itself widened.
    pub(super) stored: RefCell<BTreeMap<String, String>>,
    pub(super) scope: RefCell<String>,
    /// How often a name was asked for.
    names: RefCell<BTreeMap<String, usize>>,
}

/// A value of the graph, or something known already that is stored when a node needs it.
#[derive(Debug)]
pub struct OnnxTensor {
    pub(super) name: String,
    pub(super) known: Option<Tensor>,
}

impl Clone for OnnxTensor {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), known: self.known.as_ref().map(Tensor::shallow_clone) }
    }
}

impl<'a> Writer<'a> {
    /// Starts a graph at `path` (`*.onnx`).
    ///
    /// # Errors
    /// If the data file cannot be made.
    pub fn create(path: &Path, name: &str, params: &'a Params, precision: Precision) -> Result<Self> {
        Ok(Self::over(GraphFile::create(path, name)?, params, precision))
    }

    pub(super) fn over(file: GraphFile, params: &'a Params, precision: Precision) -> Self {
        Self {
            params,
            precision,
            operators: Operators::Fused,
            lora: None,
            max_positions: 0,
            file: RefCell::new(file),
            settled: Params::create(Device::Cpu),
            held: Default::default(),
            problems: Default::default(),
            calibration: Default::default(),
            stored: Default::default(),
            scope: Default::default(),
            names: Default::default(),
        }
    }

    /// Merges adapters into the linear layers, and prepares rotary tables for a decoder.
    pub fn decoder(mut self, lora: &'a Lora, max_positions: i64, operators: Operators) -> Self {
        self.operators = operators;
        self.lora = Some(lora);
        self.max_positions = max_positions;
        self
    }

    /// Declares an input.
    pub fn input(&self, name: &str, data_type: DataType, dims: &[Dim]) -> OnnxTensor {
        self.file.borrow_mut().graph.input.push(value_info(name, data_type, dims));
        OnnxTensor { name: name.into(), known: None }
    }

    /// Declares an output in fp32: the value takes this name.
    pub fn output(&self, value: &OnnxTensor, name: &str, dims: &[Dim]) {
        let value = &self.cast(value, self.precision.compute(), DataType::Float);
        let mut file = self.file.borrow_mut();
        for node in &mut file.graph.node {
            for slot in node.input.iter_mut().chain(&mut node.output).filter(|s| **s == value.name) {
                *slot = name.into();
            }
        }
        file.graph.output.push(value_info(name, DataType::Float, dims));
    }

    /// Writes the files and returns the parameters as the graph holds them, under the model's own names: adapters merged,
    /// batch norms folded, rounded to the storage. The other reader computes with them what the graph computes. Large ones are
    /// read from the data file each time they are asked for, which therefore has to stay.
    ///
    /// # Errors
    /// If the files cannot be written or a weight does not fit the storage.
    pub fn finish(self) -> Result<Params> {
        let problems = self.problems.into_inner();
        anyhow::ensure!(
            problems.is_empty(),
            "as stored, these weights are not finite: {}; export in fp32, or train again if they are not finite there",
            problems.join(", ")
        );
        let (data, initializers) = self.file.into_inner().finish()?;
        let written = Written::new(data, self.held.into_inner(), &initializers).context("cannot read the weights that were written")?;
        Ok(self.settled.with_source(Box::new(written)))
    }

    pub(super) fn known(&self, name: impl Into<String>, tensor: Tensor) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: Some(tensor) }
    }

    /// A parameter as the graph will hold it, kept for the other reader.
    pub(super) fn settle(&self, name: &str, tensor: Tensor) -> Tensor {
        let rounded = self.rounded(name, tensor);
        self.settled.insert(name, rounded.shallow_clone());
        rounded
    }

    /// A parameter, or a part of it, as the graph will hold it.
    pub(super) fn rounded(&self, name: &str, tensor: Tensor) -> Tensor {
        let tensor = tensor.detach();
        let stored = self.stored_type(tensor.numel());
        let rounded = if stored == DataType::Float { tensor } else { round(&tensor, stored) };
        if rounded.isfinite().all().int64_value(&[]) == 0 {
            let mut problems = self.problems.borrow_mut();
            if problems.last().is_none_or(|last| last != name) {
                problems.push(name.into());
            }
        }
        rounded
    }

    /// The type that a weight of so many values is stored in.
    pub(super) fn stored_type(&self, values: usize) -> DataType {
        if values >= SMALL && self.calibration.is_applied() {
            // Half is close enough to fp32 where the kernels are of 8 bits.
            return DataType::Half;
        }
        if values >= SMALL { self.precision.storage() } else { self.precision.compute() }
    }

    pub(super) fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.settle(name, self.params.weight(name, shape, init))
    }

    /// The name that a node uses for a value; what is known is stored first.
    pub(super) fn reference(&self, value: &OnnxTensor) -> String {
        let Some(tensor) = &value.known else { return value.name.clone() };
        if let Some(name) = self.stored.borrow().get(&value.name) {
            return name.clone();
        }
        let compute = self.precision.compute();
        let wanted = self.stored_type(tensor.numel());
        // Parameters were rounded when they were read; a table that was computed here may need its full precision.
        let stored = if wanted == compute || round(tensor, wanted).equal(tensor) { wanted } else { compute };
        self.file.borrow_mut().weight(&value.name, tensor, stored);
        self.widened(&value.name, stored)
    }

    /// The name that nodes use for an initializer of this type.
    pub(super) fn widened(&self, name: &str, stored: DataType) -> String {
        let compute = self.precision.compute();
        let mut used = name.to_string();
        if stored != compute {
            let widened = format!("{name}.f32");
            self.push("Cast", "", &[used], vec![widened.clone()], vec![AttributeProto::int("to", compute as i64)]);
            used = widened;
        }
        self.stored.borrow_mut().insert(name.into(), used.clone());
        used
    }

    /// A value in another type.
    pub(super) fn cast(&self, value: &OnnxTensor, from: DataType, to: DataType) -> OnnxTensor {
        if from == to { value.clone() } else { self.node("Cast", &[value], vec![AttributeProto::int("to", to as i64)]) }
    }

    /// An fp32 input in the type that is computed in.
    pub fn entry(&self, input: &OnnxTensor) -> OnnxTensor {
        self.cast(input, DataType::Float, self.precision.compute())
    }

    pub(super) fn push(&self, op: &str, domain: &str, inputs: &[String], outputs: Vec<String>, attribute: Vec<AttributeProto>) {
        let name = outputs.first().cloned().unwrap_or_default();
        self.file.borrow_mut().node(NodeProto {
            input: inputs.into(),
            output: outputs,
            name,
            op_type: op.into(),
            attribute,
            domain: domain.into(),
        });
    }

    /// The name itself, or with a number where it was taken.
    pub(super) fn unique(&self, name: String) -> String {
        let mut names = self.names.borrow_mut();
        let count = names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{}", *count - 1) }
    }

    /// A node that is named after the model's part that is being written.
    pub(super) fn node(&self, op: &str, inputs: &[&OnnxTensor], attributes: Vec<AttributeProto>) -> OnnxTensor {
        let scope = self.scope.borrow().clone();
        let name = if scope.is_empty() { op.into() } else { format!("{scope}/{op}") };
        self.named_node(name, op, inputs, attributes)
    }

    /// A node that is named after its parameters.
    pub(super) fn named_node(&self, name: String, op: &str, inputs: &[&OnnxTensor], attributes: Vec<AttributeProto>) -> OnnxTensor {
        let inputs: Vec<String> = inputs.iter().map(|i| self.reference(i)).collect();
        let name = self.unique(name);
        self.push(op, "", &inputs, vec![name.clone()], attributes);
        OnnxTensor { name, known: None }
    }

    pub(super) fn integers(&self, values: &[i64]) -> OnnxTensor {
        let name = format!("{values:?}").replace(' ', "");
        if self.stored.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            self.file.borrow_mut().integers(&name, values, &[values.len() as i64]);
        }
        OnnxTensor { name, known: None }
    }

    /// A number in the type that is computed in.
    pub(super) fn number(&self, value: f64) -> OnnxTensor {
        self.number_in(value, self.precision.compute())
    }

    pub(super) fn number_in(&self, value: f64, data_type: DataType) -> OnnxTensor {
        let value = value as f32;
        let name = if data_type == DataType::Float { format!("{value}") } else { format!("{value}.{data_type:?}") };
        if self.stored.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            self.file.borrow_mut().number(&name, value, data_type);
        }
        OnnxTensor { name, known: None }
    }

    /// An input that was declared.
    pub(super) fn named(&self, name: &str) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: None }
    }
}

/// To another precision and back.
fn round(tensor: &Tensor, data_type: DataType) -> Tensor {
    tensor.to_kind(data_type.kind()).to_kind(Kind::Float)
}
