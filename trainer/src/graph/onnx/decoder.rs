//! Operations of decoders: embedding tables, products with quantised weights, and attention over the KV cache.

use super::file::{Dim, value_info};
use super::precision::Operators;
use super::proto::{AttributeProto, DataType};
use super::quantize::{BLOCK, Layout};
use super::writer::{OnnxTensor, Writer};
use super::written::StoredAs;
use crate::graph::{CausalAttention, Ops, TABLE};
use anatomix::parts::bundle::SLIDING_PLACES;
use std::ops::Range;
use tch::Tensor;

/// Domain of ONNX Runtime's own operators.
const CONTRIB: &str = "com.microsoft";
/// Number of rows of a table that are in memory at a time.
const ROWS: i64 = 4096;
/// Bias of masked scores. It is finite in fp32 and bf16.
const MASKED: f64 = -1e30;

impl Writer<'_> {
    /// Stores a table without quantisation, in blocks of rows. Returns the value that nodes use.
    fn table(&self, name: &str, size: [i64; 2]) -> OnnxTensor {
        let [rows, columns] = size;
        let values = (rows * columns) as usize;
        let stored = self.stored_type(values);
        self.file.borrow_mut().begin(name, &size, stored, (values * stored.kind().elt_size_in_bytes()) as u64);
        for (from, count) in blocks(rows) {
            // `rounded` chooses the type by the size of the block, but the type is that of the whole table.
            let part = self.params.rows(name, &size, TABLE, from, count);
            let part = self.rounded(name, part.to_kind(stored.kind()).to_kind(tch::Kind::Float));
            self.file.borrow_mut().values(&part, stored);
        }
        self.stored_as.borrow_mut().insert(name.into(), StoredAs::Plain(name.into()));
        self.named(&self.widened(name, stored))
    }

    /// Quantises and stores a table that is read in blocks of rows. Returns the names of values, scales and zero points.
    fn store_table(&self, name: &str, size: [i64; 2], dims: &[i64], layout: Layout) -> [String; 3] {
        let names = self.store_blocks(name, dims, size[0], layout, |from, count| self.params.rows(name, &size, TABLE, from, count));
        self.stored_as.borrow_mut().insert(name.into(), StoredAs::Blocks { names: names.clone(), rows: 0..size[0], layout });
        names
    }

    /// Quantises and stores a matrix, of which `next` returns blocks of rows. Returns the names of values, scales and zero points.
    fn store_blocks(&self, name: &str, dims: &[i64], rows: i64, layout: Layout, next: impl Fn(i64, i64) -> Tensor) -> [String; 3] {
        let names = [name.to_string(), format!("{name}.scales"), format!("{name}.zeros")];
        let mut file = self.file.borrow_mut();
        file.begin(&names[0], dims, DataType::UInt8, rows as u64 * layout.row_bytes() as u64);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        for (from, count) in blocks(rows) {
            let part = self.rounded(name, next(from, count)).contiguous();
            let mut values = vec![0f32; part.numel()];
            part.copy_data(&mut values, part.numel());
            let quantized = layout.quantize(&values);
            file.append(&quantized.packed);
            scales.extend(quantized.scales);
            zeros.extend(quantized.zeros);
        }
        let width = layout.blocks() as i64;
        file.begin(&names[1], &[rows, width], DataType::Float, 4 * scales.len() as u64);
        file.append(&scales.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
        file.begin(&names[2], &[rows, layout.zero_bytes() as i64], DataType::UInt8, zeros.len() as u64);
        file.append(&zeros);
        drop(file);
        self.references.borrow_mut().insert(name.into(), name.into());
        names
    }

    /// Writes `x W^T` with quantised weights. `out` is the name of the node, `parameters` are the names of ranges of rows.
    pub(super) fn quantized_product(
        &self,
        x: &OnnxTensor,
        out: String,
        name: &str,
        weight: &Tensor,
        bits: u8,
        parameters: Vec<(String, Range<i64>)>,
    ) -> OnnxTensor {
        let (rows, columns) = (weight.size()[0], weight.size()[1]);
        let layout = Layout { bits, columns: columns as usize };
        let dims = [rows, layout.blocks() as i64, layout.block_bytes() as i64];
        let names = self.store_blocks(name, &dims, rows, layout, |from, count| weight.narrow(0, from, count));
        let stored_as =
            parameters.into_iter().map(|(parameter, rows)| (parameter, StoredAs::Blocks { names: names.clone(), rows, layout }));
        self.stored_as.borrow_mut().extend(stored_as);
        self.matmul_nbits(x, out, &names, rows, layout)
    }

    fn matmul_nbits(&self, x: &OnnxTensor, out: String, names: &[String; 3], rows: i64, layout: Layout) -> OnnxTensor {
        let out = self.unique(out);
        let inputs = [&[self.reference(x)], names.as_slice()].concat();
        let attributes = vec![
            AttributeProto::int("K", layout.columns as i64),
            AttributeProto::int("N", rows),
            AttributeProto::int("bits", i64::from(layout.bits)),
            AttributeProto::int("block_size", BLOCK as i64),
            // Activations are quantised to 8 bits in blocks, which is the fastest setting on CPUs.
            AttributeProto::int("accuracy_level", 4),
        ];
        self.push("MatMulNBits", CONTRIB, &inputs, vec![out.clone()], attributes);
        OnnxTensor { name: out, known: None }
    }

    /// Scaled embeddings of the tokens, in fp32.
    pub(super) fn embedded(&self, name: &str, size: [i64; 2], scale: f64) -> OnnxTensor {
        let ids = self.named("input_ids");
        let Some(bits) = self.precision.bits() else {
            let rows = self.node("Gather", &[&self.table(name, size), &ids], vec![]);
            let rows = self.cast(&rows, self.precision.compute(), DataType::Float);
            return self.node("Mul", &[&rows, &self.number_in(scale, DataType::Float)], vec![]);
        };
        let [rows, columns] = size;
        let layout = Layout { bits, columns: columns as usize };
        let dims = [rows, layout.row_bytes() as i64];
        let [packed, scales, zeros] = self.store_table(name, size, &dims, layout);
        let out = self.unique(format!("{}/GatherBlockQuantized", self.scope.borrow()));
        let attributes = vec![
            AttributeProto::int("bits", i64::from(bits)),
            AttributeProto::int("block_size", BLOCK as i64),
            AttributeProto::int("gather_axis", 0),
            AttributeProto::int("quantize_axis", 1),
        ];
        self.push("GatherBlockQuantized", CONTRIB, &[packed, ids.name, scales, zeros], vec![out.clone()], attributes);
        let mut text = OnnxTensor { name: out, known: None };
        if !layout.columns.is_multiple_of(BLOCK) {
            text = self.slice(&text, -1, 0, columns);
        }
        self.scale(&text, scale)
    }

    /// Logits: `x` times the transpose of a table, which may be the embedding table.
    pub(super) fn head(&self, x: &OnnxTensor, name: &str, size: [i64; 2]) -> OnnxTensor {
        let [rows, columns] = size;
        let tied = self.references.borrow().get(name).cloned();
        let Some(bits) = self.precision.bits() else {
            let transposed = match tied {
                // The embedding table is stored already.
                Some(used) => self.node("Transpose", &[&self.named(&used)], vec![AttributeProto::ints("perm", &[1, 0])]),
                None => self.known(format!("{name}.T"), self.parameter(name, &size, TABLE).permute([1, 0])),
            };
            return self.matmul(x, &transposed);
        };
        let layout = Layout { bits, columns: columns as usize };
        let dims = [rows, layout.blocks() as i64, layout.block_bytes() as i64];
        let names = if tied.is_some() {
            // This operator expects the same bytes in another shape.
            let packed = format!("{name}.blocks");
            self.file.borrow_mut().alias(&packed, name, &dims);
            [packed, format!("{name}.scales"), format!("{name}.zeros")]
        } else {
            self.store_table(name, size, &dims, layout)
        };
        let out = format!("{}/MatMulNBits", self.scope.borrow());
        self.matmul_nbits(x, out, &names, rows, layout)
    }

    /// Table of cosines or sines for the rotary embedding, `[max_positions, head_dim / 2]`.
    fn rotary(&self, spec: &CausalAttention, part: &str, f: fn(f64) -> f64) -> OnnxTensor {
        let name = format!("rotary.{}.{part}", kind(spec));
        if self.references.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            let frequencies = spec.frequencies();
            // Angles are in fp32, as in training and in transformers.
            let angle = |position: i64, frequency: f64| f64::from(position as f32 * frequency as f32);
            let values: Vec<f32> = (0..self.max_positions).flat_map(|p| frequencies.iter().map(move |w| f(angle(p, *w)) as f32)).collect();
            let table = Tensor::from_slice(&values).reshape([self.max_positions, -1]);
            // It is stored in the type of the arithmetic, because fp16 would change the angles of late positions.
            self.file.borrow_mut().weight(&name, &table, self.precision.compute());
        }
        self.named(&name)
    }

    /// Declares the layer's KV cache. Returns the inputs with past keys and values, and the names of the outputs with present ones.
    fn cache(&self, spec: &CausalAttention) -> ([OnnxTensor; 2], [String; 2]) {
        let cache = |what: &str, part: &str| format!("{what}.{}.{part}", spec.layer);
        let places = if self.slides(spec) { SLIDING_PLACES } else { "capacity" };
        let dims = [Dim::Free("batch"), Dim::Is(spec.kv_heads), Dim::Free(places), Dim::Is(spec.head_dim)];
        let compute = self.precision.compute();
        let past = ["key", "value"].map(|part| self.input(&cache("past_key_values", part), compute, &dims));
        let present = ["key", "value"].map(|part| cache("present", part));
        for name in &present {
            self.file.borrow_mut().caches.push(value_info(name, compute, &dims));
        }
        (past, present)
    }

    /// Whether a caller may bind the layer's cache from a later place on. This is so for layers with a window in fp32, because the CPU's
    /// attention operator would compute the scores of all places and discard those outside the window.
    fn slides(&self, spec: &CausalAttention) -> bool {
        spec.window.is_some() && self.operators == Operators::Fused && self.precision.compute() == DataType::Float
    }

    /// The last place of the layer's cache and the number of its places, which is the number of columns of its bias.
    fn lengths(&self, spec: &CausalAttention) -> [OnnxTensor; 2] {
        let (last, total) = (self.named("seqlens_k"), self.named("total_sequence_length"));
        if !self.slides(spec) {
            return [last, total];
        }
        let seen = self.shared("window/total", || {
            let part = vec![AttributeProto::int("start", 3), AttributeProto::int("end", 4)];
            let seen = self.node("Shape", &[&self.named(spec.bias())], part);
            self.node("Cast", &[&seen], vec![AttributeProto::int("to", DataType::Int32 as i64)])
        });
        let last = self.shared("window/last", || self.node("Sub", &[&last, &self.node("Sub", &[&total, &seen], vec![])], vec![]));
        [last, seen]
    }

    /// Attention as a single operator of ONNX Runtime.
    pub(super) fn fused_attention(&self, q: &OnnxTensor, k: &OnnxTensor, v: &OnnxTensor, spec: &CausalAttention) -> OnnxTensor {
        let (past, present) = self.cache(spec);
        let (cos, sin) = (self.rotary(spec, "cos", libm::cos), self.rotary(spec, "sin", libm::sin));
        let (positions, bias) = (self.named("position_ids"), self.bias(spec));
        let [last, total] = self.lengths(spec);
        let others = [&last, &total, &cos, &sin, &positions, &bias];
        let inputs: Vec<String> = [q, k, v, &past[0], &past[1]].into_iter().chain(others).map(|i| self.reference(i)).collect();
        let out = self.unique(format!("{}/attention", self.scope.borrow()));
        let attributes = vec![
            AttributeProto::int("num_heads", spec.heads),
            AttributeProto::int("kv_num_heads", spec.kv_heads),
            AttributeProto::float("scale", spec.scale as f32),
            AttributeProto::int("do_rotary", 1),
            AttributeProto::int("rotary_interleaved", 0),
        ];
        self.push("GroupQueryAttention", CONTRIB, &inputs, vec![out.clone(), present[0].clone(), present[1].clone()], attributes);
        OnnxTensor { name: out, known: None }
    }

    /// Attention in standard operators. Keys and values are scattered into the past cache, so that past and present may be the same buffer.
    /// The sequences of a batch must have the same length, or the unused places of shorter ones must hold finite numbers.
    pub(super) fn portable_attention(&self, q: &OnnxTensor, k: &OnnxTensor, v: &OnnxTensor, spec: &CausalAttention) -> OnnxTensor {
        let (past, present) = self.cache(spec);
        let (heads, pairs, width) = (spec.heads, spec.kv_heads, spec.head_dim);
        // [B, T, n * width] to [B, n, T, width]
        let split = |x: &OnnxTensor, n: i64| self.transpose(&self.reshape(x, &[0, -1, n, width]), &[0, 2, 1, 3]);
        let kind = kind(spec);
        let angles = |part: &str, f: fn(f64) -> f64| {
            self.shared(&format!("rotary/{kind}.{part}"), || {
                let rows = self.node("Gather", &[&self.rotary(spec, part, f), &self.named("position_ids")], vec![]);
                self.node("Unsqueeze", &[&rows, &self.integers(&[1])], vec![])
            })
        };
        let (cos, sin) = (angles("cos", libm::cos), angles("sin", libm::sin));
        let rotate = |x: &OnnxTensor| {
            let (a, b) = (self.slice(x, -1, 0, width / 2), self.slice(x, -1, width / 2, width));
            let first = self.node("Sub", &[&self.mul(&a, &cos), &self.mul(&b, &sin)], vec![]);
            self.concat(&[&first, &self.add(&self.mul(&b, &cos), &self.mul(&a, &sin))], -1)
        };
        let q = self.scale(&rotate(&split(q, heads)), spec.scale);
        let (k, v) = (rotate(&split(k, pairs)), split(v, pairs));

        let places = self.shared("cache/places", || {
            let at = self.node("Unsqueeze", &[&self.places(), &self.integers(&[1, 3])], vec![]);
            self.node("Expand", &[&at, &self.node("Shape", &[&k], vec![])], vec![])
        });
        let total = self.total();
        let seen = [(&past[0], &k, &present[0]), (&past[1], &v, &present[1])].map(|(past, new, present)| {
            let axis = vec![AttributeProto::int("axis", 2)];
            self.push("ScatterElements", "", &[past.name.clone(), places.name.clone(), new.name.clone()], vec![present.clone()], axis);
            // Places after the last token are not initialised.
            self.node("Slice", &[&self.named(present), &self.integers(&[0]), &total, &self.integers(&[2])], vec![])
        });
        // Queries in groups that share keys and values: [B, kv, group, T, width].
        let q = self.reshape(&q, &[0, pairs, heads / pairs, -1, width]);
        let [keys, values] = seen.map(|x| self.node("Unsqueeze", &[&x, &self.integers(&[2])], vec![]));
        let scores = self.matmul(&q, &self.transpose(&keys, &[0, 1, 2, 4, 3]));
        let scores = self.add(&scores, &self.causal_bias(spec));
        let mixed = self.matmul(&self.softmax(&scores), &values);
        let mixed = self.transpose(&self.reshape(&mixed, &[0, heads, -1, width]), &[0, 2, 1, 3]);
        self.reshape(&mixed, &[0, -1, heads * width])
    }

    /// The bias of a layer's scores, `[1, 1, T, total]`: 0 for visible places, -1e30 for masked ones.
    fn bias(&self, spec: &CausalAttention) -> OnnxTensor {
        let name = spec.bias();
        self.shared(&format!("bias/{name}"), || self.entry(&self.named(name)))
    }

    /// The same bias with later places masked, which the fused operator does itself. `[B, 1, 1, T, total]`
    fn causal_bias(&self, spec: &CausalAttention) -> OnnxTensor {
        self.shared(&format!("mask/{}", spec.bias()), || {
            let (zero, one) = (self.scalar(0), self.scalar(1));
            let total = self.node("Squeeze", &[&self.total()], vec![]);
            let places = self.node("Range", &[&zero, &total, &one], vec![]);
            let rows = self.node("Unsqueeze", &[&self.places(), &self.integers(&[1, 2, -1])], vec![]);
            let seen = self.node("GreaterOrEqual", &[&rows, &places], vec![]);
            self.node("Where", &[&seen, &self.bias(spec), &self.number(MASKED)], vec![])
        })
    }

    /// Place of each token in the cache, `[B, T]`. That of the last token is `seqlens_k`.
    fn places(&self) -> OnnxTensor {
        self.shared("places", || {
            let part = vec![AttributeProto::int("start", 1), AttributeProto::int("end", 2)];
            let count = self.node("Shape", &[&self.named("input_ids")], part);
            let offsets = self.node("Range", &[&self.scalar(0), &self.node("Squeeze", &[&count], vec![]), &self.scalar(1)], vec![]);
            let last = self.node("Cast", &[&self.named("seqlens_k")], vec![AttributeProto::int("to", DataType::Int64 as i64)]);
            let last = self.node("Unsqueeze", &[&last, &self.integers(&[1])], vec![]);
            let first = self.node("Sub", &[&self.node("Add", &[&last, &self.integers(&[1])], vec![]), &count], vec![]);
            self.node("Add", &[&first, &offsets], vec![])
        })
    }

    /// Number of all tokens, including those of this run, `[1]`.
    fn total(&self) -> OnnxTensor {
        self.shared("total", || {
            let total = self.named("total_sequence_length");
            let total = self.node("Cast", &[&total], vec![AttributeProto::int("to", DataType::Int64 as i64)]);
            self.node("Reshape", &[&total, &self.integers(&[1])], vec![])
        })
    }

    /// A value that several layers use. `make` is called for the first one, outside of the layer's scope.
    fn shared(&self, name: &str, make: impl FnOnce() -> OnnxTensor) -> OnnxTensor {
        let key = format!("shared {name}");
        if let Some(found) = self.references.borrow().get(&key) {
            return self.named(found);
        }
        let scope = self.scope.replace(name.into());
        let made = make();
        *self.scope.borrow_mut() = scope;
        self.references.borrow_mut().insert(key, made.name.clone());
        made
    }

    fn scalar(&self, value: i64) -> OnnxTensor {
        let name = format!("{value}.i64");
        if self.references.borrow_mut().insert(name.clone(), name.clone()).is_none() {
            self.file.borrow_mut().integers(&name, &[value], &[]);
        }
        self.named(&name)
    }

    /// The root-mean-square norm in standard operators. The mean is computed in fp32.
    pub(super) fn portable_rms_norm(&self, x: &OnnxTensor, name: &str, scale: &OnnxTensor, epsilon: f64) -> OnnxTensor {
        let normed = self.in_float(x, |x| {
            let mean = self.node("ReduceMean", &[&self.mul(x, x), &self.integers(&[-1])], vec![AttributeProto::int("keepdims", 1)]);
            let mean = self.node("Add", &[&mean, &self.number_in(epsilon, DataType::Float)], vec![]);
            self.node("Div", &[x, &self.node("Sqrt", &[&mean], vec![])], vec![])
        });
        self.named_node(name.into(), "Mul", &[&normed, scale], vec![])
    }
}

/// The kind of a layer in the names of a graph, which are part of exported bundles: a sliding layer is "local", a full one "global".
fn kind(spec: &CausalAttention) -> &'static str {
    if spec.window.is_some() { "local" } else { "global" }
}

/// First row and number of rows of each block.
fn blocks(rows: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows).step_by(ROWS as usize).map(move |from| (from, ROWS.min(rows - from)))
}
