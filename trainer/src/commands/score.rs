//! The command `score`.

use crate::predictions::judges::{Folders, Judges};
use crate::predictions::scores;
use anyhow::Result;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use std::io::Write;
use std::path::PathBuf;

/// Score predictions of any program: one JSON object a line, with expected and predicted text, boxes or labels.
///
/// Keys of a line, all optional: patient, task, expected, predicted, expected_boxes, predicted_boxes ([[x0, y0, x1, y1], ..]),
/// expected_labels, predicted_labels (names), label_scores ({name: probability}).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The predictions.
    predictions: PathBuf,
    #[command(flatten)]
    judges: Folders,
    /// Print the scores of each prediction, as one JSON object a line, instead of the table.
    #[arg(long)]
    each: bool,
    /// Print the table as JSON.
    #[arg(long, conflicts_with = "each")]
    json: bool,
    /// Seed of the resampling for confidence intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A name with its control characters escaped, which would act on the terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut given = scores::read(&arguments.predictions)?;
    let each = Judges::open(&arguments.judges)?.score(&mut given)?;
    let mut out = std::io::stdout().lock();
    if arguments.each {
        return each.iter().try_for_each(|own| Ok(writeln!(out, "{}", serde_json::to_string(own)?)?));
    }
    let tasks = scores::table(&given, &each, arguments.seed);
    if arguments.json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&tasks)?)?);
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["task", "figure", "value", "95 % interval", "predictions"]);
    for (task, figures) in &tasks {
        for (name, figure) in figures {
            let interval = figure.interval.map_or_else(|| "-".into(), |[low, high]| format!("{low:.3} to {high:.3}"));
            table.add_row([printable(task), (*name).to_owned(), format!("{:.3}", figure.value), interval, figure.count.to_string()]);
        }
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    Ok(writeln!(out, "{table}")?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_do_not_act_on_the_terminal() {
        assert_eq!(super::printable("report\u{1b}[2J\tGröße \"a\""), "report\\u{1b}[2J\\tGröße \"a\"");
    }
}
