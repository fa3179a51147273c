//! Chest ImaGenome scene graphs with the splits and labels of MIMIC-CXR.

use super::sources::imagenome::by_raw_name;
use anatomix::parts::geometry::Letterbox;
use anatomix::{LABEL_COUNT, Label, NormalizedBox, PixelBox, STRUCTURE_COUNT, Structure};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// An image with its annotations.
#[derive(Clone, Debug)]
pub struct Annotated {
    /// Identifier of the image.
    pub id: String,
    /// Name of the split: "train", "validate" or "test".
    pub split: String,
    /// Path of the image's file.
    pub image: PathBuf,
    /// Box of each structure in the letterboxed square; `None` for a structure that is not annotated.
    pub boxes: [Option<NormalizedBox>; STRUCTURE_COUNT],
    /// Sentence of each structure, in index order.
    pub sentences: Vec<String>,
    /// For each label 1 if it applies, otherwise 0.
    pub labels: [f32; LABEL_COUNT],
}

#[derive(Deserialize)]
struct SceneGraph {
    objects: Vec<Object>,
    attributes: Vec<Attributes>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    original_x1: f32,
    original_y1: f32,
    original_x2: f32,
    original_y2: f32,
    original_width: u32,
    original_height: u32,
}

#[derive(Deserialize)]
struct Attributes {
    name: String,
    attributes: Vec<Vec<String>>,
}

/// Reads a folder in the layout of the data sets; only images of splits for which `wanted` is true are returned.
///
/// # Errors
/// If a table or a scene graph is missing or malformed; the message names the file and, for a table, the line.
pub fn read(folder: &Path, wanted: impl Fn(&str) -> bool + Sync) -> Result<Vec<Annotated>> {
    let labels = read_labels(&folder.join("mimic-cxr-2.0.0-chexpert.csv"))?;
    let rows = read_table(&folder.join("mimic-cxr-2.0.0-split.csv"))?;
    let images: Vec<_> =
        rows.iter().map(|row| Ok((field(row, "dicom_id")?, field(row, "study_id")?, field(row, "split")?))).collect::<Result<Vec<_>>>()?;
    images
        .into_par_iter()
        .filter(|(_, _, split)| wanted(split))
        .map(|(id, study, split)| {
            let path = folder.join(format!("silver_dataset/scene_graph/{id}_SceneGraph.json"));
            let text = std::fs::read(&path).with_context(|| format!("cannot read the scene graph {}", path.display()))?;
            let graph: SceneGraph = serde_json::from_slice(&text).with_context(|| format!("{} is not a scene graph", path.display()))?;
            let (boxes, sentences) = structures(&graph);
            Ok(Annotated {
                image: folder.join(format!("images/{id}.png")),
                labels: labels.get(study).copied().with_context(|| format!("study {study} has no labels"))?,
                id: id.clone(),
                split: split.clone(),
                boxes,
                sentences,
            })
        })
        .collect()
}

fn structures(graph: &SceneGraph) -> ([Option<NormalizedBox>; STRUCTURE_COUNT], Vec<String>) {
    let mut boxes = [None; STRUCTURE_COUNT];
    for object in &graph.objects {
        if let Some(structure) = by_raw_name(&object.name) {
            let letterbox = Letterbox::new(object.original_width, object.original_height);
            let bounds = PixelBox::new(object.original_x1, object.original_y1, object.original_x2, object.original_y2);
            boxes[structure.index()] = Some(letterbox.normalize(&bounds));
        }
    }
    let sentences = Structure::all().map(|structure| {
        let mut terms: Vec<(&str, &str)> = graph
            .attributes
            .iter()
            .filter(|a| by_raw_name(&a.name) == Some(structure))
            .flat_map(|a| a.attributes.iter().flatten())
            .filter_map(|attribute| match attribute.split('|').collect::<Vec<_>>()[..] {
                // These categories qualify a finding and do not assert one.
                ["laterality" | "severity" | "nlp", ..] => None,
                [category, "yes", term] => Some((category, term)),
                _ => None,
            })
            .collect();
        terms.sort();
        terms.dedup();
        anatomix_phantom::text::sentence(structure, &terms)
    });
    (boxes, sentences.collect())
}

type Row = HashMap<String, String>;

fn field<'a>(row: &'a Row, name: &str) -> Result<&'a String> {
    row.get(name).with_context(|| format!("a table has no column {name}"))
}

fn read_table(path: &Path) -> Result<Vec<Row>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    reader.deserialize().map(|row| row.with_context(|| format!("{} is malformed", path.display()))).collect()
}

fn read_labels(path: &Path) -> Result<HashMap<String, [f32; LABEL_COUNT]>> {
    let mut out = HashMap::new();
    for (number, row) in read_table(path)?.into_iter().enumerate() {
        let mut labels = [0.0; LABEL_COUNT];
        for label in Label::ALL {
            labels[label.index()] = match field(&row, label.name())?.as_str() {
                "1.0" | "1" => 1.0,
                // Blank, negative and uncertain (-1) all count as absent.
                "" | "0" | "0.0" | "-1" | "-1.0" => 0.0,
                other => bail!("{} line {}: {label} is {other:?}", path.display(), number + 2),
            };
        }
        out.insert(field(&row, "study_id")?.clone(), labels);
    }
    Ok(out)
}
