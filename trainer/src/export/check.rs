//! The check of a new bundle: the SDK has to open it and reproduce its golden input before it is installed.

use super::settings::Settings;
use crate::graph::onnx::Precision;
use anatomix::error::RuntimeError;
use anatomix::parts::runtime::processor;
use anatomix::{Engine, Error, Provider};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// Result of the golden check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The SDK reproduced the golden input on this kind of processor.
    Passed(String),
    /// The check was not run, for this reason.
    LeftOut(String),
}

/// Checks the bundle in `folder`, which is not installed yet.
///
/// # Errors
/// If the SDK does not open it, or ONNX Runtime is not found.
pub(super) fn check(folder: &Path, settings: &Settings) -> Result<Check> {
    if !settings.golden {
        return Ok(Check::LeftOut("it was not requested".into()));
    }
    if settings.decoder == Precision::Bf16 {
        return Ok(Check::LeftOut("a CPU has no operators for a decoder in bf16; open the bundle once on the GPU that it is for".into()));
    }
    match Engine::builder().provider(Provider::Cpu).open(folder) {
        Ok(_) => Ok(Check::Passed(processor().into())),
        Err(error @ Error::Runtime(RuntimeError::NotFound { .. })) => {
            Err(error).context("the bundle cannot be opened before it is published; --no-golden-check skips this check")
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "the bundle was not put at {}, as the SDK does not open it on {}; choose another precision, or calibrate int8 with \
                 radiographs like those that it will read",
                settings.out.display(),
                processor()
            )
        }),
    }
}
