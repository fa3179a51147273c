//! Exports a run as a bundle, or the graphs of what it holds.

use crate::export::{Deviations, Measure, Measured, Settings, export};
use crate::graph::onnx::{Operators, Precision};
use crate::run::Run;
use anyhow::Result;
use std::path::PathBuf;

/// Exports a trained run as a bundle: graphs, sentences, tokenizer, manifest and golden input. A run that does not hold all of
/// it yet gives the graphs of what it holds.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The run's folder.
    run: PathBuf,
    /// The bundle's folder; a bundle or a part of one that is there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// The decoder's precision. Not fp16, which Gemma's activations overflow.
    #[arg(long, default_value = "fp16-weights")]
    decoder: Precision,
    /// The perception module's precision: fp32, fp16-weights, fp16 or int8.
    #[arg(long, default_value = "fp16-weights")]
    apm: Precision,
    /// The decoder's operators.
    #[arg(long, default_value = "fused")]
    operators: Operators,
    /// Whether deviations from fp32 are measured, on the golden input.
    #[arg(long, default_value = "auto")]
    measure: Measure,
    /// Folder of radiographs to calibrate int8 with, as many as 64 of them; phantoms if not said. Use such as will be read.
    #[arg(long, value_name = "DIR")]
    calibrate: Option<PathBuf>,
    /// The bundle's name; the run folder's by default.
    #[arg(long)]
    name: Option<String>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref run, ref out, decoder, apm, operators, measure, ref calibrate, ref name, json } = arguments;
    let settings = Settings { out: out.clone(), name: name.clone(), apm, decoder, operators, measure, calibrate: calibrate.clone() };
    let made = export(&Run { folder: run.clone() }, &settings)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    let megabytes = made.bytes as f64 / 1e6;
    match &made.sha256 {
        Some(sha256) => eprintln!("{} in {}: {megabytes:.1} MB, sha256 {sha256}", made.name, out.display()),
        None => {
            eprintln!("{} in {}: {megabytes:.1} MB; not a bundle, as the run lacks", made.files.join(", "), out.display());
            made.missing.iter().for_each(|missing| eprintln!("  {missing}"));
        }
    }
    if decoder == Precision::Bf16 && made.files.iter().any(|f| f == anatomix::bundle::DECODER) {
        eprintln!("decoder.onnx computes in bf16: it runs on CUDA; on a CPU it is refused when the bundle is opened");
    }
    print(&made.deviations, apm, decoder);
    Ok(())
}

fn print(deviations: &Deviations, apm: Precision, decoder: Precision) {
    if let Some(found) = &deviations.apm {
        let ([iou, worst_iou], [cosine, worst_cosine]) = (found.box_iou, found.embedding_cosine);
        eprintln!(
            "apm.onnx in {apm} against fp32: box IoU {iou:.4} (smallest {worst_iou:.4}), embedding cosine {cosine:.5} (smallest {worst_cosine:.5})"
        );
    }
    if let Some(found) = &deviations.decoder {
        let [mean, largest] = found.kl;
        let by = if found.by == Measured::Weights { ", by its weights alone" } else { "" };
        eprintln!(
            "decoder.onnx in {decoder} against fp32{by}: the same token at {:.1} % of {} positions, KL {mean:.2e} nats (largest {largest:.2e})",
            100.0 * found.top1_agreement,
            found.positions
        );
    }
    deviations.notes.iter().for_each(|note| eprintln!("{note}"));
}
