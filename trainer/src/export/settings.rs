//! Settings of an export.

use crate::graph::onnx::{Operators, Precision};
use std::path::PathBuf;

/// Settings of an export.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bundle's folder. An existing one is replaced if it is a bundle or a part of one.
    pub out: PathBuf,
    /// The bundle's name; `None` for the name of the run's folder.
    pub name: Option<String>,
    /// The perception module's precision.
    pub apm: Precision,
    /// The decoder's precision.
    pub decoder: Precision,
    /// The decoder's operators.
    pub operators: Operators,
    /// Whether deviations from fp32 are measured.
    pub measure: Measure,
    /// Folder of radiographs with which the perception module is calibrated in int8; `None` for phantoms.
    pub calibrate: Option<PathBuf>,
    /// Whether the SDK opens the bundle and checks its golden input before the bundle is installed.
    pub golden: bool,
    /// Kinds of processors on which the bundle was checked, for its manifest: names of [`anatomix::parts::runtime::PROCESSORS`].
    pub checked_on: Vec<String>,
}

impl Settings {
    /// Default settings: arithmetic in fp32 on weights in fp16.
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

    /// Precision of the projectors. They compute in fp32; their weights are in fp32 if those of the decoder are.
    pub(super) fn projector(&self) -> Precision {
        if self.decoder == Precision::Fp32 { Precision::Fp32 } else { Precision::Fp16Weights }
    }
}

/// Whether deviations are measured, which needs ONNX Runtime, and memory and disk space for graphs in fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// By running the graphs if ONNX Runtime is found and the decoder has at most half a billion weights, otherwise by the weights.
    Auto,
    /// By running the graphs.
    Always,
    /// Never.
    Never,
}
