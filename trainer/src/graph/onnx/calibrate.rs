//! Convolutions and products in 8 bits: the ranges of activations, observed on images, and the nodes that round to them and back.
//! ONNX Runtime fuses such pairs of nodes with the operator between them.

use super::file::GraphFile;
use super::precision::Precision;
use super::proto::{AttributeProto, DataType};
use super::writer::{OnnxTensor, Writer};
use crate::graph::Params;
use anyhow::{Result, ensure};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// Significant bits of a range's ends.
const RANGE_BITS: i32 = 10;
/// Codes of a weight go from minus to plus this. An activation's code is at most 255, and x86-64 processors without VNNI add two
/// products at a time in 16 bits, where more than 32,767 is cut off: `2 * 255 * 64` is less. With codes up to 127 boxes were wrong there.
const WEIGHT_CODES: f64 = 64.0;

/// The smallest and largest value of each activation that is rounded. Both are rounded outwards to few bits: they are computed in fp64, whose
/// last bits depend on the machine, and what they decide (steps between codes) must not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges(BTreeMap<String, [f32; 2]>);

impl Ranges {
    /// Takes the smallest and the largest value of an activation in one run.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn observe(&mut self, name: &str, [low, high]: [f64; 2]) -> Result<()> {
        ensure!(low.is_finite() && high.is_finite(), "while it was calibrated, {name} was not finite; export in fp32");
        // Zero, which borders are filled with, must have a code.
        let ends = self.0.entry(name.into()).or_default();
        *ends = [ends[0].min(outwards(low)), ends[1].max(outwards(high))];
        Ok(())
    }

    /// How many activations there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The next value away from zero that has few bits.
fn outwards(value: f64) -> f32 {
    if value == 0.0 {
        return 0.0;
    }
    let step = libm::scalbn(1.0, libm::ilogb(value) + 1 - RANGE_BITS);
    ((value.abs() / step).ceil() * step).copysign(value) as f32
}

/// What a writer does about 8 bits.
#[derive(Debug, Default)]
pub(super) enum Calibration {
    /// Nothing.
    #[default]
    None,
    /// Notes the names of what would be rounded.
    Observe(RefCell<BTreeSet<String>>),
    /// Rounds.
    Apply(Ranges),
}

impl<'a> Writer<'a> {
    /// A graph that is not written, but notes which activations 8 bits would round.
    pub(super) fn observing(params: &'a Params) -> Self {
        let mut writer = Self::over(GraphFile::unwritten(), params, Precision::Fp32);
        writer.calibration = Calibration::Observe(RefCell::default());
        writer
    }

    /// The activations that 8 bits would round, once an observing writer has read the model.
    pub(super) fn observed(self) -> BTreeSet<String> {
        if let Calibration::Observe(seen) = self.calibration { seen.into_inner() } else { BTreeSet::new() }
    }

    /// Writes convolutions and products in 8 bits: weights by output, activations by the ranges that were observed.
    pub fn rounding(mut self, ranges: Ranges) -> Self {
        self.calibration = Calibration::Apply(ranges);
        self
    }

    /// Whether the graph is one of 8 bits, or one that ranges are observed with for such a graph.
    pub(super) fn calibrates(&self) -> bool {
        !matches!(self.calibration, Calibration::None)
    }

    pub(super) fn is_rounding(&self) -> bool {
        matches!(self.calibration, Calibration::Apply(_))
    }

    /// An activation in front of an operator of 8 bits; `None` where its range is not known, or nothing is rounded.
    pub(super) fn activation(&self, x: &OnnxTensor) -> Option<OnnxTensor> {
        self.activation_and_scale(x, &x.name).map(|(rounded, _)| rounded)
    }

    /// The same with the step between its codes; its range is that of the value `like`.
    pub(super) fn activation_and_scale(&self, x: &OnnxTensor, like: &str) -> Option<(OnnxTensor, f32)> {
        match &self.calibration {
            Calibration::None => None,
            Calibration::Observe(seen) => {
                if x.known.is_none() {
                    seen.borrow_mut().insert(like.into());
                }
                None
            }
            Calibration::Apply(ranges) => ranges.0.get(like).map(|range| self.rounded_activation(x, *range)),
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

    /// A kernel `[out, in, k, k]` with a step for each output, and the bias in steps of products: as nodes, and as the kernel
    /// that they give.
    pub(super) fn rounded_kernel(&self, name: &str, kernel: &Tensor, bias: &Tensor, step: f32) -> ([OnnxTensor; 2], Tensor) {
        let rows = rounded_rows(&kernel.flatten(1, -1));
        let product = &rows.steps * f64::from(step);
        let most = f64::from(i32::MAX / 2);
        let bias = (bias / &product).round().clamp(-most, most);
        let bias = self.dequantized(&format!("{name}.bias"), &bias, &product, DataType::Int32, 0);
        let codes = self.dequantized(&format!("{name}.weight"), &rows.codes.view_as(kernel), &rows.steps, DataType::Int8, 0);
        ([codes, bias], rows.back().view_as(kernel))
    }

    /// A matrix `[out, in]` with a step for each output: as a node, transposed, and as the matrix that it gives.
    pub(super) fn rounded_matrix(&self, name: &str, matrix: &Tensor) -> (OnnxTensor, Tensor) {
        let rows = rounded_rows(matrix);
        (self.dequantized(name, &rows.codes.tr(), &rows.steps, DataType::Int8, 1), rows.back())
    }

    /// Stores codes with a step for each place of an axis, and gives what they stand for.
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
    /// The matrix that they give.
    pub fn back(&self) -> Tensor {
        &self.codes * self.steps.unsqueeze(1)
    }
}

pub(super) fn rounded_rows(matrix: &Tensor) -> RoundedRows {
    let largest = matrix.abs().amax([1i64].as_slice(), false);
    let steps = (largest / WEIGHT_CODES).clamp_min(f64::from(f32::MIN_POSITIVE));
    RoundedRows { codes: (matrix / steps.unsqueeze(1)).round(), steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_rounded_outwards_to_few_bits() {
        for value in [1.0, -3.7, 0.001234, 1e-30, 65_504.3] {
            let end = f64::from(outwards(value));
            assert!(end / value >= 1.0 && end / value < 1.002, "{value} became {end}");
            assert_eq!(outwards(end), end as f32, "{end} has few bits already");
        }
        let mut ranges = Ranges::default();
        ranges.observe("a", [0.5, 2.3]).unwrap();
        ranges.observe("a", [-1.0, 0.25]).unwrap();
        assert_eq!(ranges.0["a"], [-1.0, outwards(2.3)]);
        assert!(ranges.observe("b", [0.0, f64::NAN]).unwrap_err().to_string().contains("b was not finite"));
    }
}
