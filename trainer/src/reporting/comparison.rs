//! Several runs side by side.

use super::log::{self, Log, STAGES};
use crate::run::Run;
use anyhow::{Result, ensure};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// A figure of runs.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The training stage.
    pub stage: &'static str,
    /// Name of the figure.
    pub figure: String,
    /// Its latest value in each run, in the order of the runs.
    pub values: Vec<Option<f64>>,
}

/// The latest figures of runs, in the order of stages.
///
/// # Errors
/// If a run has no log, or it cannot be read.
pub fn compare(runs: &[Run]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut found = vec![false; runs.len()];
    for stage in STAGES {
        let logs = runs.iter().map(|run| Log::new(run, stage).lines()).collect::<Result<Vec<_>>>()?;
        let mut figures = vec!["step".to_string()];
        for (lines, found) in logs.iter().zip(&mut found) {
            *found |= !lines.is_empty();
            for key in log::keys(lines) {
                if !figures.contains(&key) {
                    figures.push(key);
                }
            }
        }
        if logs.iter().any(|lines| !lines.is_empty()) {
            rows.extend(figures.into_iter().map(|figure| Row {
                stage,
                values: logs.iter().map(|lines| log::series(lines, &figure).last().map(|&(_, value)| value)).collect(),
                figure,
            }));
        }
    }
    for (run, found) in runs.iter().zip(found) {
        ensure!(found, "{} has no log of a training stage", run.folder.display());
    }
    Ok(rows)
}

/// Formats the comparison as a table with a column for each run.
pub fn table(runs: &[Run], rows: &[Row]) -> String {
    let mut table = Table::new();
    let names = runs.iter().map(|run| run.folder.display().to_string());
    table.load_style(ASCII_MARKDOWN).set_header(["stage".to_string(), "figure".into()].into_iter().chain(names));
    for column in 2..runs.len() + 2 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        let number = |value: &Option<f64>| match value {
            Some(value) if row.figure == "step" => format!("{value:.0}"),
            Some(value) if value.abs() < 1e-3 && *value != 0.0 => format!("{value:.2e}"),
            Some(value) => format!("{value:.4}"),
            None => String::new(),
        };
        table.add_row([row.stage.to_string(), row.figure.clone()].into_iter().chain(row.values.iter().map(number)));
    }
    table.to_string()
}
