//! [`Writer`]: a graph that is being written, with its nodes, initializers and the parameters as they are stored.

use super::file::{Dim, GraphFile, value_info};
use super::precision::{Operators, Precision};
use super::proto::{AttributeProto, DataType, NodeProto};
use super::ranges::Calibration;
use super::written::{StoredAs, Written};
use crate::graph::{Init, Params};
use crate::models::lora::Lora;
use anyhow::{Context, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Weights with fewer values (biases, norms, scales) are stored in the type of the arithmetic.
const SMALL: usize = 1024;

/// An implementation of [`Ops`](crate::graph::Ops) that writes a model as an ONNX graph.
pub struct Writer<'a> {
    pub(super) params: &'a Params,
    pub(super) precision: Precision,
    pub(super) operators: Operators,
    pub(super) lora: Option<&'a Lora>,
    /// Number of positions of rotary tables.
    pub(super) max_positions: i64,
    pub(super) file: RefCell<GraphFile>,
    /// Parameters as the graph holds them that are kept in memory, because they are small or folded.
    pub(super) kept: Params,
    /// How the other parameters are stored, which are read back from the data file.
    pub(super) stored_as: RefCell<BTreeMap<String, StoredAs>>,
    problems: RefCell<Vec<String>>,
    pub(super) calibration: Calibration,
    /// For each initializer the value that nodes use: the initializer itself, or the result of its conversion.
    pub(super) references: RefCell<BTreeMap<String, String>>,
    pub(super) scope: RefCell<String>,
    /// How often each name was requested.
    names: RefCell<BTreeMap<String, usize>>,
}

/// A value of the graph, or a constant that is stored when a node uses it.
#[derive(Debug)]
pub struct OnnxTensor {
    pub(super) name: String,
    /// The value of a constant.
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
    /// If the data file cannot be created.
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
            kept: Params::create(Device::Cpu),
            stored_as: Default::default(),
            problems: Default::default(),
            calibration: Default::default(),
            references: Default::default(),
            scope: Default::default(),
            names: Default::default(),
        }
    }

    /// Makes the writer merge adapters into linear layers, and sets the number of positions of rotary tables.
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

    /// Declares an output in fp32. The value is renamed to `name`.
    pub fn output(&self, value: &OnnxTensor, name: &str, dims: &[Dim]) {
        let value = &self.cast(value, self.precision.compute(), DataType::Float);
        let mut file = self.file.borrow_mut();
        for node in &mut file.graph.node {
            for used in node.input.iter_mut().chain(&mut node.output).filter(|used| **used == value.name) {
                *used = name.into();
            }
        }
        file.graph.output.push(value_info(name, DataType::Float, dims));
    }

    /// Writes the files. Returns the parameters as the graph holds them, by their names in the model: adapters are merged, batch norms are
    /// folded, and values are rounded to the type in which they are stored. With them, [`Torch`](crate::graph::Torch) computes what the
    /// graph computes. Large parameters are read from the data file at each request, so the file must not be removed.
    ///
    /// # Errors
    /// If the files cannot be written, or a weight is not finite in the type in which it is stored.
    pub fn finish(self) -> Result<Params> {
        let problems = self.problems.into_inner();
        anyhow::ensure!(
            problems.is_empty(),
            "as stored, these weights are not finite: {}; export in fp32, or train again if they are not finite there",
            problems.join(", ")
        );
        let (data, initializers) = self.file.into_inner().finish()?;
        let written =
            Written::new(data, self.stored_as.into_inner(), &initializers).context("cannot read the weights that were written")?;
        Ok(self.kept.with_source(Box::new(written)))
    }

    pub(super) fn known(&self, name: impl Into<String>, tensor: Tensor) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: Some(tensor) }
    }

    /// Rounds a parameter as the graph will hold it, and keeps it for the result of [`Writer::finish`].
    pub(super) fn keep(&self, name: &str, tensor: Tensor) -> Tensor {
        let rounded = self.rounded(name, tensor);
        self.kept.insert(name, rounded.shallow_clone());
        rounded
    }

    /// Rounds a parameter, or a part of it, as the graph will hold it.
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

    /// The type in which a weight with this number of values is stored.
    pub(super) fn stored_type(&self, values: usize) -> DataType {
        if values >= SMALL && self.calibration.is_applied() {
            // In a graph in 8 bits, fp16 is precise enough for the other weights.
            return DataType::Half;
        }
        if values >= SMALL { self.precision.storage() } else { self.precision.compute() }
    }

    pub(super) fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.keep(name, self.params.weight(name, shape, init))
    }

    /// The name that nodes use for a value. A constant is stored first.
    pub(super) fn reference(&self, value: &OnnxTensor) -> String {
        let Some(tensor) = &value.known else { return value.name.clone() };
        if let Some(name) = self.references.borrow().get(&value.name) {
            return name.clone();
        }
        let compute = self.precision.compute();
        let wanted = self.stored_type(tensor.numel());
        // Parameters are rounded already. Computed tables may need their full precision.
        let stored = if wanted == compute || round(tensor, wanted).equal(tensor) { wanted } else { compute };
        self.file.borrow_mut().weight(&value.name, tensor, stored);
        self.widened(&value.name, stored)
    }

    /// The name that nodes use for an initializer of this type, which is converted to the type of the arithmetic.
    pub(super) fn widened(&self, name: &str, stored: DataType) -> String {
        let compute = self.precision.compute();
        let mut used = name.to_string();
        if stored != compute {
            let widened = format!("{name}.f32");
            self.push("Cast", "", &[used], vec![widened.clone()], vec![AttributeProto::int("to", compute as i64)]);
            used = widened;
        }
        self.references.borrow_mut().insert(name.into(), used.clone());
        used
    }

    /// Converts a value.
    pub(super) fn cast(&self, value: &OnnxTensor, from: DataType, to: DataType) -> OnnxTensor {
        if from == to { value.clone() } else { self.node("Cast", &[value], vec![AttributeProto::int("to", to as i64)]) }
    }

    /// Converts an input in fp32 to the type of the arithmetic.
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

    /// The name itself, or with a number if it is in use.
    pub(super) fn unique(&self, name: String) -> String {
        let mut names = self.names.borrow_mut();
        let count = names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{}", *count - 1) }
    }

    /// Adds a node that is named by the current scope.
    pub(super) fn node(&self, op: &str, inputs: &[&OnnxTensor], attributes: Vec<AttributeProto>) -> OnnxTensor {
        let scope = self.scope.borrow().clone();
        let name = if scope.is_empty() { op.into() } else { format!("{scope}/{op}") };
        self.named_node(name, op, inputs, attributes)
    }

    /// Adds a node with this name, or the name with a number if it is in use.
    pub(super) fn named_node(&self, name: String, op: &str, inputs: &[&OnnxTensor], attributes: Vec<AttributeProto>) -> OnnxTensor {
        let inputs: Vec<String> = inputs.iter().map(|i| self.reference(i)).collect();
        let name = self.unique(name);
        self.push(op, "", &inputs, vec![name.clone()], attributes);
        OnnxTensor { name, known: None }
    }

    pub(super) fn integers(&self, values: &[i64]) -> OnnxTensor {
        let name = format!("{values:?}").replace(' ', "");
        if self.references.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            self.file.borrow_mut().integers(&name, values, &[values.len() as i64]);
        }
        OnnxTensor { name, known: None }
    }

    /// A number in the type of the arithmetic.
    pub(super) fn number(&self, value: f64) -> OnnxTensor {
        self.number_in(value, self.precision.compute())
    }

    pub(super) fn number_in(&self, value: f64, data_type: DataType) -> OnnxTensor {
        let value = value as f32;
        let name = if data_type == DataType::Float { format!("{value}") } else { format!("{value}.{data_type:?}") };
        if self.references.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            self.file.borrow_mut().number(&name, value, data_type);
        }
        OnnxTensor { name, known: None }
    }

    /// The value of this name.
    pub(super) fn named(&self, name: &str) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: None }
    }
}

/// Rounds to another type.
fn round(tensor: &Tensor, data_type: DataType) -> Tensor {
    tensor.to_kind(data_type.kind()).to_kind(Kind::Float)
}
