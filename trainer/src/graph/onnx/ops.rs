//! The operations of [`Ops`] as nodes. Values that depend on weights alone are computed at export and stored.

use super::int8::quantized_rows;
use super::precision::Operators;
use super::proto::{AttributeProto, DataType};
use super::writer::{OnnxTensor, Writer};
use super::written::StoredAs;
use crate::graph::{Activation, BATCH_NORM_EPSILON, CausalAttention, Conv, Init, Linear, Ops};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Prefix of the linear layers that are quantised to 8 bits. Heads stay in fp32 because they are small, and an image encoder that is a
/// transformer stays in fp32 because its activations have outliers, for which 256 values are too few.
const QUANTIZED: &str = "transformer.";
/// Layers whose names have all these parts stay in fp32, because their errors add up from layer to layer. With random weights of the
/// published size, image tokens deviate by 3 %, as with convolutions in 8 bits alone; if these layers are quantised, too, they deviate by
/// 14 %. Keeping them in fp32 takes 3 % more time.
const EXACT: [&str; 2] = ["transformer.encoder.", ".self_attn."];

/// Whether a product with this weight may be quantised to 8 bits.
fn is_quantized(name: &str) -> bool {
    !EXACT.iter().all(|part| name.contains(part))
}

/// Square roots in fp64, computed by the processor's instruction. The last bits of those of libtorch's math library depend on the
/// processor.
fn roots(values: &Tensor) -> Tensor {
    let mut roots = vec![0f64; values.numel()];
    values.contiguous().copy_data(&mut roots, values.numel());
    roots.iter_mut().for_each(|value| *value = value.sqrt());
    Tensor::from_slice(&roots).view_as(values)
}

impl Writer<'_> {
    /// The weight `[out, in]` of a linear layer, with its adapter merged.
    fn merged(&self, name: &str, size: Linear) -> Tensor {
        let own = |part: &str| format!("{name}.{part}");
        let weight = self.params.weight(&own("weight"), &[size.outputs, size.inputs], Init::Fan);
        let adapter = self.lora.filter(|l| l.adapts(name) && self.params.shape(&own("lora_A.weight")).is_some());
        let Some(lora) = adapter else { return weight };
        let a = self.params.weight(&own("lora_A.weight"), &[lora.rank, size.inputs], Init::Zeros);
        let b = self.params.weight(&own("lora_B.weight"), &[size.outputs, lora.rank], Init::Zeros);
        lora.merged(&weight, &a, &b)
    }

    /// Writes `x W^T` with the weight `name`. `out` is the name of the node, `parameters` are the names of ranges of rows.
    fn product(&self, x: &OnnxTensor, out: String, name: String, weight: &Tensor, parameters: Vec<(String, Range<i64>)>) -> OnnxTensor {
        if let Some(bits) = self.precision.bits() {
            return self.quantized_product(x, out, &name, weight, bits, parameters);
        }
        if let Some(x) = (name.starts_with(QUANTIZED) && is_quantized(&name)).then(|| self.activation(x)).flatten() {
            let (quantized, dequantized) = self.quantized_matrix(&name, weight);
            for (parameter, rows) in parameters {
                self.kept.insert(&parameter, dequantized.slice(0, rows.start, rows.end, 1));
            }
            return self.named_node(out, "MatMul", &[&x, &quantized], vec![]);
        }
        let stored_as = parameters.into_iter().map(|(parameter, rows)| (parameter, StoredAs::Transposed(name.clone(), rows)));
        self.stored_as.borrow_mut().extend(stored_as);
        self.named_node(out, "MatMul", &[x, &self.known(name, weight.tr())], vec![])
    }

    /// Computes in fp32, for operators that do not exist in the type of the arithmetic.
    pub(super) fn in_float(&self, x: &OnnxTensor, compute: impl FnOnce(&OnnxTensor) -> OnnxTensor) -> OnnxTensor {
        let own = self.precision.compute();
        self.cast(&compute(&self.cast(x, own, DataType::Float)), DataType::Float, own)
    }
}

impl Ops for Writer<'_> {
    type Tensor = OnnxTensor;

    fn weight(&self, name: &str, shape: &[i64], init: Init) -> OnnxTensor {
        self.known(name, self.parameter(name, shape, init))
    }

    fn constant(&self, name: &str, values: &[f32], shape: &[i64]) -> OnnxTensor {
        self.known(name, Tensor::from_slice(values).reshape(shape))
    }

    fn linear(&self, x: &OnnxTensor, name: &str, size: Linear) -> OnnxTensor {
        let own = |part: &str| format!("{name}.{part}");
        let product = if size.bias { own("MatMul") } else { name.into() };
        let weight = self.rounded(&own("weight"), self.merged(name, size));
        let out = self.product(x, product, own("weight"), &weight, vec![(own("weight"), 0..size.outputs)]);
        if !size.bias {
            return out;
        }
        self.named_node(name.into(), "Add", &[&out, &self.weight(&own("bias"), &[size.outputs], Init::Zeros)], vec![])
    }

    fn linears<const N: usize>(&self, x: &OnnxTensor, merged: &str, inputs: i64, layers: [(String, i64); N]) -> [OnnxTensor; N] {
        // One product takes less time than several, because each operator has a fixed cost.
        let (mut weights, mut parameters, mut outputs, mut from) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (name, rows) in &layers {
            let weight = format!("{name}.weight");
            weights.push(self.rounded(&weight, self.merged(name, Linear::new(inputs, *rows).without_bias())));
            parameters.push((weight, from..from + rows));
            outputs.push(*rows);
            from += rows;
        }
        let product = self.product(x, merged.into(), format!("{merged}.weight"), &Tensor::cat(&weights, 0), parameters);
        let parts = layers.map(|(name, _)| self.named(&self.unique(name)));
        let names = parts.iter().map(|part| part.name.clone()).collect();
        let inputs = [self.reference(&product), self.reference(&self.integers(&outputs))];
        self.push("Split", "", &inputs, names, vec![AttributeProto::int("axis", -1)]);
        parts
    }

    fn linear_part(&self, x: &OnnxTensor, [weight, bias]: [&str; 2], [rows, inputs]: [i64; 2], part: Range<i64>) -> OnnxTensor {
        let whole = self.parameter(weight, &[rows, inputs], Init::Xavier);
        let name = format!("{weight}[{}:{}]", part.start, part.end);
        let own = whole.slice(0, part.start, part.end, 1);
        let product = match is_quantized(weight).then(|| self.activation(x)).flatten() {
            Some(x) => {
                // Each row has a scale of its own, so a part is quantised like the whole.
                self.kept.insert(weight, quantized_rows(&whole).dequantize());
                self.node("MatMul", &[&x, &self.quantized_matrix(&name, &own).0], vec![])
            }
            None => self.node("MatMul", &[x, &self.known(format!("{name}.T"), own.tr())], vec![]),
        };
        let bias = self.weight(bias, &[rows], Init::Zeros);
        self.add(&product, &self.slice(&bias, 0, part.start, part.end))
    }

    fn conv_norm(&self, x: &OnnxTensor, name: &str, norm: &str, size: Conv) -> OnnxTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let kernel = self.params.weight(&format!("{name}.weight"), &shape, Init::Kaiming);
        let part = |part: &str, init| self.params.weight(&format!("{norm}.{part}"), &[size.outputs], init).to_kind(Kind::Double);
        let scale = part("weight", Init::Ones) / roots(&(part("running_var", Init::Ones) + BATCH_NORM_EPSILON));
        let bias = part("bias", Init::Zeros) - part("running_mean", Init::Zeros) * &scale;
        let kernel = (kernel.to_kind(Kind::Double) * scale.reshape([-1, 1, 1, 1])).to_kind(Kind::Float);
        let bias = self.keep(&format!("{norm}.bias"), bias.to_kind(Kind::Float));
        // The kernel has taken the norm's factors, so the norm that is kept only adds its bias.
        let constant = |part: &str, value: f64| {
            self.kept.insert(&format!("{norm}.{part}"), Tensor::full([size.outputs], value, (Kind::Float, Device::Cpu)));
        };
        constant("weight", 1.0);
        constant("running_mean", 0.0);
        constant("running_var", 1.0 - BATCH_NORM_EPSILON);
        self.convolution(x, name, kernel, bias, size)
    }

    fn pixels(&self, x: &OnnxTensor, name: &str, Linear { inputs, outputs, .. }: Linear) -> OnnxTensor {
        let weight = format!("{name}.weight");
        let kernel = self.params.weight(&weight, &[outputs, inputs, 1, 1], Init::Xavier);
        let bias = self.parameter(&format!("{name}.bias"), &[outputs], Init::Zeros);
        if self.calibration.is_applied()
            && let Some(x) = self.activation(x)
        {
            // A matrix product, because its result is not quantised. In 8 bits its operator takes the channels innermost.
            let rows = self.reshape(&self.transpose(&x, &[0, 2, 3, 1]), &[0, -1, inputs]);
            let (quantized, dequantized) = self.quantized_matrix(&weight, &kernel.reshape([outputs, inputs]));
            self.kept.insert(&weight, dequantized.reshape([outputs, inputs, 1, 1]));
            let product = self.named_node(format!("{name}.MatMul"), "MatMul", &[&rows, &quantized], vec![]);
            return self.named_node(name.into(), "Add", &[&product, &self.known(format!("{name}.bias"), bias)], vec![]);
        }
        let out = self.convolution(x, name, kernel, bias, Conv { inputs, outputs, kernel: 1, stride: 1 });
        self.transpose(&self.reshape(&out, &[0, outputs, -1]), &[0, 2, 1])
    }

    fn max_pool(&self, x: &OnnxTensor) -> OnnxTensor {
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[3, 3]),
            AttributeProto::ints("pads", &[1; 4]),
            AttributeProto::ints("strides", &[2, 2]),
        ];
        self.node("MaxPool", &[&self.activation(x).unwrap_or_else(|| x.clone())], attributes)
    }

    fn layer_norm(&self, x: &OnnxTensor, name: &str, width: i64, epsilon: f64) -> OnnxTensor {
        let part = |part: &str, init| self.weight(&format!("{name}.{part}"), &[width], init);
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        // The reshape prevents ONNX Runtime from fusing the norm with the sum before it, which takes three times as long on a CPU.
        let x = if self.calibration.is_wanted() { &self.reshape(x, &[0, -1, width]) } else { x };
        self.named_node(name.into(), "LayerNormalization", &[x, &part("weight", Init::Ones), &part("bias", Init::Zeros)], attributes)
    }

    fn rms_norm(&self, x: &OnnxTensor, name: &str, width: i64, epsilon: f64) -> OnnxTensor {
        let weight = format!("{name}.weight");
        let scale = self.known(&weight, self.parameter(&weight, &[width], Init::Zeros) + 1.0);
        if self.operators == Operators::Portable {
            return self.portable_rms_norm(x, name, &scale, epsilon);
        }
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        self.named_node(name.into(), "SimplifiedLayerNormalization", &[x, &scale], attributes)
    }

    fn activate(&self, x: &OnnxTensor, activation: Activation) -> OnnxTensor {
        match activation {
            Activation::Relu => self.node("Relu", &[x], vec![]),
            Activation::Sigmoid => self.node("Sigmoid", &[x], vec![]),
            Activation::Gelu => self.node("Gelu", &[x], vec![]),
            Activation::GeluTanh => self.in_float(x, |x| self.node("Gelu", &[x], vec![AttributeProto::string("approximate", "tanh")])),
        }
    }

    fn softmax(&self, x: &OnnxTensor) -> OnnxTensor {
        self.node("Softmax", &[x], vec![AttributeProto::int("axis", -1)])
    }

    fn add(&self, a: &OnnxTensor, b: &OnnxTensor) -> OnnxTensor {
        match (&a.known, &b.known) {
            (Some(x), Some(y)) => self.known(format!("{}+{}", a.name, b.name), x + y),
            (None, None) if self.calibration.is_applied() => match (self.activation(a), self.activation(b)) {
                (Some(a), Some(b)) => self.node("Add", &[&a, &b], vec![]),
                _ => self.node("Add", &[a, b], vec![]),
            },
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
            Some(known) if !shape.contains(&0) && !self.references.borrow().contains_key(&x.name) => {
                self.known(x.name.clone(), known.reshape(shape))
            }
            _ => self.node("Reshape", &[x, &self.integers(shape)], vec![]),
        }
    }

    fn transpose(&self, x: &OnnxTensor, order: &[i64]) -> OnnxTensor {
        match &x.known {
            // A table that is stored already (an embedding table that is also the output layer) is not stored twice.
            Some(known) if !self.references.borrow().contains_key(&x.name) => self.known(format!("{}.T", x.name), known.permute(order)),
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

    fn embed_tokens(&self, name: &str, size: [i64; 2], scale: f64) -> OnnxTensor {
        let index = self.named("visual_index");
        let text = self.embedded(name, size, scale);
        let zero = self.integers(&[0]);
        let rows = self.node("Gather", &[&self.named("visual_features"), &self.node("Max", &[&index, &zero], vec![])], vec![]);
        let taken = self.node("GreaterOrEqual", &[&index, &zero], vec![]);
        let taken = self.node("Unsqueeze", &[&taken, &self.integers(&[-1])], vec![]);
        self.entry(&self.node("Where", &[&taken, &rows, &text], vec![]))
    }

    fn logits(&self, x: &OnnxTensor, name: &str, size: [i64; 2]) -> OnnxTensor {
        self.head(x, name, size)
    }

    fn causal_attention(&self, q: &OnnxTensor, k: &OnnxTensor, v: &OnnxTensor, spec: &CausalAttention) -> OnnxTensor {
        match self.operators {
            Operators::Fused => self.fused_attention(q, k, v, spec),
            Operators::Portable => self.portable_attention(q, k, v, spec),
        }
    }

    fn select_positions(&self, x: &OnnxTensor) -> OnnxTensor {
        self.node("Gather", &[x, &self.named("logit_positions")], vec![AttributeProto::int("axis", 1)])
    }
}
