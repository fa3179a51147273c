//! `anatomix providers`: where graphs can be computed on this machine.

use crate::common::{Failure, Options};
use crate::shown::out;
use anatomix::parts::runtime::{self, Runtime, availability};
use anatomix::{Error, Provider};
use clap::Args;
use serde_json::json;

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
        let providers = availability(&runtime);
        let (chosen, processor) = (runtime.provider().to_string(), runtime::processor());
        if self.json {
            return Ok(out().json(&json!({
                "onnxruntime": runtime.library(), "auto": chosen, "providers": providers, "processor": processor,
            }))?);
        }
        let mut out = out();
        for one in providers {
            let state = if one.available { "available" } else { "not available" };
            let reason = one.reason.map(|reason| format!("  {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
            out.line(format!("{:<12}{state:<15}{}", one.provider, reason.unwrap_or_default()).trim_end())?;
        }
        out.line("")?;
        let library = runtime.library().display();
        Ok(out.line(format_args!("auto chooses {chosen}; the processor is {processor}; ONNX Runtime is {library}"))?)
    }
}
