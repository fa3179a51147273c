//! Chest ImaGenome 1.0.0: `silver_dataset/scene_graph/ID_SceneGraph.json`, one for each frontal image of MIMIC-CXR.

use super::array;
use super::boxes;
use super::skipped::{At, Reason, Skipped};
use super::text;
use anatomix::parts::geometry::Letterbox;
use anatomix::{PixelBox, STRUCTURE_COUNT, Structure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest scene graph in bytes; published ones have some hundred thousand.
const MAX_BYTES: u64 = 16 << 20;
/// Side of the letterboxed square that boxes without original coordinates are in.
const SQUARE: f64 = 224.0;

/// What a scene graph says of the 36 structures, in index order.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneGraph {
    /// Box of each structure in pixels of the image; `None` if it is not annotated.
    pub boxes: [Option<PixelBox>; STRUCTURE_COUNT],
    /// Sentence on each structure; `None` if it has neither a box nor attributes.
    pub sentences: [Option<String>; STRUCTURE_COUNT],
}

#[derive(Deserialize)]
struct File {
    objects: Vec<Object>,
    #[serde(default)]
    attributes: Vec<Attributes>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    x1: Option<f64>,
    y1: Option<f64>,
    x2: Option<f64>,
    y2: Option<f64>,
    original_x1: Option<f64>,
    original_y1: Option<f64>,
    original_x2: Option<f64>,
    original_y2: Option<f64>,
    original_width: Option<f64>,
    original_height: Option<f64>,
}

#[derive(Deserialize)]
struct Attributes {
    name: String,
    #[serde(default)]
    attributes: Vec<Vec<String>>,
}

/// The path of an image's scene graph in the data set's folder.
pub fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("silver_dataset/scene_graph/{id}_SceneGraph.json"))
}

/// Identifiers of the images with a scene graph.
pub fn ids(folder: &Path, skipped: &mut Skipped) -> BTreeSet<String> {
    let graphs = folder.join("silver_dataset/scene_graph");
    let entries = match std::fs::read_dir(&graphs) {
        Ok(entries) => entries,
        Err(error) => {
            skipped.note(Reason::FileUnreadable, At::file(&graphs), error);
            return BTreeSet::new();
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix("_SceneGraph.json")?.to_owned())).collect()
}

/// Reads the scene graph of an image of this size, with the published sentences.
pub fn read(path: &Path, size: (u32, u32), skipped: &mut Skipped) -> Option<SceneGraph> {
    read_worded(path, size, skipped, |structure, terms, is_known| is_known.then(|| sentence(structure, terms)))
}

/// Reads the scene graph of an image of this size. `word` makes the sentence on a structure from its terms; its last argument says whether
/// the structure has a box or attributes.
pub fn read_worded(
    path: &Path,
    size: (u32, u32),
    skipped: &mut Skipped,
    word: impl Fn(Structure, &[String], bool) -> Option<String>,
) -> Option<SceneGraph> {
    let at = At::file(path);
    let bytes = match anatomix::parts::files::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            skipped.note(Reason::FileUnreadable, at, error);
            return None;
        }
    };
    match array::object(&bytes) {
        Ok(file) => Some(structures(&file, size, at, skipped, word)),
        Err(error) => {
            skipped.note(Reason::FileUnreadable, at, format!("it is not a scene graph: {error}"));
            None
        }
    }
}

fn structures(
    file: &File,
    size: (u32, u32),
    at: At,
    skipped: &mut Skipped,
    word: impl Fn(Structure, &[String], bool) -> Option<String>,
) -> SceneGraph {
    let mut boxes = [None; STRUCTURE_COUNT];
    let mut seen = [false; STRUCTURE_COUNT];
    for (row, object) in file.objects.iter().enumerate() {
        let Some(structure) = by_raw_name(&object.name) else { continue };
        let at = At { row: Some(row as u64), ..at };
        if std::mem::replace(&mut seen[structure.index()], true) {
            skipped.note(Reason::RowRepeated, at, format!("{structure} has a box already"));
            continue;
        }
        boxes[structure.index()] = corners(object, size, at, skipped).and_then(|corners| boxes::inside(corners, size, at, skipped));
    }
    let sentences = std::array::from_fn(|index| {
        let structure = Structure::new(index)?;
        let own = |a: &&Attributes| by_raw_name(&a.name) == Some(structure);
        let is_known = boxes[index].is_some() || file.attributes.iter().any(|a| own(&a));
        let terms = terms(file.attributes.iter().filter(own), at, skipped);
        word(structure, &terms, is_known)
    });
    SceneGraph { boxes, sentences }
}

/// The corners of an object in pixels of the image's file.
fn corners(object: &Object, size: (u32, u32), at: At, skipped: &mut Skipped) -> Option<[f64; 4]> {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let original = [object.original_x1, object.original_y1, object.original_x2, object.original_y2].map(number);
    if original.iter().any(|v| v.is_finite()) {
        let annotated = (number(object.original_width), number(object.original_height));
        let [x, y] = boxes::scale(annotated, size, at, skipped)?;
        return Some([original[0] * x, original[1] * y, original[2] * x, original[3] * y]);
    }
    let letterbox = Letterbox::new(size.0, size.1);
    let (side, (left, top)) = (f64::from(letterbox.side()) / SQUARE, letterbox.offset());
    let [x1, y1, x2, y2] = [object.x1, object.y1, object.x2, object.y2].map(|v| number(v) * side);
    let (left, top) = (f64::from(left), f64::from(top));
    Some([x1 - left, y1 - top, x2 - left, y2 - top])
}

/// Category and term of each finding that is asserted, anatomical findings first, then by category and term. (The published code takes the
/// categories in an order that differs from run to run.)
fn terms<'a>(attributes: impl Iterator<Item = &'a Attributes>, at: At, skipped: &mut Skipped) -> Vec<String> {
    let asserted = attributes.flat_map(|a| a.attributes.iter().flatten()).filter_map(|attribute| {
        match attribute.split('|').collect::<Vec<_>>()[..] {
            // These categories qualify a finding and do not assert one.
            ["laterality" | "severity" | "nlp", ..] => None,
            [category, "yes", term] => Some((category, term)),
            _ => None,
        }
    });
    let sorted: BTreeSet<_> = asserted.map(|(category, term)| (category != "anatomicalfinding", category, term)).collect();
    let mut out: Vec<String> = Vec::new();
    for (_, _, term) in sorted {
        match text::plain(term) {
            // A term can be in two categories.
            Ok(term) if out.contains(&term) => {}
            Ok(term) => out.push(term),
            Err(message) => skipped.note(Reason::TextUnsafe, at, message),
        }
    }
    out
}

/// The sentence on a structure: `NAME shows A and B.` or `NAME is healthy.`
pub fn sentence(structure: Structure, terms: &[String]) -> String {
    if terms.is_empty() {
        return format!("{structure} is healthy.");
    }
    let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
    format!("{structure} shows {}.", text::joined(&terms))
}

/// The structure for a name in the data set, which may have synonyms separated by `;;`.
pub fn by_raw_name(raw: &str) -> Option<Structure> {
    let name = match raw {
        "Cardiac shadow viewed radiologically;;Heart" => "Cardiac shadow viewed radiologically or Heart".into(),
        _ => raw.replace("&&", " and "),
    };
    name.split(";;").find_map(Structure::from_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(graph: serde_json::Value, size: (u32, u32)) -> (SceneGraph, Skipped) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), graph.to_string()).unwrap();
        let mut skipped = Skipped::default();
        (read(file.path(), size, &mut skipped).unwrap(), skipped)
    }

    fn object(name: &str, corners: [f64; 4], size: [u32; 2]) -> serde_json::Value {
        let [x1, y1, x2, y2] = corners;
        json!({"name": name, "original_x1": x1, "original_y1": y1, "original_x2": x2, "original_y2": y2,
            "original_width": size[0], "original_height": size[1], "x1": 1, "y1": 1, "x2": 2, "y2": 2})
    }

    #[test]
    fn missing_structures_are_masked() {
        let attributes = json!([{"name": "Left lung", "attributes": [["anatomicalfinding|no|consolidation"]]}]);
        let (graph, skipped) =
            parse(json!({"objects": [object("Right lung", [1., 2., 3., 4.], [9, 9])], "attributes": attributes}), (9, 9));
        assert_eq!(graph.boxes.iter().flatten().count(), 1);
        assert_eq!(graph.boxes[20], Some(PixelBox::new(1.0, 2.0, 3.0, 4.0)));
        // A structure with attributes and without a box has a sentence; one with neither has none.
        assert_eq!(graph.sentences[20].as_deref(), Some("Right lung is healthy."));
        assert_eq!(graph.sentences[11].as_deref(), Some("Left lung is healthy."));
        assert_eq!(graph.sentences.iter().flatten().count(), 2);
        assert!(skipped.counts().is_empty());
    }

    #[test]
    fn sentences_are_as_published_in_one_order() {
        let own = json!([
            ["tubesandlines|yes|chest tube", "severity|yes|mild", "laterality|yes|left", "nlp|yes|abnormal"],
            ["disease|yes|pneumonia", "anatomicalfinding|yes|pleural effusion"],
            ["anatomicalfinding|yes|atelectasis", "anatomicalfinding|no|pneumothorax", "anatomicalfinding|yes|atelectasis"]
        ]);
        let graph = json!({"objects": [], "attributes": [{"name": "Right lower lung zone", "attributes": own}]});
        let (graph, _) = parse(graph, (9, 9));
        let expected = "Right lower lung zone shows atelectasis and pleural effusion and pneumonia and chest tube.";
        assert_eq!(graph.sentences[19].as_deref(), Some(expected));
    }

    #[test]
    fn boxes_of_the_square_follow_the_letterbox() {
        let square = json!({"name": "Trachea&&Main Bronchus", "x1": 56, "y1": 112, "x2": 168, "y2": 224});
        let (graph, _) = parse(json!({"objects": [square]}), (400, 200));
        assert_eq!(graph.boxes[29], Some(PixelBox::new(100.0, 100.0, 300.0, 200.0)));
    }

    #[test]
    fn damaged_boxes_are_noted() {
        let objects = [
            object("Cardiac shadow viewed radiologically;;Heart", [5.0, 5.0, 2.0, 9.0], [9, 9]),
            object("left costophrenic sulcus;;Left costodiaphragmatic recess", [0.0, 0.0, 3.0, 3.0], [9, 90]),
            object("Left lung", [0.0, 0.0, 30.0, 3.0], [9, 9]),
            object("Left lung", [0.0, 0.0, 3.0, 3.0], [9, 9]),
            object("Not a structure", [0.0, 0.0, 3.0, 3.0], [9, 9]),
        ];
        let (graph, skipped) = parse(json!({"objects": objects}), (9, 9));
        assert_eq!(graph.boxes[11], Some(PixelBox::new(0.0, 0.0, 9.0, 3.0)));
        assert_eq!((graph.boxes[4], graph.boxes[33]), (None, None));
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        let expected = [(0, Reason::BoxInvalid), (1, Reason::ImageOther), (2, Reason::BoxClipped), (3, Reason::RowRepeated)];
        assert_eq!(rows, expected);
    }

    #[test]
    fn other_files_are_no_scene_graphs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "{\"objects\": [", "[]", "{\"objects\": 3}", "{}"] {
            std::fs::write(file.path(), text).unwrap();
            let mut skipped = Skipped::default();
            assert_eq!(read(file.path(), (9, 9), &mut skipped), None);
            assert_eq!(skipped.count(Reason::FileUnreadable), 1, "{text}");
        }
    }
}
