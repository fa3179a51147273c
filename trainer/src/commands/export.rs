//! The command `export`.

use crate::export::{Check, Deviations, Measure, Measured, Settings, export};
use crate::graph::onnx::{Operators, Precision};
use crate::run::Run;
use anatomix::parts::runtime::PROCESSORS;
use anyhow::Result;
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// Export a trained run as a bundle: graphs, sentence database, tokenizer, manifest and golden input. For an incomplete run, export the
/// graphs of the parts that it has.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the run.
    run: PathBuf,
    /// Folder of the bundle; an existing export in it is replaced.
    #[arg(long)]
    out: PathBuf,
    /// Precision of the decoder. fp16 is not possible, because Gemma's activations overflow it.
    #[arg(long, default_value = "fp16-weights")]
    decoder: Precision,
    /// Precision of the perception module: fp32, fp16-weights, fp16 or int8.
    #[arg(long, default_value = "fp16-weights")]
    apm: Precision,
    /// Operators of the decoder.
    #[arg(long, default_value = "fused")]
    operators: Operators,
    /// Whether to measure deviations from fp32 on the golden input.
    #[arg(long, default_value = "auto")]
    measure: Measure,
    /// Folder of radiographs for the calibration of int8, of which up to 64 are used [default: phantoms]. They should resemble those
    /// that the bundle will read.
    #[arg(long, value_name = "DIR")]
    calibrate: Option<PathBuf>,
    /// Publish the bundle without opening it and running its golden input first.
    #[arg(long)]
    no_golden_check: bool,
    /// A kind of processor on which you have opened such a bundle, for its manifest; may be given several times.
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(PROCESSORS))]
    checked_on: Vec<String>,
    /// Name of the bundle [default: the name of the run's folder].
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { ref out, decoder, apm, operators, measure, json, .. } = arguments;
    let settings = Settings {
        out: out.clone(),
        name: arguments.name.clone(),
        apm,
        decoder,
        operators,
        measure,
        calibrate: arguments.calibrate.clone(),
        golden: !arguments.no_golden_check,
        checked_on: arguments.checked_on.clone(),
    };
    let made = export(&Run { folder: arguments.run.clone() }, &settings)?;
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
    if decoder == Precision::Bf16 && made.files.iter().any(|f| f == anatomix::parts::bundle::DECODER) {
        eprintln!("decoder.onnx computes in bf16: it runs on CUDA; on a CPU it is refused when the bundle is opened");
    }
    match &made.check {
        Check::Passed(processor) => eprintln!("opened by the SDK, golden input reproduced on {processor}"),
        Check::LeftOut(reason) => eprintln!("golden input not run: {reason}"),
    }
    print(&made.deviations, apm, decoder);
    Ok(())
}

fn print(deviations: &Deviations, apm: Precision, decoder: Precision) {
    if let Some(found) = &deviations.apm {
        let ([iou, worst_iou], [cosine, worst_cosine]) = (found.box_iou, found.embedding_cosine);
        eprintln!(
            "apm.onnx in {apm} against fp32: box IoU {iou:.4} (smallest {worst_iou:.4}), embedding cosine {cosine:.5} (smallest \
             {worst_cosine:.5})"
        );
    }
    if let Some(found) = &deviations.decoder {
        let [mean, largest] = found.kl;
        let by = if found.by == Measured::Weights { ", by its weights alone" } else { "" };
        eprintln!(
            "decoder.onnx in {decoder} against fp32{by}: the same token at {:.1} % of {} positions, KL {mean:.2e} nats (largest \
             {largest:.2e})",
            100.0 * found.top1_agreement,
            found.positions
        );
    }
    deviations.notes.iter().for_each(|note| eprintln!("{note}"));
}
