//! Tables as Markdown and as lines of figures.

use super::layout::{Cell, Row, Table};
use anyhow::Result;
use std::fmt::Write;

/// Tables as Markdown. Under each table is what has to be known of its cells.
pub fn markdown(tables: &[Table], head: &str) -> String {
    let mut out = format!("{head}\n");
    for table in tables {
        let mut notes: Vec<&str> = Vec::new();
        let _ = writeln!(out, "\n## Table {}. {}\n", table.id, table.title);
        let _ = writeln!(out, "| | {} |", table.columns.join(" | "));
        let _ = writeln!(out, "| --- |{}", " ---: |".repeat(table.columns.len()));
        for row in &table.rows {
            let cells: Vec<String> = row.cells.iter().map(|cell| shown(cell, &mut notes)).collect();
            let _ = writeln!(out, "| {} | {} |", label(row), cells.join(" | "));
        }
        if !notes.is_empty() {
            out.push('\n');
        }
        for (number, note) in notes.iter().enumerate() {
            let _ = writeln!(out, "[{}] {note}.{}", number + 1, if number + 1 < notes.len() { "  " } else { "" });
        }
    }
    out
}

/// Figures one a line: table, row, whether quoted, protocol, column, figure, interval, count, note.
///
/// # Errors
/// If they cannot be written.
pub fn csv(tables: &[Table]) -> Result<Vec<u8>> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    lines.write_record(["table", "row", "quoted", "protocol", "column", "value", "low", "high", "count", "note"])?;
    for table in tables {
        for row in &table.rows {
            for (column, cell) in table.columns.iter().zip(&row.cells) {
                let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
                lines.write_record([
                    table.id,
                    &row.label,
                    if row.quoted { "yes" } else { "no" },
                    row.protocol.unwrap_or_default(),
                    column,
                    &number(cell.value),
                    &number(cell.interval.map(|interval| interval[0])),
                    &number(cell.interval.map(|interval| interval[1])),
                    &cell.count.map_or_else(String::new, |count| count.to_string()),
                    cell.note.as_deref().unwrap_or_default(),
                ])?;
            }
        }
    }
    Ok(lines.into_inner()?)
}

/// A name of a bundle or model as plain text in Markdown. Names are the user's, and may hold markup or what separates columns and rows.
pub fn plain(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '\\' | '|' | '<' | '&' | '`' | '[' | ']' | '*' => out.extend(['\\', c]),
            // Line separators, and marks that change the direction of text.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push(' '),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn label(row: &Row) -> String {
    let label = plain(&row.label);
    match (row.quoted, row.protocol) {
        (true, _) => format!("{label} (quoted from the paper)"),
        (_, Some(protocol)) => format!("{label} ({protocol} protocol)"),
        _ => label,
    }
}

fn shown<'a>(cell: &'a Cell, notes: &mut Vec<&'a str>) -> String {
    let mut parts = Vec::new();
    parts.extend(cell.value.map(|value| if cell.count.is_some() { format!("{value:.3}") } else { value.to_string() }));
    parts.extend(cell.interval.map(|[low, high]| format!("({low:.3} to {high:.3})")));
    if let Some(note) = &cell.note {
        let number = notes.iter().position(|known| known == note).unwrap_or_else(|| {
            notes.push(note);
            notes.len() - 1
        });
        parts.push(format!("[{}]", number + 1));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_figures_are_marked_and_notes_are_given_once() {
        let missing = Cell { note: Some("needs a model".into()), ..Cell::default() };
        let value = Cell { value: Some(0.12345), interval: Some([0.1, 0.2]), count: Some(9), note: None };
        let row = |label: &str, quoted, cells: &[Cell]| Row {
            label: label.into(),
            quoted,
            protocol: (!quoted).then_some("corrected"),
            cells: cells.into(),
        };
        let quoted = Cell { value: Some(0.5), ..Cell::default() };
        let rows = vec![
            row("AnatomiX", true, &[quoted.clone(), quoted]),
            row("a|\nb", false, &[value, missing.clone()]),
            row("c", false, &[missing.clone(), missing]),
        ];
        let tables = [Table { id: "1", title: "Grounding", columns: vec!["IoU".into(), "mAP".into()], rows }];
        let text = markdown(&tables, "# Head");
        assert!(text.starts_with("# Head\n\n## Table 1. Grounding\n\n| | IoU | mAP |\n| --- | ---: | ---: |\n"), "{text}");
        assert!(text.contains("| AnatomiX (quoted from the paper) | 0.5 | 0.5 |\n"), "{text}");
        assert!(text.contains("| a\\| b (corrected protocol) | 0.123 (0.100 to 0.200) | [1] |\n"), "{text}");
        assert!(text.contains("| c (corrected protocol) | [1] | [1] |\n\n[1] needs a model.\n"), "{text}");
        assert_eq!(plain("a<b>`c`\n# d\u{1b}[2J|\\ é\u{202e}"), r"a\<b>\`c\` # d \[2J\|\\ é ");
        let lines = String::from_utf8(csv(&tables).unwrap()).unwrap();
        assert!(
            lines.contains("1,\"a|\nb\",no,corrected,IoU,0.12345,0.1,0.2,9,\n")
                && lines.contains("1,c,no,corrected,mAP,,,,,needs a model\n"),
            "{lines}"
        );
    }
}
