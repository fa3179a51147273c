//! The execution providers that a user can name.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Where graphs are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// The fastest that can run here; falls back to the CPU and says so.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU through CUDA; the number is the device's.
    Cuda(i32),
    /// An NVIDIA GPU through TensorRT, with CUDA for what TensorRT does not take.
    TensorRt(i32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(device) => write!(f, "cuda:{device}"),
            Self::TensorRt(device) => write!(f, "tensorrt:{device}"),
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, device) = text.split_once(':').unwrap_or((text, "0"));
        let device = device.parse().map_err(|_| format!("{device:?} is not a device number"))?;
        match name.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(device)),
            "tensorrt" => Ok(Self::TensorRt(device)),
            _ => Err(format!("{text:?} is not a provider; choose auto, cpu, cuda[:N] or tensorrt[:N]")),
        }
    }
}

/// Whether a provider can run here.
#[derive(Clone, Debug, Serialize)]
pub struct Availability {
    /// The provider.
    pub provider: String,
    /// Whether it can.
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
}
