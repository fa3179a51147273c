//! Whether the SDK opens what was written: its golden input must come out before a bundle takes its place.

use super::settings::Settings;
use crate::graph::onnx::Precision;
use anatomix::error::RuntimeError;
use anatomix::parts::runtime::processor;
use anatomix::{Engine, Error, Provider};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// What became of a bundle's golden input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The SDK reproduced it on this kind of processor.
    Passed(String),
    /// It was not run, for this reason.
    LeftOut(String),
}

/// Opens a bundle that is not in its place yet.
///
/// # Errors
/// If the SDK does not open it, or ONNX Runtime is not found.
pub(super) fn check(folder: &Path, settings: &Settings) -> Result<Check> {
    if !settings.golden {
        return Ok(Check::LeftOut("it was not asked for".into()));
    }
    if settings.decoder == Precision::Bf16 {
        return Ok(Check::LeftOut("a CPU has no operators for a decoder in bf16; open the bundle once on the GPU that it is for".into()));
    }
    match Engine::builder().provider(Provider::Cpu).open(folder) {
        Ok(_) => Ok(Check::Passed(processor().into())),
        Err(error @ Error::Runtime(RuntimeError::NotFound { .. })) => {
            Err(error).context("the bundle cannot be opened before it is published; --no-golden-check leaves that out")
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
