//! The rows and columns of the tables.

use super::groups::{Condition, Measured, PERCEPTION, RETRIEVAL};
use super::paper::{Quoted, rows, structures};
use anatomix::Structure;
use serde::Serialize;
use std::collections::BTreeMap;

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its number in the paper, such as `S5`; `E1` is ours.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// Names of the columns with figures.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The model, data set or figure.
    pub label: String,
    /// Whether the figures are the paper's own.
    pub quoted: bool,
    /// How figures were computed: as in the paper, or corrected; `None` if that makes no difference.
    pub protocol: Option<&'static str>,
    /// The figures in the order of the columns.
    pub cells: Vec<Cell>,
}

/// A figure, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The figure.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Number of questions that it is of.
    pub count: Option<usize>,
    /// What has to be known of it.
    pub note: Option<String>,
}

/// A model with its figures under each condition.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// The name in the rows.
    pub name: String,
    /// Whether it is the bundle, whose boxes and sentences of structures are known.
    pub is_bundle: bool,
    /// The figures.
    pub conditions: BTreeMap<Condition, Measured>,
}

/// A column: its name, a group of questions, and a figure of them in the paper's protocol and in the corrected one.
type Column = (&'static str, &'static str, [&'static str; 2]);

const PAPER: &str = "paper's";
const CORRECTED: &str = "corrected";
const PROTOCOLS: [&str; 2] = [PAPER, CORRECTED];

const IOU: [&str; 2] = ["iou", "iou_all"];
const MAP: [&str; 2] = ["map", "map_all"];
const ROUGE: [&str; 2] = ["rouge1", "rouge1"];
const BERT: [&str; 2] = ["bert_score", "bert_score"];
const METEOR: [&str; 2] = ["meteor", "meteor"];
const RADGRAPH: [&str; 2] = ["radgraph", "radgraph"];
const CHEXBERT: [&str; 2] = ["chexbert_weighted", "chexbert_macro"];
/// F1 of the labels that answers list, in the place of CheXbert's.
const LISTED: [&str; 2] = ["f1_weighted", "f1_macro"];

const GROUNDING: [Column; 14] = [
    ("BERTScore, diagnosis", "grounded_diagnosis", BERT),
    ("BERTScore, captioning", "grounded_captioning", BERT),
    ("ROUGE, diagnosis", "grounded_diagnosis", ROUGE),
    ("ROUGE, captioning", "grounded_captioning", ROUGE),
    ("METEOR, diagnosis", "grounded_diagnosis", METEOR),
    ("METEOR, captioning", "grounded_captioning", METEOR),
    ("RadGraph F1, diagnosis", "grounded_diagnosis", RADGRAPH),
    ("RadGraph F1, captioning", "grounded_captioning", RADGRAPH),
    ("CheXbert-14 F1, diagnosis", "grounded_diagnosis", CHEXBERT),
    ("CheXbert-14 F1, captioning", "grounded_captioning", CHEXBERT),
    ("IoU, phrases", "phrase_grounding", IOU),
    ("mAP, phrases", "phrase_grounding", MAP),
    ("IoU, anatomy", "anatomy_grounding", IOU),
    ("mAP, anatomy", "anatomy_grounding", MAP),
];
const REPORTS: [Column; 5] = [
    ("ROUGE", "report", ROUGE),
    ("BERTScore", "report", BERT),
    ("METEOR", "report", METEOR),
    ("RadGraph F1", "report", RADGRAPH),
    ("CheXbert-14 F1", "report", CHEXBERT),
];
const UNDERSTANDING: [Column; 3] = [
    ("CheXbert-14 F1, classification", "classification", CHEXBERT),
    ("IoU, detection", "abnormality_detection", IOU),
    ("mAP, detection", "abnormality_detection", MAP),
];
const QUESTIONS: [Column; 4] = [
    ("BERTScore, open", "open_question", BERT),
    ("CheXbert-14 F1, open", "open_question", CHEXBERT),
    ("BERTScore, closed", "closed_question", BERT),
    ("CheXbert-14 F1, closed", "closed_question", CHEXBERT),
];
const MODULE: [Column; 4] = [
    ("IoU", PERCEPTION, IOU),
    ("CheXbert-14 F1", RETRIEVAL, CHEXBERT),
    ("RadGraph F1", RETRIEVAL, RADGRAPH),
    ("METEOR", RETRIEVAL, METEOR),
];
const BOXES: [(&str, [&str; 2]); 2] = [("IoU", IOU), ("mAP", MAP)];
const TEXTS: [(&str, [&str; 2]); 5] =
    [("BERTScore", BERT), ("ROUGE", ROUGE), ("METEOR", METEOR), ("RadGraph F1", RADGRAPH), ("CheXbert-14 F1", CHEXBERT)];
const SENTENCES: [(&str, [&str; 2]); 3] = [("CheXbert-14 F1", CHEXBERT), ("RadGraph F1", RADGRAPH), ("METEOR", METEOR)];

/// All tables. The first of the models is the bundle.
pub fn tables(models: &[Model]) -> Vec<Table> {
    let mut tables = vec![
        by_model("1", "Grounding", &GROUNDING, models),
        by_model("2", "Report generation", &REPORTS, models),
        by_model("3", "Image understanding", &UNDERSTANDING, models),
        by_model("4", "Visual question answering", &QUESTIONS, models),
        by_model("S2", "The perception module", &MODULE, &models[..models.len().min(1)]),
        by_data_set("S3", "Phrase grounding by data set", "phrase_grounding", &BOXES, models),
        by_data_set("S4", "Grounded diagnosis by data set", "grounded_diagnosis", &TEXTS, models),
        by_structure("S5", "Structures of the left side", models),
        by_structure("S6", "Structures of the right side", models),
        by_structure("S7", "Structures in the middle", models),
        by_structure("S8", "Heart and vessels", models),
    ];
    tables.push(orientation(models));
    tables
}

/// The figure of a group under a condition, or why there is none.
fn cell(model: &Model, condition: Condition, group: &str, [figure, listed]: [&str; 2]) -> Cell {
    let missing = |note: &str| Cell { note: Some(note.into()), ..Cell::default() };
    let Some(measured) = model.conditions.get(&condition) else {
        return missing(match condition {
            Condition::Upright => "this model was not asked",
            Condition::Mirrored => "not asked on mirrored images",
            Condition::Unmarked => "there are no images without markers; name a folder with --without-markers",
        });
    };
    let Some(figures) = measured.groups.get(group) else { return missing("the data have nothing of this kind") };
    let of = |name: &str, note: Option<String>| {
        let figure = figures.get(name)?;
        Some(Cell { value: Some(figure.value), interval: figure.interval, count: Some(figure.count), note })
    };
    let found = of(figure, None).or_else(|| {
        (group == "classification").then(|| of(listed, Some("F1 of the labels that answers list, without CheXbert".into())))?
    });
    found.unwrap_or_else(|| {
        missing(match figure {
            "meteor" => "needs WordNet; name its folder with --wordnet",
            "bert_score" => "needs a model; name its folder with --bertscore",
            "radgraph" => "needs a model; name its folder with --radgraph",
            "chexbert_weighted" | "chexbert_macro" => "needs a model; name its folder with --chexbert, or no label occurs",
            _ => "no answer has a box",
        })
    })
}

fn quoted(row: &Quoted, label: String) -> Row {
    let cells = row.cells.iter().map(|&value| Cell { value: Some(value), ..Cell::default() }).collect();
    Row { label, quoted: true, protocol: None, cells }
}

/// Rows of a model in both protocols. A row in which the two do not differ is given once.
fn both(label: &str, cells: impl Fn(usize) -> Vec<Cell>) -> Vec<Row> {
    let [paper, corrected] = [0, 1].map(cells);
    let row = |protocol, cells| Row { label: label.into(), quoted: false, protocol, cells };
    if paper == corrected {
        return vec![row(None, paper)];
    }
    vec![row(Some(PROTOCOLS[0]), paper), row(Some(PROTOCOLS[1]), corrected)]
}

fn by_model(id: &'static str, title: &'static str, columns: &[Column], models: &[Model]) -> Table {
    let (ablations, others): (Vec<&Quoted>, Vec<&Quoted>) = rows(id).iter().partition(|row| row.model.contains("ablation"));
    let mut table: Vec<Row> = others.into_iter().map(|row| quoted(row, row.model.clone())).collect();
    for model in models {
        table.extend(both(&model.name, |protocol| {
            let of = |&(_, group, figure): &Column| cell(model, Condition::Upright, group, [figure[protocol], LISTED[protocol]]);
            columns.iter().map(of).collect()
        }));
    }
    table.extend(ablations.into_iter().map(|row| quoted(row, row.model.clone())));
    Table { id, title, columns: columns.iter().map(|column| column.0.into()).collect(), rows: table }
}

fn by_data_set(id: &'static str, title: &'static str, task: &str, columns: &[(&str, [&'static str; 2])], models: &[Model]) -> Table {
    let mut table: Vec<Row> = rows(id).iter().map(|row| quoted(row, format!("AnatomiX, {}", row.model))).collect();
    for model in models {
        let groups = model.conditions.get(&Condition::Upright).into_iter().flat_map(|measured| measured.groups.keys());
        let own = groups.filter_map(|group| Some((group, group.strip_prefix(task)?.strip_prefix('/')?)));
        for (group, name) in own.filter(|(_, name)| *name != "follow_up") {
            table.extend(both(&format!("{}, {name}", model.name), |protocol| {
                columns.iter().map(|(_, figure)| cell(model, Condition::Upright, group, [figure[protocol], ""])).collect()
            }));
        }
    }
    Table { id, title, columns: columns.iter().map(|column| column.0.into()).collect(), rows: table }
}

fn by_structure(id: &'static str, title: &'static str, models: &[Model]) -> Table {
    let columns = structures(id);
    let part = |letter: &str| match letter {
        "a" => "AnatomiX, grounding",
        "b" => "AnatomiX, grounding on mirrored images",
        "c" => "RadVLM, grounding on mirrored images",
        "d" => "APM, retrieval",
        "e" => "APM without the feature extractor, retrieval",
        "f" => "APM with DINOv3, retrieval",
        _ => "APM with CLIP loss, retrieval",
    };
    let mut table: Vec<Row> =
        rows(id).iter().map(|row| quoted(row, format!("({}) {}: {}", row.model, part(&row.model), row.figure))).collect();
    let mut add = |model: &Model, condition: Condition, kind: &str, what: &str, figures: &[(&str, [&'static str; 2])]| {
        let shown = if condition == Condition::Upright { "" } else { condition.name() };
        for (name, figure) in figures {
            let label = format!("{}, {what}{}{shown}: {name}", model.name, if shown.is_empty() { "" } else { ", " });
            table.extend(both(&label, |protocol| {
                let of = |structure: &Structure| cell(model, condition, &format!("{kind}/{structure}"), [figure[protocol], ""]);
                columns.iter().map(of).collect()
            }));
        }
    };
    for model in models {
        for &condition in model.conditions.keys() {
            add(model, condition, "anatomy_grounding", "grounding", &BOXES);
        }
    }
    for model in models.iter().filter(|model| model.is_bundle) {
        for &condition in model.conditions.keys() {
            add(model, condition, PERCEPTION, "perception", &BOXES[..1]);
        }
        add(model, Condition::Upright, RETRIEVAL, "retrieval", &SENTENCES);
    }
    Table { id, title, columns: columns.iter().map(|structure| structure.name().into()).collect(), rows: table }
}

/// Grounding on images as they are, mirrored, and without markers.
fn orientation(models: &[Model]) -> Table {
    const COLUMNS: [Column; 5] = [
        ("IoU, anatomy", "anatomy_grounding", IOU),
        ("mAP, anatomy", "anatomy_grounding", MAP),
        ("IoU, phrases", "phrase_grounding", IOU),
        ("mAP, phrases", "phrase_grounding", MAP),
        ("IoU, perception", PERCEPTION, IOU),
    ];
    // The means that the paper's text gives; its table 1 has those of images as they are.
    let text = |label: &str, values: [Option<f64>; 5]| Row {
        label: label.into(),
        quoted: true,
        protocol: None,
        cells: values.map(|value| Cell { value, note: value.is_none().then(|| "not in the paper".into()), ..Cell::default() }).into(),
    };
    let mut table = vec![
        text("AnatomiX, upright", [Some(0.73), Some(0.66), Some(0.46), Some(0.35), Some(0.812)]),
        text("AnatomiX, mirrored", [Some(0.712), Some(0.605), None, None, None]),
        text("RadVLM, mirrored", [Some(0.108), Some(0.08), None, None, None]),
    ];
    for model in models {
        for &condition in model.conditions.keys() {
            table.extend(both(&format!("{}, {}", model.name, condition.name()), |protocol| {
                let of = |&(_, group, figure): &Column| cell(model, condition, group, [figure[protocol], ""]);
                COLUMNS.iter().map(of).collect()
            }));
        }
    }
    let columns = COLUMNS.iter().map(|column| column.0.into()).collect();
    Table { id: "E1", title: "Orientation: mirrored images, and images without markers", columns, rows: table }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::scores::Figure;

    fn model() -> Model {
        let figure = |value| Figure { value, interval: Some([value - 0.1, value + 0.1]), count: 7 };
        let mut measured = Measured::default();
        let boxes = BTreeMap::from([("iou", figure(0.7)), ("iou_all", figure(0.5)), ("map", figure(0.6)), ("map_all", figure(0.4))]);
        for group in ["anatomy_grounding", "anatomy_grounding/Left lung", "phrase_grounding", "phrase_grounding/phantoms"] {
            measured.groups.insert(group.into(), boxes.clone());
        }
        measured.groups.insert("report".into(), BTreeMap::from([("rouge1", figure(0.8))]));
        measured.groups.insert("classification".into(), BTreeMap::from([("f1_weighted", figure(0.9)), ("f1_macro", figure(0.3))]));
        Model { name: "this bundle".into(), is_bundle: true, conditions: BTreeMap::from([(Condition::Upright, measured)]) }
    }

    fn rows_of<'a>(tables: &'a [Table], id: &str, label: &str) -> Vec<&'a Row> {
        tables.iter().find(|table| table.id == id).unwrap().rows.iter().filter(|row| row.label.starts_with(label)).collect()
    }

    #[test]
    fn each_cell_has_a_figure_or_says_why_there_is_none() {
        let tables = tables(&[model()]);
        assert_eq!(
            tables.iter().map(|table| table.id).collect::<Vec<_>>(),
            ["1", "2", "3", "4", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "E1"]
        );
        for table in &tables {
            for row in &table.rows {
                assert_eq!(row.cells.len(), table.columns.len(), "{} {}", table.id, row.label);
                for cell in &row.cells {
                    assert!(cell.value.is_some() || cell.note.is_some(), "{} {}", table.id, row.label);
                    assert!(row.quoted || cell.value.is_none() || cell.count == Some(7), "{} {}", table.id, row.label);
                }
            }
        }
    }

    #[test]
    fn both_protocols_are_given_where_they_differ() {
        let tables = tables(&[model()]);
        let own = rows_of(&tables, "1", "this bundle");
        assert_eq!(own.iter().map(|row| row.protocol).collect::<Vec<_>>(), [Some(PAPER), Some(CORRECTED)]);
        let values = |row: &Row| row.cells[10..].iter().map(|cell| cell.value.unwrap()).collect::<Vec<_>>();
        assert_eq!((values(own[0]), values(own[1])), (vec![0.7, 0.6, 0.7, 0.6], vec![0.5, 0.4, 0.5, 0.4]));
        assert!(own[0].cells[0].note.as_ref().unwrap().contains("the data have nothing"));
        let report = rows_of(&tables, "2", "this bundle");
        assert_eq!((report.len(), report[0].cells[0].value, report[0].protocol), (1, Some(0.8), None));
        assert!(report[0].cells[2].note.as_ref().unwrap().contains("--wordnet"));
        let labels = &rows_of(&tables, "3", "this bundle")[0].cells[0];
        assert!(labels.value == Some(0.9) && labels.note.as_ref().unwrap().contains("without CheXbert"));
        assert_eq!(rows_of(&tables, "S3", "this bundle, phantoms").len(), 2);
        let left = rows_of(&tables, "S5", "this bundle, grounding: IoU");
        assert_eq!((left[0].cells[0].value, left[1].cells[0].value, left[0].cells[1].value), (Some(0.7), Some(0.5), None));
        // The paper's own rows are there, as they are.
        assert_eq!(rows_of(&tables, "S8", "(c) RadVLM, grounding on mirrored images: IoU")[0].cells[0].value, Some(0.59));
    }
}
