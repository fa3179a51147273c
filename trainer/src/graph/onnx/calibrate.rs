//! Convolutions and matrix products in 8 bits. Activations and weights are written as pairs of nodes that quantise and dequantise. ONNX
//! Runtime fuses them with the operator that uses them.

use super::file::GraphFile;
use super::precision::Precision;
use super::proto::{AttributeProto, DataType};
use super::ranges::{Calibration, Ranges};
use super::writer::{OnnxTensor, Writer};
use crate::graph::Params;
use std::cell::RefCell;
use std::collections::BTreeSet;
use tch::Tensor;

/// Largest code of a weight; the smallest is its negative. Kernels for x86-64 processors without VNNI add two products in 16 bits, and
/// saturate at 32,767. Codes of activations are at most 255, and `2 * 255 * 64` is below that. With codes up to 127, boxes were wrong there.
const WEIGHT_CODES: f64 = 64.0;

impl<'a> Writer<'a> {
    /// Makes a writer without files, which collects the names of the activations that a graph in 8 bits would round.
    pub(super) fn observing(params: &'a Params) -> Self {
        let mut writer = Self::over(GraphFile::unwritten(), params, Precision::Fp32);
        writer.calibration = Calibration::Observe(RefCell::default());
        writer
    }

    /// The names that a writer made by [`Writer::observing`] has collected.
    pub(super) fn observed(self) -> BTreeSet<String> {
        if let Calibration::Observe(seen) = self.calibration { seen.into_inner() } else { BTreeSet::new() }
    }

    /// Makes the writer round convolutions and matrix products to 8 bits: weights with a step for each output, activations by these ranges.
    pub fn rounding(mut self, ranges: Ranges) -> Self {
        self.calibration = Calibration::Apply(ranges);
        self
    }

    /// Rounds an activation for an operator in 8 bits; `None` if its range is unknown or the graph is not in 8 bits.
    pub(super) fn activation(&self, x: &OnnxTensor) -> Option<OnnxTensor> {
        self.activation_and_scale(x, &x.name).map(|(rounded, _)| rounded)
    }

    /// Like [`Writer::activation`], with the range of the value `like`. Also returns the step between codes.
    pub(super) fn activation_and_scale(&self, x: &OnnxTensor, like: &str) -> Option<(OnnxTensor, f32)> {
        match &self.calibration {
            Calibration::None => None,
            Calibration::Observe(seen) => {
                if x.known.is_none() {
                    seen.borrow_mut().insert(like.into());
                }
                None
            }
            Calibration::Apply(ranges) => ranges.get(like).map(|range| self.rounded_activation(x, range)),
        }
    }

    fn rounded_activation(&self, x: &OnnxTensor, [low, high]: [f32; 2]) -> (OnnxTensor, f32) {
        let step = (high - low) / 255.0;
        let (step, zero) = if step.is_normal() { (step, (-low / step).round() as u8) } else { (1.0, 0) };
        let key = format!("{}.u8", x.name);
        if let Some(name) = self.stored.borrow().get(&key) {
            return (OnnxTensor { name: name.clone(), known: None }, step);
        }
        let [scale, zero_point] = ["scale", "zero"].map(|part| format!("{key}.{part}"));
        {
            let mut file = self.file.borrow_mut();
            file.number(&scale, step, DataType::Float);
            file.byte(&zero_point, zero);
        }
        let [codes, back] = [key.clone(), format!("{key}.f32")];
        let parts = [scale, zero_point];
        self.push("QuantizeLinear", "", &[&[self.reference(x)], parts.as_slice()].concat(), vec![codes.clone()], vec![]);
        self.push("DequantizeLinear", "", &[&[codes], parts.as_slice()].concat(), vec![back.clone()], vec![]);
        self.stored.borrow_mut().insert(key, back.clone());
        (OnnxTensor { name: back, known: None }, step)
    }

    /// Rounds a kernel `[out, in, k, k]` with a step for each output, and its bias with the step of products. Returns both as nodes, and the
    /// rounded kernel.
    pub(super) fn rounded_kernel(&self, name: &str, kernel: &Tensor, bias: &Tensor, step: f32) -> ([OnnxTensor; 2], Tensor) {
        let rows = rounded_rows(&kernel.flatten(1, -1));
        let product = &rows.steps * f64::from(step);
        let most = f64::from(i32::MAX / 2);
        let bias = (bias / &product).round().clamp(-most, most);
        let bias = self.dequantized(&format!("{name}.bias"), &bias, &product, DataType::Int32, 0);
        let codes = self.dequantized(&format!("{name}.weight"), &rows.codes.view_as(kernel), &rows.steps, DataType::Int8, 0);
        ([codes, bias], rows.back().view_as(kernel))
    }

    /// Rounds a matrix `[out, in]` with a step for each output. Returns a node with the transposed matrix, and the rounded matrix.
    pub(super) fn rounded_matrix(&self, name: &str, matrix: &Tensor) -> (OnnxTensor, Tensor) {
        let rows = rounded_rows(matrix);
        (self.dequantized(name, &rows.codes.tr(), &rows.steps, DataType::Int8, 1), rows.back())
    }

    /// Stores codes with a step for each index of an axis. Returns the dequantised value.
    fn dequantized(&self, name: &str, codes: &Tensor, steps: &Tensor, data_type: DataType, axis: i64) -> OnnxTensor {
        let [stored, scales, zeros, used] = ["codes", "scale", "zero", "f32"].map(|part| format!("{name}.{part}"));
        {
            let mut file = self.file.borrow_mut();
            file.weight(&stored, codes, data_type);
            file.weight(&scales, steps, DataType::Float);
            file.weight(&zeros, &steps.zeros_like(), data_type);
        }
        self.push("DequantizeLinear", "", &[stored, scales, zeros], vec![used.clone()], vec![AttributeProto::int("axis", axis)]);
        OnnxTensor { name: used, known: None }
    }
}

/// A matrix `[out, in]` in 8 bits: codes, and a step for each row.
pub(super) struct RoundedRows {
    codes: Tensor,
    steps: Tensor,
}

impl RoundedRows {
    /// The rounded matrix.
    pub fn back(&self) -> Tensor {
        &self.codes * self.steps.unsqueeze(1)
    }
}

/// Rounds the rows of a matrix `[out, in]`.
pub(super) fn rounded_rows(matrix: &Tensor) -> RoundedRows {
    let largest = matrix.abs().amax([1i64].as_slice(), false);
    let steps = (largest / WEIGHT_CODES).clamp_min(f64::from(f32::MIN_POSITIVE));
    RoundedRows { codes: (matrix / steps.unsqueeze(1)).round(), steps }
}
