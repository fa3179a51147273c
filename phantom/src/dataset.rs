//! Data sets of phantoms in the layout of public ones: Chest ImaGenome scene graphs, MIMIC-CXR tables and reports.

use crate::dicom::write_dicom;
use crate::files::{DatasetError, replace, save_png};
use crate::scene::Scene;
use crate::{tasks, text};
use anatomix::parts::geometry::Letterbox;
use anatomix::{Label, Structure};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// First seed of the evaluation set; smaller seeds are for training.
pub const EVALUATION_SEEDS: u64 = 1_000_000;

/// Number of phantoms whose samples are in memory at once.
const BATCH: u64 = 256;

/// Options of [`write`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Output folder, which is created if it is missing.
    pub out: PathBuf,
    /// Number of phantoms.
    pub count: u64,
    /// Seed of the first phantom; the others have the seeds after it.
    pub seed: u64,
    /// Longest side of the pictures in pixels.
    pub size: u32,
    /// A DICOM file is written in addition to the PNG for seeds divisible by this; for none if it is 0.
    pub dicom_every: u64,
    /// Whether the pictures have markers, the letters of a side or a view. Without them, all else of a seed's picture is the same.
    pub markers: bool,
}

/// Name of a seed's split. Below [`EVALUATION_SEEDS`], one seed in 20 is for validation and one in 20 for test; from there on, all are
/// for test.
pub fn split(seed: u64) -> &'static str {
    match (seed >= EVALUATION_SEEDS, seed % 20) {
        (true, _) | (_, 1) => "test",
        (_, 0) => "validate",
        _ => "train",
    }
}

/// Writes a data set. `progress` is called with 1 after each phantom, from several threads.
///
/// ```text
/// OUT/images/ID.png  OUT/dicom/ID.dcm  OUT/silver_dataset/scene_graph/ID_SceneGraph.json  OUT/reports/ID.txt
/// OUT/mimic-cxr-2.0.0-split.csv  OUT/mimic-cxr-2.0.0-chexpert.csv  OUT/instruct.jsonl
/// ```
/// The tables are written last, so that a folder with tables is complete.
///
/// # Errors
/// [`DatasetError`], which names the file.
pub fn write(options: &Options, progress: impl Fn(u64) + Sync) -> Result<(), DatasetError> {
    let folder = |name: &str| {
        let path = options.out.join(name);
        fs::create_dir_all(&path).map_err(|source| DatasetError::Write { path: path.clone(), source })?;
        Ok::<_, DatasetError>(path)
    };
    let images = folder("images")?;
    let graphs = folder("silver_dataset/scene_graph")?;
    let reports = folder("reports")?;
    let dicoms = if options.dicom_every > 0 { Some(folder("dicom")?) } else { None };

    let mut splits = String::from("dicom_id,study_id,subject_id,split\n");
    let mut labels = String::from("subject_id,study_id");
    for label in Label::ALL {
        labels.push(',');
        labels.push_str(label.name());
    }
    labels.push('\n');
    let draw = |seed: u64| {
        let mut scene = Scene::sample_sized(seed, options.size);
        scene.markers = options.markers;
        let picture = scene.render();
        let id = scene.id();
        save_png(&images.join(format!("{id}.png")), &picture)?;
        if let Some(dicoms) = dicoms.as_ref().filter(|_| seed.is_multiple_of(options.dicom_every)) {
            write_dicom(&dicoms.join(format!("{id}.dcm")), &scene, &picture)?;
        }
        save(&graphs.join(format!("{id}_SceneGraph.json")), &format!("{:#}\n", scene_graph(&scene)))?;
        let report = format!("FINDINGS: {}\n\nIMPRESSION: {}\n", text::findings(&scene), text::impression(&scene));
        save(&reports.join(format!("{id}.txt")), &report)?;
        progress(1);
        Ok(Row::new(&scene))
    };
    replace(&options.out.join("instruct.jsonl"), |part, path| {
        let failed = |source| DatasetError::Write { path: path.into(), source };
        let mut lines = BufWriter::new(File::create(part).map_err(failed)?);
        let mut next = options.seed;
        let end = options.seed.saturating_add(options.count);
        // Samples are written batch by batch, so that memory does not grow with their number.
        while next < end {
            let batch = next..end.min(next + BATCH);
            next = batch.end;
            for row in batch.into_par_iter().map(draw).collect::<Result<Vec<Row>, DatasetError>>()? {
                splits.push_str(&row.split);
                labels.push_str(&row.labels);
                lines.write_all(row.samples.as_bytes()).map_err(failed)?;
            }
        }
        lines.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).map_err(failed)
    })?;
    save(&options.out.join("mimic-cxr-2.0.0-chexpert.csv"), &labels)?;
    save(&options.out.join("mimic-cxr-2.0.0-split.csv"), &splits)
}

/// The lines of one phantom in the tables.
struct Row {
    split: String,
    labels: String,
    samples: String,
}

impl Row {
    fn new(scene: &Scene) -> Self {
        let (id, seed) = (scene.id(), scene.seed);
        let flags = scene.labels();
        let cells: String = flags.iter().map(|&f| if f { ",1.0" } else { "," }).collect();
        let samples = tasks::samples(scene, 0).into_iter().map(|sample| {
            let mut line = json!({ "image": id, "split": split(seed) });
            if let (Value::Object(line), Ok(Value::Object(sample))) = (&mut line, serde_json::to_value(&sample)) {
                line.extend(sample);
            }
            format!("{line}\n")
        });
        Self { split: format!("{id},{id},{seed},{}\n", split(seed)), labels: format!("{seed},{id}{cells}\n"), samples: samples.collect() }
    }
}

/// A scene graph with the keys of Chest ImaGenome 1.0.0.
pub fn scene_graph(scene: &Scene) -> Value {
    let letterbox = Letterbox::new(scene.frame.width, scene.frame.height);
    let id = scene.id();
    let mut objects = Vec::new();
    let mut attributes = Vec::new();
    for structure in Structure::all() {
        let Some(bounds) = scene.structure_box(structure) else { continue };
        let name = raw_name(structure);
        let object_id = format!("{id}_{}", structure.name().to_lowercase());
        let small = <[f32; 4]>::from(letterbox.normalize(&bounds)).map(|v| (v * 224.0).round());
        objects.push(json!({
            "object_id": object_id, "name": name, "bbox_name": structure.name().to_lowercase(),
            "x1": small[0], "y1": small[1], "x2": small[2], "y2": small[3],
            "width": small[2] - small[0], "height": small[3] - small[1],
            "original_x1": bounds.x0.round(), "original_y1": bounds.y0.round(),
            "original_x2": bounds.x1.round(), "original_y2": bounds.y1.round(),
            "original_width": scene.frame.width, "original_height": scene.frame.height,
        }));
        let terms = scene.attributes(structure);
        if !terms.is_empty() {
            let terms: Vec<String> = terms.iter().map(|(category, term)| format!("{category}|yes|{term}")).collect();
            attributes.push(json!({ "object_id": object_id, "name": name, "attributes": [terms] }));
        }
    }
    json!({
        "image_id": id, "viewpoint": if scene.ap_view { "AP" } else { "PA" },
        "patient_id": scene.seed, "study_id": id, "gender": "", "age_decile": "", "reason_for_exam": "",
        "objects": objects, "attributes": attributes, "relationships": [],
    })
}

/// The structure's name in the data set's files.
fn raw_name(structure: Structure) -> String {
    match structure.name() {
        "Cardiac shadow viewed radiologically or Heart" => "Cardiac shadow viewed radiologically;;Heart".into(),
        "Trachea and Main Bronchus" => "Trachea&&Main Bronchus".into(),
        "Left costodiaphragmatic recess" => "left costophrenic sulcus;;Left costodiaphragmatic recess".into(),
        "Right costodiaphragmatic recess" => "right costophrenic sulcus;;Right costodiaphragmatic recess".into(),
        name => name.into(),
    }
}

fn save(path: &Path, text: &str) -> Result<(), DatasetError> {
    replace(path, |part, path| fs::write(part, text).map_err(|source| DatasetError::Write { path: path.into(), source }))
}
