//! The log of a training stage: a JSON object for each line, in the order of steps.

use crate::run::Run;
use anatomix::output::write_whole;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

/// Names of the training stages, in their order.
pub const STAGES: [&str; 5] = ["text", "apm", "language", "align", "instruct"];
/// Longest log in bytes.
const MAX_LOG: u64 = 1 << 30;

/// A line of a log: `step`, `epoch`, `rate`, `loss` with its parts, and in lines of a checkpoint `validation`, an object of figures.
pub type Line = Map<String, Value>;

/// The log of a stage of a run.
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log of this stage.
    pub fn new(run: &Run, stage: &str) -> Self {
        Self { path: run.file(&format!("{stage}.log.jsonl")) }
    }

    /// Begins at a step: lines of later steps, of a training that was killed, are removed.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn begin(&self, step: u64) -> Result<()> {
        let kept: Vec<Line> = self.lines()?.into_iter().filter(|line| number(line, "step").is_some_and(|s| s <= step as f64)).collect();
        let text: String = kept.into_iter().map(|line| format!("{}\n", Value::Object(line))).collect();
        Ok(write_whole(&self.path, text.as_bytes())?)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&self, line: &Line) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string(line)?);
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// All lines; none if there is no log. A line that was cut short, as by a full disk, is left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let what = || format!("cannot read {}", self.path.display());
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let file = BufReader::new(File::open(&self.path).with_context(what)?.take(MAX_LOG));
        let lines: Vec<String> = file.lines().collect::<Result<_, _>>().with_context(what)?;
        Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

/// Key of the share of time in which steps waited for data.
pub const IDLE: &str = "idle";
/// Begin of the names of figures on the validation split.
pub const VALIDATION: &str = "validation/";

/// A number of a line.
pub fn number(line: &Line, key: &str) -> Option<f64> {
    match key.strip_prefix(VALIDATION) {
        Some(key) => line.get("validation")?.get(key)?.as_f64(),
        None => line.get(key)?.as_f64(),
    }
}

/// All numbers of a line with their names, those of training first.
pub fn numbers(line: &Line) -> Vec<(String, f64)> {
    let own = line.iter().filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)));
    let figures = line.get("validation").and_then(Value::as_object).into_iter().flatten();
    own.chain(figures.filter_map(|(key, value)| Some((format!("{VALIDATION}{key}"), value.as_f64()?)))).collect()
}

/// Names of the numbers in lines, in the order in which they appear first, without step and epoch.
pub fn keys(lines: &[Line]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (key, _) in lines.iter().flat_map(numbers) {
        if key != "step" && key != "epoch" && !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Steps and values of a number.
pub fn series(lines: &[Line], key: &str) -> Vec<(f64, f64)> {
    lines.iter().filter_map(|line| Some((number(line, "step")?, number(line, key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_after_the_checkpoint_are_removed_and_damaged_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(&Run::create(folder.path()).unwrap(), "apm");
        assert!(log.lines().unwrap().is_empty());
        for step in 1..=5 {
            log.append(json!({ "step": step, "loss": 0.5 }).as_object().unwrap()).unwrap();
        }
        OpenOptions::new().append(true).open(folder.path().join("apm.log.jsonl")).unwrap().write_all(b"{\"step\": 6, \"lo").unwrap();
        assert_eq!(log.lines().unwrap().len(), 5);
        log.begin(3).unwrap();
        assert_eq!(series(&log.lines().unwrap(), "loss"), [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5)]);
        log.begin(0).unwrap();
        assert!(log.lines().unwrap().is_empty());
    }

    /// serde_json is exact only with its feature `float_roundtrip`.
    #[test]
    fn figures_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(&Run::create(folder.path()).unwrap(), "apm");
        let losses: Vec<f64> = (1..2000).map(|step| 1.0 / f64::from(step) - f64::from(step) * 1e-7).collect();
        for (step, loss) in (1..).zip(&losses) {
            log.append(json!({ "step": step, "loss": loss }).as_object().unwrap()).unwrap();
        }
        let found: Vec<f64> = series(&log.lines().unwrap(), "loss").into_iter().map(|(_, loss)| loss).collect();
        assert_eq!(found, losses);
    }
}
