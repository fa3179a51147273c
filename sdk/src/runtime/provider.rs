//! Execution providers, and whether they can run here.

use super::RuntimeError;
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::session::Session;
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

/// All providers, the fastest first, with the reasons against those that cannot run.
pub fn availability(runtime: &super::Runtime) -> Vec<Availability> {
    [Provider::TensorRt(0), Provider::Cuda(0), Provider::Cpu]
        .map(|provider| {
            let outcome = probe(provider, &runtime.environment);
            Availability { provider: provider.to_string(), available: outcome.is_ok(), reason: outcome.err() }
        })
        .into()
}

pub(super) fn settle(wanted: Provider, environment: &Environment) -> Result<(Provider, Vec<String>), RuntimeError> {
    if wanted != Provider::Auto {
        return probe(wanted, environment)
            .map(|()| (wanted, vec![]))
            .map_err(|message| RuntimeError::Provider { provider: wanted, message });
    }
    // TensorRT builds engines for minutes on first use: it is never chosen without being asked for.
    match probe(Provider::Cuda(0), environment) {
        Ok(()) => Ok((Provider::Cuda(0), vec![])),
        Err(reason) => Ok((Provider::Cpu, vec![format!("cuda is not used: {reason}")])),
    }
}

/// Registers the provider on an empty session: ONNX Runtime then loads its libraries and finds its device, or says why not.
fn probe(provider: Provider, environment: &Environment) -> Result<(), String> {
    let available = match provider {
        Provider::Cuda(_) => CUDA::is_available(),
        Provider::TensorRt(_) => TensorRT::is_available(),
        _ => return Ok(()),
    };
    if !available.unwrap_or(false) {
        return Err("this build of ONNX Runtime does not contain it; use the build for GPUs".into());
    }
    let builder = Session::builder(environment).map_err(|e| e.to_string())?;
    builder.with_execution_providers(dispatches(provider)).map(|_| ()).map_err(|e| e.to_string())
}

pub(super) fn dispatches(provider: Provider) -> Vec<ExecutionProviderDispatch> {
    let cuda = |device| CUDA::default().with_device_id(device).build().error_on_failure();
    match provider {
        Provider::Auto | Provider::Cpu => vec![],
        Provider::Cuda(device) => vec![cuda(device)],
        Provider::TensorRt(device) => vec![TensorRT::default().with_device_id(device).build().error_on_failure(), cuda(device)],
    }
}
