//! A run's logs as a page with plots, for a browser.

use super::log::{self, IDLE, Line, Log, STAGES, VALIDATION};
use super::plots;
use crate::run::Run;
use anatomix::Structure;
use anatomix::output::write_whole;
use anyhow::{Result, ensure};
use std::fmt::Write;
use std::path::Path;

/// Name of the page in a run's folder.
pub const PAGE: &str = "report.html";

/// Writes the page of a run to a file.
///
/// # Errors
/// As [`page`], and if the file cannot be written.
pub fn write(run: &Run, path: &Path) -> Result<()> {
    Ok(write_whole(path, page(run)?.as_bytes())?)
}

/// The page of a run: for each stage its latest figures, the curves of the loss, of the learning rate and of the figures on the validation
/// split, and the IoU of each structure.
///
/// # Errors
/// If a log cannot be read, or there is none.
fn page(run: &Run) -> Result<String> {
    let mut body = String::new();
    for stage in STAGES {
        let lines = Log::new(run, stage).lines()?;
        if !lines.is_empty() {
            section(&mut body, stage, &lines)?;
        }
    }
    ensure!(!body.is_empty(), "{} has no log of a training stage; train a stage first", run.folder.display());
    let title = escaped(&run.folder.display().to_string());
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>body {{ font-family: sans-serif; \
         margin: 2em; }} td, th {{ padding: 0 1em 0 0; text-align: left; }} svg {{ margin: 0.5em; }}</style>\n<h1>{title}</h1>\n\
         <p>Research use, not a medical device.</p>\n{body}</html>\n"
    ))
}

fn section(body: &mut String, stage: &str, lines: &[Line]) -> Result<()> {
    let keys = log::keys(lines);
    let (figures, losses): (Vec<&String>, Vec<&String>) =
        keys.iter().filter(|key| *key != "rate").partition(|key| key.starts_with(VALIDATION));
    writeln!(body, "<h2>{stage}</h2>\n<table>")?;
    for key in losses.iter().chain(&figures) {
        if let Some((step, value)) = log::series(lines, key).last() {
            writeln!(body, "<tr><th>{}</th><td>{value:.4}</td><td>step {step}</td></tr>", escaped(key))?;
        }
    }
    writeln!(body, "</table>")?;
    let (rate, idle) = ("rate".to_string(), IDLE.to_string());
    let losses: Vec<&String> = losses.into_iter().filter(|key| *key != IDLE).collect();
    for (title, keys) in
        [("loss", losses), ("learning rate", vec![&rate]), ("validation", figures), ("share of time waiting for data", vec![&idle])]
    {
        let curves: Vec<(&str, Vec<(f64, f64)>)> =
            keys.iter().map(|key| (key.trim_start_matches(VALIDATION), log::series(lines, key))).collect();
        if curves.iter().any(|(_, points)| points.len() > 1) {
            body.push_str(&plots::curves(&format!("{stage}: {title}"), &curves)?);
        }
    }
    if let Some(values) = lines.iter().rev().find_map(|line| line.get("validation")?.get("structure_iou")?.as_array()) {
        let bars: Vec<(&str, f64)> =
            Structure::all().zip(values).filter_map(|(structure, value)| Some((structure.name(), value.as_f64()?))).collect();
        body.push_str(&plots::bars("IoU of each structure on the validation split", &bars)?);
    }
    Ok(())
}

/// Text in HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
