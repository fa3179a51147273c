//! Operations as nodes. What is computed from weights alone is computed now and stored.

use super::file::{Dim, GraphFile, Storage, value_info};
use super::proto::{AttributeProto, DataType, NodeProto};
use crate::graph::{Activation, BATCH_NORM_EPSILON, CausalAttention, Conv, Init, Linear, Ops, Params};
use crate::models::lora::Lora;
use anyhow::Result;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use tch::Tensor;

/// Weights with fewer values than this stay in fp32 whatever the storage: biases, norms, scales.
const SMALL: usize = 1024;

/// Writes a model as an ONNX graph.
pub struct Writer<'a> {
    params: &'a Params,
    storage: Storage,
    lora: Option<&'a Lora>,
    /// Longest context that rotary tables are written for.
    max_positions: i64,
    file: RefCell<GraphFile>,
    stored: RefCell<BTreeSet<String>>,
    scope: RefCell<String>,
    count: Cell<usize>,
}

/// A value of the graph, or something known already that is stored when a node needs it.
#[derive(Debug)]
pub struct OnnxTensor {
    name: String,
    known: Option<Tensor>,
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
    pub fn create(path: &Path, name: &str, params: &'a Params, storage: Storage) -> Result<Self> {
        Ok(Self {
            params,
            storage,
            lora: None,
            max_positions: 0,
            file: RefCell::new(GraphFile::create(path, name)?),
            stored: Default::default(),
            scope: Default::default(),
            count: Cell::new(0),
        })
    }

    /// Merges adapters into the linear layers, and prepares rotary tables for a decoder.
    pub fn decoder(mut self, lora: &'a Lora, max_positions: i64) -> Self {
        self.lora = Some(lora);
        self.max_positions = max_positions;
        self
    }

    /// Declares an input.
    pub fn input(&self, name: &str, data_type: DataType, dims: &[Dim]) -> OnnxTensor {
        self.file.borrow_mut().graph.input.push(value_info(name, data_type, dims));
        OnnxTensor { name: name.into(), known: None }
    }

    /// Declares an output: the value takes this name.
    pub fn output(&self, value: &OnnxTensor, name: &str, dims: &[Dim]) {
        let mut file = self.file.borrow_mut();
        for node in &mut file.graph.node {
            for slot in node.input.iter_mut().chain(&mut node.output).filter(|s| **s == value.name) {
                *slot = name.into();
            }
        }
        file.graph.output.push(value_info(name, DataType::Float, dims));
    }

    /// Writes the files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(self) -> Result<()> {
        self.file.into_inner().finish()
    }

    fn known(&self, name: impl Into<String>, tensor: Tensor) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: Some(tensor) }
    }

    /// The name that a node uses for a value; what is known is stored first.
    fn reference(&self, value: &OnnxTensor) -> String {
        let Some(tensor) = &value.known else { return value.name.clone() };
        let narrow = self.storage == Storage::F16 && tensor.numel() >= SMALL;
        let widened = format!("{}.f32", value.name);
        if self.stored.borrow_mut().insert(value.name.clone()) {
            let storage = if narrow { self.storage } else { Storage::F32 };
            self.file.borrow_mut().weight(&value.name, tensor, storage);
            if narrow {
                self.push("Cast", "", &[value.name.clone()], vec![widened.clone()], vec![AttributeProto::int("to", DataType::Float as i64)]);
            }
        }
        if narrow { widened } else { value.name.clone() }
    }

    fn push(&self, op: &str, domain: &str, inputs: &[String], outputs: Vec<String>, attribute: Vec<AttributeProto>) {
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

    fn fresh(&self, op: &str) -> String {
        self.count.set(self.count.get() + 1);
        format!("{}/{op}.{}", self.scope.borrow(), self.count.get())
    }

    fn node(&self, op: &str, inputs: &[&OnnxTensor], attributes: Vec<AttributeProto>) -> OnnxTensor {
        let inputs: Vec<String> = inputs.iter().map(|i| self.reference(i)).collect();
        let name = self.fresh(op);
        self.push(op, "", &inputs, vec![name.clone()], attributes);
        OnnxTensor { name, known: None }
    }

    fn integers(&self, values: &[i64]) -> OnnxTensor {
        let name = format!("{values:?}").replace(' ', "");
        if self.stored.borrow_mut().insert(name.clone()) {
            self.file.borrow_mut().integers(&name, values, &[values.len() as i64]);
        }
        OnnxTensor { name, known: None }
    }

    fn number(&self, value: f64) -> OnnxTensor {
        let name = format!("{value:e}");
        if self.stored.borrow_mut().insert(name.clone()) {
            self.file.borrow_mut().number(&name, value as f32);
        }
        OnnxTensor { name, known: None }
    }

    fn named(&self, name: &str) -> OnnxTensor {
        OnnxTensor { name: name.into(), known: None }
    }

    /// A convolution whose kernel and bias are known.
    fn convolution(&self, x: &OnnxTensor, name: &str, kernel: Tensor, bias: Tensor, size: Conv) -> OnnxTensor {
        let pad = size.kernel / 2;
        let (kernel, bias) = (self.known(format!("{name}.weight"), kernel), self.known(format!("{name}.bias"), bias));
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[size.kernel; 2]),
            AttributeProto::ints("pads", &[pad; 4]),
            AttributeProto::ints("strides", &[size.stride; 2]),
        ];
        self.node("Conv", &[x, &kernel, &bias], attributes)
    }

    /// Cosines or sines of the rotary positions, `[max_positions, head_dim / 2]`.
    fn rotary(&self, spec: &CausalAttention, name: &str, f: fn(f64) -> f64) -> OnnxTensor {
        let frequencies = spec.frequencies();
        let values: Vec<f32> =
            (0..self.max_positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect();
        let table = Tensor::from_slice(&values).reshape([self.max_positions, -1]);
        let name = format!("rotary.{name}.{}", spec.theta / spec.factor);
        // Always in fp32: half precision would move far positions.
        if self.stored.borrow_mut().insert(name.clone()) {
            self.file.borrow_mut().weight(&name, &table, Storage::F32);
        }
        self.named(&name)
    }
}

impl Ops for Writer<'_> {
    type Tensor = OnnxTensor;

    fn weight(&self, name: &str, shape: &[i64], init: Init) -> OnnxTensor {
        self.known(name, self.params.weight(name, shape, init))
    }

    fn constant(&self, name: &str, values: &[f32], shape: &[i64]) -> OnnxTensor {
        self.known(name, Tensor::from_slice(values).reshape(shape))
    }

    fn linear(&self, x: &OnnxTensor, name: &str, size: Linear) -> OnnxTensor {
        let shape = [size.outputs, size.inputs];
        let mut weight = self.params.weight(&format!("{name}.weight"), &shape, Init::Fan);
        if let Some(lora) = self.lora.filter(|l| l.adapts(name) && self.params.get(&format!("{name}.lora_A.weight")).is_some()) {
            let a = self.params.weight(&format!("{name}.lora_A.weight"), &[lora.rank, size.inputs], Init::Zeros);
            let b = self.params.weight(&format!("{name}.lora_B.weight"), &[size.outputs, lora.rank], Init::Zeros);
            weight = weight + b.matmul(&a) * lora.scale();
        }
        let out = self.node("MatMul", &[x, &self.known(format!("{name}.weight"), weight.tr())], vec![]);
        if !size.bias {
            return out;
        }
        let bias = self.params.weight(&format!("{name}.bias"), &[size.outputs], Init::Zeros);
        self.node("Add", &[&out, &self.known(format!("{name}.bias"), bias)], vec![])
    }

    fn conv_norm(&self, x: &OnnxTensor, name: &str, norm: &str, size: Conv) -> OnnxTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let kernel = self.params.weight(&format!("{name}.weight"), &shape, Init::Kaiming);
        let part = |part: &str, init| self.params.weight(&format!("{norm}.{part}"), &[size.outputs], init);
        let deviation = (part("running_var", Init::Ones) + BATCH_NORM_EPSILON).sqrt();
        let scale = part("weight", Init::Ones) / deviation;
        let bias = part("bias", Init::Zeros) - part("running_mean", Init::Zeros) * &scale;
        self.convolution(x, name, kernel * scale.reshape([-1, 1, 1, 1]), bias, size)
    }

    fn conv(&self, x: &OnnxTensor, name: &str, size: Conv) -> OnnxTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let kernel = self.params.weight(&format!("{name}.weight"), &shape, Init::Xavier);
        let bias = self.params.weight(&format!("{name}.bias"), &[size.outputs], Init::Zeros);
        self.convolution(x, name, kernel, bias, size)
    }

    fn max_pool(&self, x: &OnnxTensor) -> OnnxTensor {
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[3, 3]),
            AttributeProto::ints("pads", &[1; 4]),
            AttributeProto::ints("strides", &[2, 2]),
        ];
        self.node("MaxPool", &[x], attributes)
    }

    fn layer_norm(&self, x: &OnnxTensor, name: &str, width: i64, epsilon: f64) -> OnnxTensor {
        let part = |part: &str, init| self.weight(&format!("{name}.{part}"), &[width], init);
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        self.node("LayerNormalization", &[x, &part("weight", Init::Ones), &part("bias", Init::Zeros)], attributes)
    }

    fn rms_norm(&self, x: &OnnxTensor, name: &str, width: i64, epsilon: f64) -> OnnxTensor {
        let name = format!("{name}.weight");
        let scale = self.known(&name, self.params.weight(&name, &[width], Init::Zeros) + 1.0);
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        self.node("SimplifiedLayerNormalization", &[x, &scale], attributes)
    }

    fn activate(&self, x: &OnnxTensor, activation: Activation) -> OnnxTensor {
        match activation {
            Activation::Relu => self.node("Relu", &[x], vec![]),
            Activation::Sigmoid => self.node("Sigmoid", &[x], vec![]),
            Activation::Gelu => self.node("Gelu", &[x], vec![]),
            Activation::GeluTanh => self.node("Gelu", &[x], vec![AttributeProto::string("approximate", "tanh")]),
        }
    }

    fn softmax(&self, x: &OnnxTensor) -> OnnxTensor {
        self.node("Softmax", &[x], vec![AttributeProto::int("axis", -1)])
    }

    fn add(&self, a: &OnnxTensor, b: &OnnxTensor) -> OnnxTensor {
        match (&a.known, &b.known) {
            (Some(x), Some(y)) => self.known(format!("{}+{}", a.name, b.name), x + y),
            _ => self.node("Add", &[a, b], vec![]),
        }
    }

    fn mul(&self, a: &OnnxTensor, b: &OnnxTensor) -> OnnxTensor {
        self.node("Mul", &[a, b], vec![])
    }

    fn scale(&self, x: &OnnxTensor, factor: f64) -> OnnxTensor {
        match &x.known {
            Some(known) => self.known(format!("{}*{factor}", x.name), known * factor),
            None => self.node("Mul", &[x, &self.number(factor)], vec![]),
        }
    }

    fn matmul(&self, a: &OnnxTensor, b: &OnnxTensor) -> OnnxTensor {
        self.node("MatMul", &[a, b], vec![])
    }

    fn reshape(&self, x: &OnnxTensor, shape: &[i64]) -> OnnxTensor {
        match &x.known {
            Some(known) if !shape.contains(&0) => self.known(x.name.clone(), known.reshape(shape)),
            _ => self.node("Reshape", &[x, &self.integers(shape)], vec![]),
        }
    }

    fn transpose(&self, x: &OnnxTensor, order: &[i64]) -> OnnxTensor {
        match &x.known {
            // What is stored already (an embedding table that is the head too) is not stored twice.
            Some(known) if !self.stored.borrow().contains(&x.name) => self.known(format!("{}.T", x.name), known.permute(order)),
            _ => self.node("Transpose", &[x], vec![AttributeProto::ints("perm", order)]),
        }
    }

    fn concat(&self, parts: &[&OnnxTensor], axis: i64) -> OnnxTensor {
        let known: Option<Vec<&Tensor>> = parts.iter().map(|p| p.known.as_ref()).collect();
        match known {
            Some(known) => {
                let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
                self.known(names.join("|"), Tensor::cat(&known, axis))
            }
            None => self.node("Concat", parts, vec![AttributeProto::int("axis", axis)]),
        }
    }

    fn slice(&self, x: &OnnxTensor, axis: i64, from: i64, to: i64) -> OnnxTensor {
        match &x.known {
            Some(known) => self.known(format!("{}[{from}:{to}]", x.name), known.slice(axis, from, to, 1)),
            None => self.node("Slice", &[x, &self.integers(&[from]), &self.integers(&[to]), &self.integers(&[axis])], vec![]),
        }
    }

    fn repeat_batch(&self, x: &OnnxTensor, like: &OnnxTensor) -> OnnxTensor {
        let attributes = vec![AttributeProto::int("start", 0), AttributeProto::int("end", 1)];
        let batch = self.node("Shape", &[like], attributes);
        let shape = self.node("Concat", &[&batch, &self.integers(&[1, 1])], vec![AttributeProto::int("axis", 0)]);
        self.node("Expand", &[x, &shape], vec![])
    }

    fn dropout(&self, x: &OnnxTensor, _: f64) -> OnnxTensor {
        x.clone()
    }

    fn scope(&self, name: &str) {
        *self.scope.borrow_mut() = name.into();
    }

    fn embed_tokens(&self, table: &OnnxTensor, scale: f64) -> OnnxTensor {
        let index = self.named("visual_index");
        let text = self.scale(&self.node("Gather", &[table, &self.named("input_ids")], vec![]), scale);
        let zero = self.integers(&[0]);
        let rows = self.node("Gather", &[&self.named("visual_features"), &self.node("Max", &[&index, &zero], vec![])], vec![]);
        let taken = self.node("GreaterOrEqual", &[&index, &zero], vec![]);
        let taken = self.node("Unsqueeze", &[&taken, &self.integers(&[-1])], vec![]);
        self.node("Where", &[&taken, &rows, &text], vec![])
    }

    fn causal_attention(&self, q: &OnnxTensor, k: &OnnxTensor, v: &OnnxTensor, spec: &CausalAttention) -> OnnxTensor {
        let layer = spec.layer;
        let cache = |what: &str, part: &str| format!("{what}.{layer}.{part}");
        let dims = [Dim::Free("batch"), Dim::Is(spec.kv_heads), Dim::Free("capacity"), Dim::Is(spec.head_dim)];
        let past = ["key", "value"].map(|part| self.input(&cache("past_key_values", part), DataType::Float, &dims));
        let (cos, sin) = (self.rotary(spec, "cos", f64::cos), self.rotary(spec, "sin", f64::sin));
        let others = [&self.named("seqlens_k"), &self.named("total_sequence_length"), &cos, &sin];
        let inputs: Vec<String> = [q, k, v, &past[0], &past[1]].into_iter().chain(others).map(|i| self.reference(i)).collect();
        let out = self.fresh("GroupQueryAttention");
        let present = ["key", "value"].map(|part| cache("present", part));
        let attributes = vec![
            AttributeProto::int("num_heads", spec.heads),
            AttributeProto::int("kv_num_heads", spec.kv_heads),
            AttributeProto::float("scale", spec.scale as f32),
            AttributeProto::int("local_window_size", spec.window.unwrap_or(-1)),
            AttributeProto::int("do_rotary", 1),
            AttributeProto::int("rotary_interleaved", 0),
        ];
        self.push("GroupQueryAttention", "com.microsoft", &inputs, vec![out.clone(), present[0].clone(), present[1].clone()], attributes);
        for name in &present {
            self.file.borrow_mut().graph.output.push(value_info(name, DataType::Float, &dims));
        }
        OnnxTensor { name: out, known: None }
    }

    fn select_positions(&self, x: &OnnxTensor) -> OnnxTensor {
        self.node("Gather", &[x, &self.named("logit_positions")], vec![AttributeProto::int("axis", 1)])
    }
}

