//! What a graph computes in and how its weights are stored.

use super::proto::DataType;
use serde::Serialize;
use std::fmt;

/// What a graph computes in and how its weights are stored. Inputs and outputs are fp32, but a decoder's cache is of the type
/// that it computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Arithmetic and weights in fp32.
    Fp32,
    /// Weights in fp16, widened when the graph is loaded; arithmetic in fp32.
    Fp16Weights,
    /// Arithmetic and weights in fp16.
    Fp16,
    /// Arithmetic and weights in bf16, for CUDA; the CPU has no such operators.
    Bf16,
    /// Decoder: weights in 8 bits in blocks of 64. Perception: weights of convolutions and of the transformer's products in 7 bits and
    /// their activations in 8, calibrated on images.
    Int8,
    /// Weights in 4 bits in blocks of 64.
    Int4,
}

/// Which operators a decoder is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Operators {
    /// Those of ONNX Runtime too: attention over the cache is one operator.
    Fused,
    /// Those of the ONNX standard only, for TensorRT and other runtimes.
    Portable,
}

impl Precision {
    /// What the manifest calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16Weights | Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
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
