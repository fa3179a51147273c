//! Computation of models with libtorch, for training, evaluation and export.

use super::{Activation, Attention, CausalAttention, Conv, Init, Layer, Linear, Ops, Params};
use crate::distributed::Peers;
use crate::models::lora::Lora;
use std::cell::RefCell;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Number of rows in memory at a time of a table that is read from a file.
const TABLE_ROWS: i64 = 8192;

/// Weight of a batch's statistics in the running ones of a batch norm.
const MOMENTUM: f64 = 0.1;

/// An implementation of [`Ops`] that computes on libtorch tensors.
#[derive(Clone, Copy)]
pub struct Torch<'a> {
    /// Parameters of the model.
    pub params: &'a Params,
    /// Whether dropout is active and batch norms that are trained use the batch's statistics.
    pub training: bool,
    /// Adapters of linear layers.
    pub lora: Option<&'a Lora>,
    /// Input of a decoder.
    pub batch: Option<&'a CausalBatch>,
    /// Type of the computation, `Float` or `Double`. Parameters are stored in fp32 and converted when they are used; inputs must have this
    /// type.
    pub kind: Kind,
    /// Whether convolutions, matrix products and attention compute in bf16, as in PyTorch's autocast. Parameters, norms, and sums of a
    /// product with a value in the type of the computation keep that type; activations between products are in bf16.
    pub bf16: bool,
    /// The processes over whose images batch norms that are trained take their statistics.
    pub peers: Peers<'a>,
    /// What keeps the inputs of layers instead of their inner values; see [`Tape`].
    pub tape: Option<&'a Tape>,
}

/// A batch of token sequences for the decoder. One sequence may pack several questions over one context.
#[derive(Debug)]
pub struct CausalBatch {
    /// Token ids, `[B, T]`.
    pub ids: Tensor,
    /// Visual features `[V, hidden]`; `None` for text only.
    pub visual: Option<Tensor>,
    /// For each token its row of `visual`, or -1 for a text token, `[B, T]`.
    pub visual_index: Tensor,
    /// Position of each token, `[B, T]`. Each question of a pack continues from the context's end.
    pub positions: Tensor,
    /// Attention mask `[B, 1, T, T]`, boolean: true if the row's token attends to the column's.
    pub mask: Tensor,
    /// Indices into `B * T` of the positions whose logits are computed.
    pub selected: Tensor,
}

/// The layers of a forward pass in their order (gradient checkpointing), from which [`Tape::backward`] computes their gradients.
///
/// libtorch's own graph ends at each recorded layer: the layer's output is a leaf of it. So a backward pass has two parts: that of the
/// loss, which gives the gradients of the last outputs, and then that of the tape.
#[derive(Default)]
pub struct Tape {
    pub(super) layers: RefCell<Vec<Recorded>>,
}

/// Runs a layer on its inputs.
type Run = Box<dyn Fn(&Torch, &[TorchTensor]) -> TorchTensor>;

/// A layer that was run without keeping its inner values.
pub(super) struct Recorded {
    pub(super) run: Run,
    /// As the layer got them. They are outputs of earlier layers, or parts of libtorch's graph.
    pub(super) inputs: Vec<Tensor>,
    pub(super) output: Tensor,
    /// Seed of libtorch's generator, so that the same values are dropped again.
    pub(super) seed: i64,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape of {} layers", self.layers.borrow().len())
    }
}

impl<'a> Torch<'a> {
    /// Makes an instance for evaluation in fp32, without adapters.
    pub fn new(params: &'a Params) -> Self {
        Self { params, training: false, lora: None, batch: None, kind: Kind::Float, bf16: false, peers: Peers::alone(), tape: None }
    }

    /// Makes an instance that computes in fp64, without adapters, for values that must not depend on the machine.
    pub fn double(params: &'a Params) -> Self {
        Self { kind: Kind::Double, ..Self::new(params) }
    }

    /// The parameter of this name, converted to the type of the computation.
    fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.params.weight(name, shape, init).to_kind(self.kind)
    }

    /// A factor of a product, in the type in which products compute.
    fn factor(&self, x: &Tensor) -> Tensor {
        x.to_kind(if self.bf16 { Kind::BFloat16 } else { self.kind })
    }

    /// The parameter of this name as a factor of a product.
    fn matrix(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.factor(&self.params.weight(name, shape, init))
    }

    fn batch(&self) -> &CausalBatch {
        self.batch.expect("a decoder needs a batch")
    }
}

impl Ops for Torch<'_> {
    type Tensor = TorchTensor;

    fn weight(&self, name: &str, shape: &[i64], init: Init) -> TorchTensor {
        TorchTensor(self.parameter(name, shape, init))
    }

    fn constant(&self, _: &str, values: &[f32], shape: &[i64]) -> TorchTensor {
        TorchTensor(Tensor::from_slice(values).reshape(shape).to_device(self.params.device()).to_kind(self.kind))
    }

    fn linear(&self, x: &TorchTensor, name: &str, size: Linear) -> TorchTensor {
        let weight = self.matrix(&format!("{name}.weight"), &[size.outputs, size.inputs], size.init);
        let bias = size.bias.then(|| self.matrix(&format!("{name}.bias"), &[size.outputs], Init::Zeros));
        let mut out = self.factor(&x.0).linear(&weight, bias.as_ref());
        if let Some(lora) = self.lora.filter(|l| l.adapts(name)) {
            let a = self.matrix(&format!("{name}.lora_A.weight"), &[lora.rank, size.inputs], Init::Fan);
            let b = self.matrix(&format!("{name}.lora_B.weight"), &[size.outputs, lora.rank], Init::Zeros);
            let low = self.factor(&x.0.dropout(lora.dropout, self.training)).linear(&a, None::<&Tensor>);
            out += low.linear(&b, None::<&Tensor>) * lora.scale();
        }
        TorchTensor(out)
    }

    fn linear_part(&self, x: &TorchTensor, [weight, bias]: [&str; 2], [rows, inputs]: [i64; 2], part: Range<i64>) -> TorchTensor {
        let weight = self.matrix(weight, &[rows, inputs], Init::Xavier).slice(0, part.start, part.end, 1);
        let bias = self.matrix(bias, &[rows], Init::Zeros).slice(0, part.start, part.end, 1);
        TorchTensor(self.factor(&x.0).matmul(&weight.tr()) + bias)
    }

    fn conv_norm(&self, x: &TorchTensor, name: &str, norm: &str, size: Conv) -> TorchTensor {
        let shape = [size.outputs, size.inputs, size.kernel, size.kernel];
        let weight = self.params.weight(&format!("{name}.weight"), &shape, Init::Kaiming);
        let conv = |weight: &Tensor, bias: Option<&Tensor>| {
            let (weight, bias) = (self.factor(weight), bias.map(|bias| self.factor(bias)));
            self.factor(&x.0).conv2d(&weight, bias.as_ref(), [size.stride; 2], [size.kernel / 2; 2], [1, 1], 1)
        };
        let part = |part: &str, init| self.parameter(&format!("{norm}.{part}"), &[size.outputs], init);
        let scale = part("weight", Init::Ones);
        let (bias, mean, var) = (part("bias", Init::Zeros), part("running_mean", Init::Zeros), part("running_var", Init::Ones));
        if self.training && !scale.requires_grad() {
            // A frozen norm uses its running statistics in training, too, like torchvision's FrozenBatchNorm2d. It is part of the kernel
            // then, so that no gradient passes the norm and the backward pass does not need the norm's input.
            let factor = scale * (&var + super::BATCH_NORM_EPSILON).rsqrt();
            return TorchTensor(conv(&(weight * factor.reshape([-1, 1, 1, 1])), Some(&(bias - mean * &factor))));
        }
        let out = conv(&weight, None);
        if self.training && self.peers.count() > 1 {
            return TorchTensor(norm_of_processes(self.peers, &out.to_kind(self.kind), [&scale, &bias, &mean, &var]));
        }
        let (live, epsilon) = (self.training, super::BATCH_NORM_EPSILON);
        TorchTensor(out.batch_norm(Some(&scale), Some(&bias), Some(&mean), Some(&var), live, MOMENTUM, epsilon, true))
    }

    fn pixels(&self, x: &TorchTensor, name: &str, size: Linear) -> TorchTensor {
        let weight = self.matrix(&format!("{name}.weight"), &[size.outputs, size.inputs, 1, 1], Init::Xavier);
        let bias = self.matrix(&format!("{name}.bias"), &[size.outputs], Init::Zeros);
        TorchTensor(self.factor(&x.0).conv2d(&weight, Some(&bias), [1, 1], [0, 0], [1, 1], 1).flatten(2, 3).transpose(1, 2))
    }

    fn max_pool(&self, x: &TorchTensor) -> TorchTensor {
        let pooled = x.0.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        // From here on activations have the channels innermost, as the kernels do. Different layouts would be copied in each layer.
        TorchTensor(pooled.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]))
    }

    fn layer_norm(&self, x: &TorchTensor, name: &str, width: i64, epsilon: f64) -> TorchTensor {
        let weight = self.parameter(&format!("{name}.weight"), &[width], Init::Ones);
        let bias = self.parameter(&format!("{name}.bias"), &[width], Init::Zeros);
        TorchTensor(x.0.to_kind(self.kind).layer_norm([width], Some(&weight), Some(&bias), epsilon, true))
    }

    fn rms_norm(&self, x: &TorchTensor, name: &str, width: i64, epsilon: f64) -> TorchTensor {
        let weight = self.parameter(&format!("{name}.weight"), &[width], Init::Zeros) + 1.0;
        let x = x.0.to_kind(self.kind);
        let mean = x.square().mean_dim([-1i64].as_slice(), true, self.kind);
        TorchTensor(x * (mean + epsilon).rsqrt() * weight)
    }

    fn activate(&self, x: &TorchTensor, activation: Activation) -> TorchTensor {
        TorchTensor(match activation {
            Activation::Relu => x.0.relu(),
            Activation::Gelu => x.0.gelu("none"),
            Activation::GeluTanh => x.0.gelu("tanh"),
            Activation::Sigmoid => x.0.to_kind(self.kind).sigmoid(),
        })
    }

    fn softmax(&self, x: &TorchTensor) -> TorchTensor {
        TorchTensor(x.0.softmax(-1, self.kind))
    }

    fn add(&self, a: &TorchTensor, b: &TorchTensor) -> TorchTensor {
        TorchTensor(&a.0 + &b.0)
    }

    fn mul(&self, a: &TorchTensor, b: &TorchTensor) -> TorchTensor {
        TorchTensor(&a.0 * &b.0)
    }

    fn scale(&self, x: &TorchTensor, factor: f64) -> TorchTensor {
        TorchTensor(&x.0 * factor)
    }

    fn matmul(&self, a: &TorchTensor, b: &TorchTensor) -> TorchTensor {
        TorchTensor(self.factor(&a.0).matmul(&self.factor(&b.0)))
    }

    fn reshape(&self, x: &TorchTensor, shape: &[i64]) -> TorchTensor {
        let size = x.0.size();
        let shape: Vec<i64> = shape.iter().enumerate().map(|(i, &d)| if d == 0 { size[i] } else { d }).collect();
        TorchTensor(x.0.reshape(shape))
    }

    fn transpose(&self, x: &TorchTensor, order: &[i64]) -> TorchTensor {
        TorchTensor(x.0.permute(order))
    }

    fn concat(&self, parts: &[&TorchTensor], axis: i64) -> TorchTensor {
        TorchTensor(Tensor::cat(&parts.iter().map(|p| &p.0).collect::<Vec<_>>(), axis))
    }

    fn slice(&self, x: &TorchTensor, axis: i64, from: i64, to: i64) -> TorchTensor {
        TorchTensor(x.0.slice(axis, from, to, 1))
    }

    fn repeat_batch(&self, x: &TorchTensor, like: &TorchTensor) -> TorchTensor {
        let mut size = x.0.size();
        size[0] = like.0.size()[0];
        TorchTensor(x.0.expand(size, false))
    }

    fn dropout(&self, x: &TorchTensor, probability: f64) -> TorchTensor {
        if self.training && probability > 0.0 { TorchTensor(x.0.dropout(probability, true)) } else { x.clone() }
    }

    fn scope(&self, _: &str) {}

    fn embed_tokens(&self, name: &str, size: [i64; 2], scale: f64) -> TorchTensor {
        let batch = self.batch();
        let text = if self.params.is_lazy(name) {
            let ids = Vec::<i64>::try_from(batch.ids.flatten(0, -1)).expect("token ids are integers");
            let rows: Vec<Tensor> = ids.iter().map(|&id| self.params.rows(name, &size, super::TABLE, id, 1)).collect();
            Tensor::cat(&rows, 0).reshape([batch.ids.size(), vec![size[1]]].concat())
        } else {
            Tensor::embedding(&self.params.weight(name, &size, super::TABLE), &batch.ids, -1, false, false)
        };
        let text = text.to_kind(self.kind) * scale;
        let Some(visual) = &batch.visual else { return TorchTensor(text) };
        let taken = batch.visual_index.ge(0).unsqueeze(-1);
        let size = text.size();
        let rows = visual.to_kind(self.kind).index_select(0, &batch.visual_index.clamp_min(0).flatten(0, -1)).reshape(&size);
        TorchTensor(rows.where_self(&taken, &text))
    }

    fn logits(&self, x: &TorchTensor, name: &str, size: [i64; 2]) -> TorchTensor {
        if !self.params.is_lazy(name) {
            return TorchTensor(self.factor(&x.0).matmul(&self.matrix(name, &size, super::TABLE).permute([1, 0])));
        }
        let parts: Vec<Tensor> = (0..size[0])
            .step_by(TABLE_ROWS as usize)
            .map(|from| {
                let rows = self.params.rows(name, &size, super::TABLE, from, TABLE_ROWS.min(size[0] - from));
                x.0.matmul(&rows.to_kind(self.kind).permute([1, 0]))
            })
            .collect();
        TorchTensor(Tensor::cat(&parts, -1))
    }

    fn causal_attention(&self, q: &TorchTensor, k: &TorchTensor, v: &TorchTensor, spec: &CausalAttention) -> TorchTensor {
        let batch = self.batch();
        let size = q.0.size();
        let heads = |x: &Tensor, n: i64| x.reshape([size[0], size[1], n, spec.head_dim]).transpose(1, 2);
        let frequencies: Vec<f32> = spec.frequencies().into_iter().map(|f| f as f32).collect();
        let frequencies = Tensor::from_slice(&frequencies).to_device(q.0.device());
        // Angles are always computed in fp32, as in transformers and in exported graphs.
        let angles = (batch.positions.to_kind(Kind::Float).unsqueeze(-1) * frequencies).to_kind(self.kind);
        let (cos, sin) = (angles.cos().unsqueeze(1), angles.sin().unsqueeze(1));
        let rotate = |x: Tensor| {
            let halves = x.chunk(2, -1);
            let (a, b) = (&halves[0], &halves[1]);
            Tensor::cat(&[a * &cos - b * &sin, b * &cos + a * &sin], -1)
        };
        let (q, k, v) = (rotate(heads(&q.0, spec.heads)), rotate(heads(&k.0, spec.kv_heads)), heads(&v.0, spec.kv_heads));
        let mask = match spec.window {
            Some(window) => {
                let positions = batch.positions.to_kind(Kind::Int);
                let distance = positions.unsqueeze(-1) - positions.unsqueeze(-2);
                batch.mask.logical_and(&distance.lt(window).unsqueeze(1))
            }
            None => batch.mask.shallow_clone(),
        };
        let groups = spec.heads / spec.kv_heads;
        let (k, v) = (k.repeat_interleave_self_int(groups, 1, None), v.repeat_interleave_self_int(groups, 1, None));
        let [q, k, v] = [q, k, v].map(|x| self.factor(&x));
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&mask), 0.0, false, spec.scale, false);
        TorchTensor(out.transpose(1, 2).reshape(size))
    }

    fn select_positions(&self, x: &TorchTensor) -> TorchTensor {
        TorchTensor(x.0.flatten(0, 1).index_select(0, &self.batch().selected))
    }

    fn layer<const N: usize>(&self, layer: impl Layer<N>, inputs: [&TorchTensor; N]) -> TorchTensor {
        match self.tape {
            Some(tape) => tape.record(self, layer, inputs),
            None => layer.run(self, inputs),
        }
    }

    fn attention(&self, q: &TorchTensor, k: &TorchTensor, v: &TorchTensor, how: &Attention<TorchTensor>) -> TorchTensor {
        let &Attention { heads, width, mask, dropout } = how;
        let dropout = if self.training { dropout } else { 0.0 };
        let head = width / heads;
        let batch = k.0.size()[0];
        let split = |x: &TorchTensor| {
            let size = x.0.size();
            self.factor(&x.0).reshape([size[0], size[1], heads, head]).transpose(1, 2).expand([batch, heads, size[1], head], false)
        };
        let mask = mask.map(|mask| self.factor(&mask.0));
        let out = Tensor::scaled_dot_product_attention(&split(q), &split(k), &split(v), mask.as_ref(), dropout, false, None, false);
        TorchTensor(out.transpose(1, 2).reshape([batch, -1, width]))
    }
}

/// Batch norm of `x` `[B, C, H, W]` with the statistics of the images of all processes, which the running ones follow.
fn norm_of_processes(peers: Peers, x: &Tensor, [scale, bias, running_mean, running_var]: [&Tensor; 4]) -> Tensor {
    let channels = x.size()[1];
    let sum = |x: &Tensor| x.sum_dim_intlist([0i64, 2, 3].as_slice(), false, x.kind());
    let over = |x: &Tensor| x.reshape([1, channels, 1, 1]);
    let own = Tensor::full([1], x.numel() as f64 / channels as f64, (x.kind(), x.device()));
    let sums = peers.sum_with_gradient(&Tensor::cat(&[sum(x), own], 0));
    let (count, mean) = (sums.narrow(0, channels, 1).detach(), sums.narrow(0, 0, channels));
    let mean = mean / &count;
    let centred = x - over(&mean);
    let var = peers.sum_with_gradient(&sum(&centred.square())) / &count;
    tch::no_grad(|| {
        let follow = |running: &Tensor, new: Tensor| {
            let next = running * (1.0 - MOMENTUM) + new * MOMENTUM;
            running.shallow_clone().copy_(&next);
        };
        follow(running_mean, mean.detach());
        follow(running_var, var.detach() * &count / (&count - 1.0).clamp_min(1.0));
    });
    centred * over(&((var + super::BATCH_NORM_EPSILON).rsqrt() * scale)) + over(bias)
}

/// A tensor whose clones share its data.
#[derive(Debug)]
pub struct TorchTensor(pub Tensor);

impl Clone for TorchTensor {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}
