//! `anatomix providers`: where graphs can be computed on this machine.

use crate::common::{Failure, Options};
use crate::shown::out;
use anatomix::parts::output::ProvidersRecord;
use anatomix::parts::runtime::{self, Runtime};
use anatomix::{Error, Provider};
use clap::Args;

/// List the providers that can run here, and why the others cannot
#[derive(Args)]
pub struct Providers {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Providers {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        let settings = runtime::Options { library: options.library.clone(), provider: Provider::Auto, threads: None };
        let runtime = Runtime::load(settings).map_err(Error::from)?;
        let record = ProvidersRecord::of(&runtime);
        if self.json {
            return Ok(out().json(&record)?);
        }
        let ProvidersRecord { onnxruntime, auto, providers, processor } = record;
        let mut out = out();
        for one in providers {
            let state = if one.available { "available" } else { "not available" };
            let reason = one.reason.map(|reason| format!("  {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
            out.line(format!("{:<12}{state:<15}{}", one.provider, reason.unwrap_or_default()).trim_end())?;
        }
        out.line("")?;
        Ok(out.line(format_args!("auto chooses {auto}; the processor is {processor}; ONNX Runtime is {onnxruntime}"))?)
    }
}
