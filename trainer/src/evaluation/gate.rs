//! The gate before an update: a bundle must not be worse than what was measured before.

use anatomix::parts::files;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// Largest file of figures in bytes; one has some ten thousand.
const MAX_FIGURES: u64 = 4 << 20;

/// Figures that are better if they are larger, by their key.
const GAINS: [&str; 10] =
    ["iou", "iou_answered", "worst", "exact", "exact_with_finding", "normal_exact", "accuracy", "rouge1", "macro_f1", "micro_f1"];
/// Keys of objects with such figures.
const GAINS_BY_NAME: [&str; 2] = ["per_structure", "per_label"];
/// What has to be equal for a comparison.
const EQUAL: [&str; 2] = ["images", "flip"];

/// Reading a number of JSON may change its last digit.
const ROUNDING: f64 = 1e-9;

/// A figure that fell by more than was allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The keys that lead to it: `tasks.report.rouge1`.
    pub figure: String,
    /// Its value in the baseline.
    pub before: f64,
    /// Its value now; `None` if it is missing.
    pub now: Option<f64>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now.map_or_else(|| "missing".into(), |now| format!("{now:.4}"));
        write!(f, "{}: {now}, was {:.4}", self.figure, self.before)
    }
}

/// Reads figures that `evaluate --json` printed.
///
/// # Errors
/// If the file cannot be read or is not such figures.
pub fn baseline(path: &Path) -> Result<Value> {
    let bytes = files::read(path, MAX_FIGURES).with_context(|| format!("cannot read {}", path.display()))?;
    let figures: Value = serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))?;
    ensure!(
        EQUAL.iter().all(|key| figures.get(key).is_some()) && !gains(&figures).is_empty(),
        "{} has no figures of a bundle; write it with `evaluate --json`",
        path.display()
    );
    Ok(figures)
}

/// The figures that are lower than in the baseline by more than `tolerance`, or missing, in the order of their keys.
///
/// # Errors
/// If the figures are not of as many images, or only one side is of mirrored images.
pub fn losses(baseline: &Value, now: &Value, tolerance: f64) -> Result<Vec<Loss>> {
    for key in EQUAL {
        let [before, now] = [baseline, now].map(|figures| &figures[key]);
        if before != now {
            bail!("the baseline has {key} = {before}, but this evaluation {key} = {now}; evaluate the same images in the same way");
        }
    }
    let found: std::collections::HashMap<String, f64> = gains(now).into_iter().collect();
    let lost = gains(baseline).into_iter().filter_map(|(figure, before)| {
        let now = found.get(&figure).copied();
        let is_lost = now.is_none_or(|now| now < before - tolerance - ROUNDING);
        is_lost.then_some(Loss { figure, before, now })
    });
    Ok(lost.collect())
}

/// All figures that are better if they are larger, with the keys that lead to them.
fn gains(figures: &Value) -> Vec<(String, f64)> {
    fn walk(value: &Value, path: &str, parent: &str, found: &mut Vec<(String, f64)>) {
        let Value::Object(map) = value else { return };
        for (key, value) in map {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value.as_f64() {
                Some(number) if GAINS.contains(&key.as_str()) || GAINS_BY_NAME.contains(&parent) => found.push((path, number)),
                Some(_) => {}
                None => walk(value, &path, key, found),
            }
        }
    }
    let mut found = Vec::new();
    walk(figures, "", "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures() -> Value {
        json!({
            "images": 9, "flip": false,
            "apm": {"iou": 0.8, "per_structure": {"Left lung": 0.9}, "counts": {"Left lung": 9}},
            "tasks": {"report": {"count": 9, "rouge1": 0.9, "milliseconds": 5.0}},
        })
    }

    #[test]
    fn only_what_fell_by_more_than_the_tolerance_is_a_loss() {
        let before = figures();
        assert_eq!(losses(&before, &before, 0.0).unwrap(), []);
        let mut now = figures();
        now["apm"]["per_structure"]["Left lung"] = json!(0.88);
        now["apm"]["counts"]["Left lung"] = json!(1);
        now["tasks"]["report"] = json!({"count": 9, "milliseconds": 900.0});
        now["apm"]["iou"] = json!(0.7991);
        let lost: Vec<String> = losses(&before, &now, 0.01).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["apm.per_structure.Left lung: 0.8800, was 0.9000", "tasks.report.rouge1: missing, was 0.9000"]);
        assert_eq!(losses(&now, &before, 0.0).unwrap(), []);
    }

    #[test]
    fn figures_of_other_images_are_not_compared() {
        for (key, value) in [("images", json!(8)), ("flip", json!(true))] {
            let mut other = figures();
            other[key] = value;
            let error = losses(&other, &figures(), 0.0).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("the same images"), "{error}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["{", "{}", "[1]", "{\"images\": 1, \"flip\": false}"] {
            std::fs::write(file.path(), text).unwrap();
            let error = format!("{:#}", baseline(file.path()).unwrap_err());
            assert!(error.contains(&file.path().display().to_string()), "{error}");
        }
        std::fs::write(file.path(), figures().to_string()).unwrap();
        assert_eq!(baseline(file.path()).unwrap(), figures());
    }
}
