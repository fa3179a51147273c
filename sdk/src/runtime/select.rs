//! The choice of a provider, with the reasons against others.

use super::error::RuntimeError;
use super::provider::Provider;
use crate::cause::Problem;
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::session::Session;

pub(super) fn choose(wanted: Provider, environment: &Environment) -> Result<(Provider, Vec<String>), RuntimeError> {
    if wanted != Provider::Auto {
        return probe(wanted, environment).map(|()| (wanted, vec![])).map_err(|Problem { message, source }| RuntimeError::Provider {
            provider: wanted,
            message,
            source,
        });
    }
    // TensorRT builds its engines for minutes on first use, so it is used only if it is asked for.
    match probe(Provider::Cuda(0), environment) {
        Ok(()) => Ok((Provider::Cuda(0), vec![])),
        Err(reason) => Ok((Provider::Cpu, vec![format!("cuda is not used: {reason}")])),
    }
}

/// Checks whether a provider can run here, by registering it with an empty session: ONNX Runtime then loads the provider's libraries and
/// looks for its device.
pub(super) fn probe(provider: Provider, environment: &Environment) -> Result<(), Problem> {
    let available = match provider {
        Provider::Cuda(device) | Provider::TensorRt(device) if device < 0 => {
            return Err(format!("{device} is not the number of a GPU; numbers begin with 0").into());
        }
        Provider::Cuda(_) => CUDA::is_available(),
        Provider::TensorRt(_) => TensorRT::is_available(),
        _ => return Ok(()),
    };
    if !available.unwrap_or(false) {
        return Err("this build of ONNX Runtime does not contain it; use the build for GPUs".into());
    }
    let builder = Session::builder(environment).map_err(|e| refused(&e))?;
    builder.with_execution_providers(dispatches(provider)).map(|_| ()).map_err(|e| refused(&e))
}

fn refused(error: &dyn std::fmt::Display) -> Problem {
    Problem::caused("ONNX Runtime refuses it", error)
}

pub(super) fn dispatches(provider: Provider) -> Vec<ExecutionProviderDispatch> {
    let cuda = |device| CUDA::default().with_device_id(device).build().error_on_failure();
    match provider {
        Provider::Auto | Provider::Cpu => vec![],
        Provider::Cuda(device) => vec![cuda(device)],
        Provider::TensorRt(device) => vec![TensorRT::default().with_device_id(device).build().error_on_failure(), cuda(device)],
    }
}
