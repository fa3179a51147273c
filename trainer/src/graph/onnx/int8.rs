//! Convolutions and matrix products in 8 bits. Activations are written as pairs of nodes that quantise and dequantise, weights as
//! quantised initializers with a node that dequantises. ONNX Runtime fuses these nodes with the operator that uses them.

use super::file::GraphFile;
use super::precision::Precision;
use super::proto::{AttributeProto, DataType};
use super::ranges::{Calibration, Ranges};
use super::writer::{OnnxTensor, Writer};
use crate::graph::Params;
use std::cell::RefCell;
use std::collections::BTreeSet;
use tch::Tensor;

/// Largest quantised weight; the smallest is its negative. Kernels for x86-64 processors without VNNI add two products in 16 bits, and
/// saturate at 32,767. Quantised activations are at most 255, and `2 * 255 * 64` is below that limit. With weights up to 127, boxes were
/// wrong on such processors.
const MAX_WEIGHT: f64 = 64.0;

impl<'a> Writer<'a> {
    /// Makes a writer without files, which collects the names of the activations that a graph in 8 bits would quantise.
    pub(super) fn observing(params: &'a Params) -> Self {
        let mut writer = Self::over(GraphFile::unwritten(), params, Precision::Fp32);
        writer.calibration = Calibration::Observe(RefCell::default());
        writer
    }

    /// The names that a writer made by [`Writer::observing`] has collected.
    pub(super) fn observed(self) -> BTreeSet<String> {
        if let Calibration::Observe(seen) = self.calibration { seen.into_inner() } else { BTreeSet::new() }
    }

    /// Makes the writer quantise convolutions and matrix products to 8 bits: weights with a scale for each output, activations with the
    /// scale and zero point of these ranges.
    pub fn quantizing(mut self, ranges: Ranges) -> Self {
        self.calibration = Calibration::Apply(ranges);
        self
    }

    /// Quantises an activation for an operator in 8 bits, and dequantises it; `None` if its range is unknown or the graph is not in 8 bits.
    pub(super) fn activation(&self, x: &OnnxTensor) -> Option<OnnxTensor> {
        self.activation_and_scale(x, &x.name).map(|(quantized, _)| quantized)
    }

    /// Like [`Writer::activation`], with the range of the value `like`. Also returns the scale.
    pub(super) fn activation_and_scale(&self, x: &OnnxTensor, like: &str) -> Option<(OnnxTensor, f32)> {
        match &self.calibration {
            Calibration::None => None,
            Calibration::Observe(seen) => {
                if x.known.is_none() {
                    seen.borrow_mut().insert(like.into());
                }
                None
            }
            Calibration::Apply(ranges) => ranges.get(like).map(|range| self.quantized_activation(x, range)),
        }
    }

    fn quantized_activation(&self, x: &OnnxTensor, [low, high]: [f32; 2]) -> (OnnxTensor, f32) {
        let scale = (high - low) / 255.0;
        let (scale, zero) = if scale.is_normal() { (scale, (-low / scale).round() as u8) } else { (1.0, 0) };
        let key = format!("{}.u8", x.name);
        if let Some(name) = self.references.borrow().get(&key) {
            return (OnnxTensor { name: name.clone(), known: None }, scale);
        }
        let [scale_name, zero_name] = ["scale", "zero"].map(|part| format!("{key}.{part}"));
        {
            let mut file = self.file.borrow_mut();
            file.number(&scale_name, scale, DataType::Float);
            file.byte(&zero_name, zero);
        }
        let [quantized, dequantized] = [key.clone(), format!("{key}.f32")];
        let parts = [scale_name, zero_name];
        self.push("QuantizeLinear", "", &[&[self.reference(x)], parts.as_slice()].concat(), vec![quantized.clone()], vec![]);
        self.push("DequantizeLinear", "", &[&[quantized], parts.as_slice()].concat(), vec![dequantized.clone()], vec![]);
        self.references.borrow_mut().insert(key, dequantized.clone());
        (OnnxTensor { name: dequantized, known: None }, scale)
    }

    /// Quantises a kernel `[out, in, k, k]` with a scale for each output, and its bias with the scale of products, where `scale` is that of
    /// the input. Returns both as nodes, and the dequantised kernel.
    pub(super) fn quantized_kernel(&self, name: &str, kernel: &Tensor, bias: &Tensor, scale: f32) -> ([OnnxTensor; 2], Tensor) {
        let rows = quantized_rows(&kernel.flatten(1, -1));
        let product = &rows.scales * f64::from(scale);
        let most = f64::from(i32::MAX / 2);
        let bias = (bias / &product).round().clamp(-most, most);
        let bias = self.dequantized(&format!("{name}.bias"), &bias, &product, DataType::Int32, 0);
        let weight = self.dequantized(&format!("{name}.weight"), &rows.values.view_as(kernel), &rows.scales, DataType::Int8, 0);
        ([weight, bias], rows.dequantize().view_as(kernel))
    }

    /// Quantises a matrix `[out, in]` with a scale for each output. Returns a node with the transposed matrix, and the dequantised matrix.
    pub(super) fn quantized_matrix(&self, name: &str, matrix: &Tensor) -> (OnnxTensor, Tensor) {
        let rows = quantized_rows(matrix);
        (self.dequantized(name, &rows.values.tr(), &rows.scales, DataType::Int8, 1), rows.dequantize())
    }

    /// Stores quantised values with a scale for each index of an axis. Returns the dequantised value.
    fn dequantized(&self, name: &str, values: &Tensor, scales: &Tensor, data_type: DataType, axis: i64) -> OnnxTensor {
        let [values_name, scales_name, zeros_name, used] = ["codes", "scale", "zero", "f32"].map(|part| format!("{name}.{part}"));
        {
            let mut file = self.file.borrow_mut();
            file.weight(&values_name, values, data_type);
            file.weight(&scales_name, scales, DataType::Float);
            file.weight(&zeros_name, &scales.zeros_like(), data_type);
        }
        self.push(
            "DequantizeLinear",
            "",
            &[values_name, scales_name, zeros_name],
            vec![used.clone()],
            vec![AttributeProto::int("axis", axis)],
        );
        OnnxTensor { name: used, known: None }
    }
}

/// A matrix `[out, in]` in 8 bits: quantised values, and a scale for each row.
pub(super) struct QuantizedRows {
    values: Tensor,
    scales: Tensor,
}

impl QuantizedRows {
    /// The dequantised matrix.
    pub fn dequantize(&self) -> Tensor {
        &self.values * self.scales.unsqueeze(1)
    }
}

/// Quantises the rows of a matrix `[out, in]`.
pub(super) fn quantized_rows(matrix: &Tensor) -> QuantizedRows {
    let largest = matrix.abs().amax([1i64].as_slice(), false);
    let scales = (largest / MAX_WEIGHT).clamp_min(f64::from(f32::MIN_POSITIVE));
    QuantizedRows { values: (matrix / scales.unsqueeze(1)).round(), scales }
}
