//! What an export is asked for.

use crate::graph::onnx::{Operators, Precision};
use std::path::PathBuf;

/// What to make.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bundle's folder. One that is there is replaced if it is a bundle or a part of one.
    pub out: PathBuf,
    /// The bundle's name; the run folder's where this is `None`.
    pub name: Option<String>,
    /// The perception module's precision.
    pub apm: Precision,
    /// The decoder's precision.
    pub decoder: Precision,
    /// The decoder's operators.
    pub operators: Operators,
    /// Whether deviations from fp32 are measured.
    pub measure: Measure,
    /// Radiographs that an export of the perception module in int8 is calibrated with; phantoms where this is `None`.
    pub calibrate: Option<PathBuf>,
    /// Whether the SDK opens the bundle and runs its golden input before the bundle takes its place.
    pub golden: bool,
    /// Kinds of processors on which the bundle was checked, for its manifest: names of [`anatomix::parts::runtime::PROCESSORS`].
    pub checked_on: Vec<String>,
}

impl Settings {
    /// The usual precisions: fp32 arithmetic on weights in fp16.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            name: None,
            apm: Precision::Fp16Weights,
            decoder: Precision::Fp16Weights,
            operators: Operators::Fused,
            measure: Measure::Never,
            calibrate: None,
            golden: true,
            checked_on: Vec::new(),
        }
    }

    /// The projectors compute in fp32 always; their weights are as large as the decoder's where those are in fp32.
    pub(super) fn projector(&self) -> Precision {
        if self.decoder == Precision::Fp32 { Precision::Fp32 } else { Precision::Fp16Weights }
    }
}

/// Whether deviations are measured: it takes ONNX Runtime, and memory and disk for graphs in fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// By the graphs, where ONNX Runtime is found and the decoder has at most half a billion weights; otherwise by the weights.
    Auto,
    /// By the graphs, whatever their size.
    Always,
    /// Never.
    Never,
}
