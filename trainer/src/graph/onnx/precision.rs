//! Number formats and operators of exported graphs.

use super::proto::DataType;
use serde::Serialize;
use std::fmt;

/// Number formats of a graph's arithmetic and weights. Inputs and outputs are fp32, except that a decoder's KV cache has the type of the
/// arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Arithmetic and weights in fp32.
    Fp32,
    /// Weights in fp16, converted when the graph is loaded; arithmetic in fp32.
    Fp16Weights,
    /// Arithmetic and weights in fp16.
    Fp16,
    /// Arithmetic and weights in bf16, for CUDA. ONNX Runtime has no such operators for CPUs.
    Bf16,
    /// Decoder: weights in 8 bits, in blocks of 64. Perception: weights of convolutions and of the transformer's products in 7 bits, their
    /// activations in 8 bits, calibrated on images.
    Int8,
    /// Weights in 4 bits in blocks of 64.
    Int4,
}

/// Operators of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Operators {
    /// Also those of ONNX Runtime, where attention over the KV cache is a single operator.
    Fused,
    /// Only those of the ONNX standard, for TensorRT and other runtimes.
    Portable,
}

impl Precision {
    /// The name of the weights' format in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16Weights | Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// The name of the arithmetic in the manifest.
    pub fn arithmetic(self) -> &'static str {
        if self == Self::Fp16Weights { Self::Fp32.name() } else { self.name() }
    }

    /// The type of activations.
    pub(super) fn compute(self) -> DataType {
        match self {
            Self::Fp16 => DataType::Half,
            Self::Bf16 => DataType::BFloat16,
            _ => DataType::Float,
        }
    }

    /// The type of large weights that are not quantised.
    pub(super) fn storage(self) -> DataType {
        if self == Self::Fp16Weights { DataType::Half } else { self.compute() }
    }

    /// Bits of a quantised weight.
    pub(super) fn bits(self) -> Option<u8> {
        match self {
            Self::Int8 => Some(8),
            Self::Int4 => Some(4),
            _ => None,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Fp16Weights { "fp16-weights" } else { self.name() })
    }
}
