//! The figures that the paper's own tables give.

use anatomix::Structure;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A row of one of the paper's tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quoted {
    /// The model or data set; of tables S5 to S8 the letter of the part.
    pub model: String,
    /// The figure that the row gives, of tables S5 to S8.
    #[serde(default)]
    pub figure: String,
    /// The figures in the order of the columns.
    pub cells: Vec<f64>,
}

#[derive(Deserialize)]
struct Paper {
    /// The structures that are the columns of tables S5 to S8.
    structures: BTreeMap<String, Vec<usize>>,
    #[serde(flatten)]
    tables: BTreeMap<String, Vec<Quoted>>,
}

static PAPER: LazyLock<Paper> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../data/paper.json")).expect("figures of the paper"));

/// The rows of a table, in its order.
pub fn rows(table: &str) -> &'static [Quoted] {
    PAPER.tables.get(table).map_or(&[], Vec::as_slice)
}

/// The structures that are the columns of a table.
pub fn structures(table: &str) -> Vec<Structure> {
    PAPER.structures.get(table).into_iter().flatten().filter_map(|&index| Structure::all().nth(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anatomix::STRUCTURE_COUNT;

    fn row(table: &str, model: &str, figure: &str) -> &'static [f64] {
        &rows(table).iter().find(|row| row.model == model && row.figure == figure).unwrap().cells
    }

    fn sum(table: &str) -> f64 {
        rows(table).iter().flat_map(|row| &row.cells).sum()
    }

    /// Rows and sums that were copied from the paper's text by hand.
    #[test]
    fn rows_are_those_of_the_paper() {
        assert_eq!(row("1", "AnatomiX", ""), [0.63, 0.65, 0.60, 0.56, 0.42, 0.48, 0.58, 0.50, 0.54, 0.78, 0.46, 0.35, 0.73, 0.66]);
        assert_eq!(row("1", "RadVLM", "")[12..], [0.60, 0.49]);
        assert_eq!(row("2", "RaDialog", ""), [0.51, 0.35, 0.18, 0.24, 0.48]);
        assert_eq!(row("3", "CheXagent", ""), [0.85, 0.31, 0.22]);
        assert_eq!(row("4", "AnatomiX", ""), [0.86, 0.86, 0.89, 0.95]);
        assert_eq!(row("S2", "APM", ""), [0.812, 0.634, 0.709, 0.727]);
        assert_eq!(row("S3", "VinDr-CXR", ""), [0.230, 0.180]);
        assert_eq!(row("S4", "MS-CXR", ""), [0.758, 0.729, 0.402, 0.732, 0.744]);
        assert_eq!(row("S5", "a", "IoU")[..3], [0.88, 0.86, 0.77]);
        assert_eq!(row("S8", "c", "mAP"), [0.45, 0.02, 0.0, 0.0]);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        near(
            rows("2").iter().map(|row| row.cells[0]).sum(),
            0.43 + 0.51 + 0.37 + 0.45 + 0.32 + 0.53 + 0.15 + 0.14 + 0.32 + 0.13 + 0.27 + 0.15 + 0.46,
        );
        near(sum("S2"), 2.807 + 2.792 + 2.786 + 2.882);
        near(sum("S3"), 1.206 + 0.905);
    }

    #[test]
    fn tables_have_the_paper_s_shape() {
        for (table, rows, columns) in [
            ("1", 11, 14),
            ("2", 13, 5),
            ("3", 13, 3),
            ("4", 13, 4),
            ("S2", 4, 4),
            ("S3", 3, 2),
            ("S4", 2, 5),
            ("S5", 18, 12),
            ("S6", 18, 13),
            ("S7", 18, 7),
            ("S8", 18, 4),
        ] {
            let found = super::rows(table);
            assert!(found.len() == rows && found.iter().all(|row| row.cells.len() == columns), "{table}");
            assert!(found.iter().flat_map(|row| &row.cells).all(|value| (0.0..=1.0).contains(value)), "{table}");
        }
        let mut all: Vec<usize> = ["S5", "S6", "S7", "S8"].iter().flat_map(|table| structures(table)).map(Structure::index).collect();
        all.sort_unstable();
        assert_eq!(all, (0..STRUCTURE_COUNT).collect::<Vec<_>>(), "each structure is in one table");
        // The mean over all structures is the figure of table 1: 0.73 and, mirrored, 0.712 in the text.
        let mean = |part: &str| {
            let cells: Vec<f64> = ["S5", "S6", "S7", "S8"].iter().flat_map(|table| row(table, part, "IoU")).copied().collect();
            cells.iter().sum::<f64>() / cells.len() as f64
        };
        assert!((mean("a") - 0.73).abs() < 0.01 && (mean("b") - 0.712).abs() < 0.005, "{} {}", mean("a"), mean("b"));
        assert!((mean("c") - 0.108).abs() < 0.02, "{}", mean("c"));
    }
}
