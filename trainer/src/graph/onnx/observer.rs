//! [`Observer`], which finds the ranges of activations for an export in 8 bits.

use super::proto::DataType;
use super::writer::{OnnxTensor, Writer};
use super::{Dim, Ranges};
use crate::graph::{Activation, CausalAttention, Conv, Init, Linear, Ops, Params, Torch, TorchTensor};
use anyhow::Result;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, Tensor};

/// An implementation of [`Ops`] that computes a model in fp64 and writes it as a graph at the same time. The graph gives the names of the
/// activations, the tensors give their ranges.
pub struct Observer<'a> {
    torch: Torch<'a>,
    writer: Writer<'a>,
    /// Smallest and largest element of each computed value, by its name in the graph.
    ends: RefCell<BTreeMap<String, [f64; 2]>>,
}

/// A value in both implementations.
#[derive(Clone, Debug)]
pub struct Observed {
    computed: TorchTensor,
    written: OnnxTensor,
}

impl<'a> Observer<'a> {
    /// Makes an observer of a model with these parameters, in fp32.
    pub fn new(params: &'a Params) -> Self {
        Self { torch: Torch::double(params), writer: Writer::observing(params), ends: RefCell::default() }
    }

    /// Declares an input of the model, with its values.
    pub fn input(&self, name: &str, values: &Tensor) -> Observed {
        let dims: Vec<Dim> = values.size().into_iter().map(Dim::Is).collect();
        self.noted(TorchTensor(values.to_kind(Kind::Double)), self.writer.input(name, DataType::Float, &dims))
    }

    /// Adds the ranges of the activations that a graph in 8 bits would quantise. The model must have been run before.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn finish(self, ranges: &mut Ranges) -> Result<()> {
        let ends = self.ends.into_inner();
        self.writer
            .observed()
            .iter()
            .filter_map(|name| Some((name, ends.get(name)?)))
            .try_for_each(|(name, ends)| ranges.observe(name, *ends))
    }

    fn noted(&self, computed: TorchTensor, written: OnnxTensor) -> Observed {
        // Constants are not activations.
        if written.known.is_none() {
            let (low, high) = computed.0.aminmax(None, false);
            let ends = [low, high].map(|end| end.double_value(&[]));
            self.ends.borrow_mut().insert(written.name.clone(), ends);
        }
        Observed { computed, written }
    }
}

/// The results of an operation in both implementations.
macro_rules! both {
    ($self:ident.$operation:ident($($value:ident),*; $($argument:expr),*)) => {
        $self.noted(
            $self.torch.$operation($(&$value.computed,)* $($argument),*),
            $self.writer.$operation($(&$value.written,)* $($argument),*),
        )
    };
}

impl Ops for Observer<'_> {
    type Tensor = Observed;

    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Observed {
        both!(self.weight(; name, shape, init))
    }

    fn constant(&self, name: &str, values: &[f32], shape: &[i64]) -> Observed {
        both!(self.constant(; name, values, shape))
    }

    fn linear(&self, x: &Observed, name: &str, size: Linear) -> Observed {
        both!(self.linear(x; name, size))
    }

    fn linear_part(&self, x: &Observed, names: [&str; 2], size: [i64; 2], part: Range<i64>) -> Observed {
        both!(self.linear_part(x; names, size, part.clone()))
    }

    fn conv_norm(&self, x: &Observed, name: &str, norm: &str, size: Conv) -> Observed {
        both!(self.conv_norm(x; name, norm, size))
    }

    fn pixels(&self, x: &Observed, name: &str, size: Linear) -> Observed {
        both!(self.pixels(x; name, size))
    }

    fn max_pool(&self, x: &Observed) -> Observed {
        both!(self.max_pool(x;))
    }

    fn layer_norm(&self, x: &Observed, name: &str, width: i64, epsilon: f64) -> Observed {
        both!(self.layer_norm(x; name, width, epsilon))
    }

    fn rms_norm(&self, x: &Observed, name: &str, width: i64, epsilon: f64) -> Observed {
        both!(self.rms_norm(x; name, width, epsilon))
    }

    fn activate(&self, x: &Observed, activation: Activation) -> Observed {
        both!(self.activate(x; activation))
    }

    fn softmax(&self, x: &Observed) -> Observed {
        both!(self.softmax(x;))
    }

    fn add(&self, a: &Observed, b: &Observed) -> Observed {
        both!(self.add(a, b;))
    }

    fn mul(&self, a: &Observed, b: &Observed) -> Observed {
        both!(self.mul(a, b;))
    }

    fn scale(&self, x: &Observed, factor: f64) -> Observed {
        both!(self.scale(x; factor))
    }

    fn matmul(&self, a: &Observed, b: &Observed) -> Observed {
        both!(self.matmul(a, b;))
    }

    fn reshape(&self, x: &Observed, shape: &[i64]) -> Observed {
        both!(self.reshape(x; shape))
    }

    fn transpose(&self, x: &Observed, order: &[i64]) -> Observed {
        both!(self.transpose(x; order))
    }

    fn concat(&self, parts: &[&Observed], axis: i64) -> Observed {
        let (computed, written): (Vec<_>, Vec<_>) = parts.iter().map(|part| (&part.computed, &part.written)).unzip();
        self.noted(self.torch.concat(&computed, axis), self.writer.concat(&written, axis))
    }

    fn slice(&self, x: &Observed, axis: i64, from: i64, to: i64) -> Observed {
        both!(self.slice(x; axis, from, to))
    }

    fn repeat_batch(&self, x: &Observed, like: &Observed) -> Observed {
        both!(self.repeat_batch(x, like;))
    }

    fn dropout(&self, x: &Observed, probability: f64) -> Observed {
        both!(self.dropout(x; probability))
    }

    fn scope(&self, name: &str) {
        self.writer.scope(name);
    }

    fn embed_tokens(&self, name: &str, size: [i64; 2], scale: f64) -> Observed {
        both!(self.embed_tokens(; name, size, scale))
    }

    fn logits(&self, x: &Observed, name: &str, size: [i64; 2]) -> Observed {
        both!(self.logits(x; name, size))
    }

    fn causal_attention(&self, q: &Observed, k: &Observed, v: &Observed, spec: &CausalAttention) -> Observed {
        both!(self.causal_attention(q, k, v; spec))
    }

    fn select_positions(&self, x: &Observed) -> Observed {
        both!(self.select_positions(x;))
    }
}
