//! Operations as nodes. What is computed from weights alone is computed now and stored.

use super::file::{Dim, Storage, value_info};
use super::proto::{AttributeProto, DataType};
use super::writer::{OnnxTensor, Writer};
use crate::graph::{Activation, BATCH_NORM_EPSILON, CausalAttention, Conv, Init, Linear, Ops};
use tch::{Device, Kind, Tensor};

impl Writer<'_> {
    fn convolution(&self, x: &OnnxTensor, name: &str, kernel: Tensor, bias: Tensor, size: Conv) -> OnnxTensor {
        let kernel = self.known(format!("{name}.weight"), kernel);
        let bias = self.known(format!("{name}.bias"), bias);
        let pad = size.kernel / 2;
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[size.kernel; 2]),
            AttributeProto::ints("pads", &[pad; 4]),
            AttributeProto::ints("strides", &[size.stride; 2]),
        ];
        self.named_node(name.into(), "Conv", &[x, &kernel, &bias], attributes)
    }

    /// Cosines or sines of the rotary positions, `[max_positions, head_dim / 2]`.
    fn rotary(&self, spec: &CausalAttention, part: &str, f: fn(f64) -> f64) -> OnnxTensor {
        let name = format!("rotary.{}.{part}", if spec.window.is_some() { "local" } else { "global" });
        if self.stored.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            let frequencies = spec.frequencies();
            // The angle in single precision, as the training reader and the published one have it.
            let angle = |position: i64, frequency: f64| f64::from(position as f32 * frequency as f32);
            let values: Vec<f32> = (0..self.max_positions).flat_map(|p| frequencies.iter().map(move |w| f(angle(p, *w)) as f32)).collect();
            let table = Tensor::from_slice(&values).reshape([self.max_positions, -1]);
            // Stored in fp32 always: half precision would move far positions.
            self.file.borrow_mut().weight(&name, &table, Storage::F32);
        }
        self.named(&name)
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
        let mut weight = self.params.weight(&own("weight"), &[size.outputs, size.inputs], Init::Fan);
        if let Some(lora) = self.lora.filter(|l| l.adapts(name) && self.params.get(&own("lora_A.weight")).is_some()) {
            let a = self.params.weight(&own("lora_A.weight"), &[lora.rank, size.inputs], Init::Zeros);
            let b = self.params.weight(&own("lora_B.weight"), &[size.outputs, lora.rank], Init::Zeros);
            // A new tensor: adding in place would change the parameter itself.
            weight = b.matmul(&a) * lora.scale() + weight;
        }
        let weight = self.known(own("weight"), self.settle(&own("weight"), weight).tr());
        if !size.bias {
            return self.named_node(name.into(), "MatMul", &[x, &weight], vec![]);
        }
        let out = self.named_node(own("MatMul"), "MatMul", &[x, &weight], vec![]);
        self.named_node(name.into(), "Add", &[&out, &self.weight(&own("bias"), &[size.outputs], Init::Zeros)], vec![])
    }

    fn conv_norm(&self, x: &OnnxTensor, name: &str, norm: &str, size: Conv) -> OnnxTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let kernel = self.params.weight(&format!("{name}.weight"), &shape, Init::Kaiming);
        let part = |part: &str, init| self.params.weight(&format!("{norm}.{part}"), &[size.outputs], init);
        let deviation = (part("running_var", Init::Ones) + BATCH_NORM_EPSILON).sqrt();
        let scale = part("weight", Init::Ones) / deviation;
        let bias = part("bias", Init::Zeros) - part("running_mean", Init::Zeros) * &scale;
        let kernel = self.settle(&format!("{name}.weight"), kernel * scale.reshape([-1, 1, 1, 1]));
        let bias = self.settle(&format!("{norm}.bias"), bias);
        // What is left of the norm adds its bias only.
        let constant = |part: &str, value: f64| {
            self.settled.insert(&format!("{norm}.{part}"), Tensor::full([size.outputs], value, (Kind::Float, Device::Cpu)));
        };
        constant("weight", 1.0);
        constant("running_mean", 0.0);
        constant("running_var", 1.0 - BATCH_NORM_EPSILON);
        self.convolution(x, name, kernel, bias, size)
    }

    fn conv(&self, x: &OnnxTensor, name: &str, size: Conv) -> OnnxTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let kernel = self.parameter(&format!("{name}.weight"), &shape, Init::Xavier);
        let bias = self.parameter(&format!("{name}.bias"), &[size.outputs], Init::Zeros);
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
        self.named_node(name.into(), "LayerNormalization", &[x, &part("weight", Init::Ones), &part("bias", Init::Zeros)], attributes)
    }

    fn rms_norm(&self, x: &OnnxTensor, name: &str, width: i64, epsilon: f64) -> OnnxTensor {
        let weight = format!("{name}.weight");
        let scale = self.known(&weight, self.parameter(&weight, &[width], Init::Zeros) + 1.0);
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        self.named_node(name.into(), "SimplifiedLayerNormalization", &[x, &scale], attributes)
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
            Some(known) if !shape.contains(&0) && !self.stored.borrow().contains_key(&x.name) => {
                self.known(x.name.clone(), known.reshape(shape))
            }
            _ => self.node("Reshape", &[x, &self.integers(shape)], vec![]),
        }
    }

    fn transpose(&self, x: &OnnxTensor, order: &[i64]) -> OnnxTensor {
        match &x.known {
            // What is stored already (an embedding table that is the head too) is not stored twice.
            Some(known) if !self.stored.borrow().contains_key(&x.name) => self.known(format!("{}.T", x.name), known.permute(order)),
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
        let out = self.unique(format!("{}/attention", self.scope.borrow()));
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
            self.file.borrow_mut().caches.push(value_info(name, DataType::Float, &dims));
        }
        OnnxTensor { name: out, known: None }
    }

    fn select_positions(&self, x: &OnnxTensor) -> OnnxTensor {
        self.node("Gather", &[x, &self.named("logit_positions")], vec![AttributeProto::int("axis", 1)])
    }
}
