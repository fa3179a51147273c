//! VinDr-CXR: `annotations/annotations_{train,test}.csv`, a row for each box, and `{train,test}/IMAGE.dicom`.
//!
//! Three radiologists annotated each training image (`rad_id`); the test images have their consensus.

use super::files;
use super::skipped::{At, Reason, Skipped};
use super::table::{self, Row};
use super::text;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The name that stands for no abnormality.
pub const NO_FINDING: &str = "No finding";

/// An image with the boxes of all radiologists.
#[derive(Clone, Debug, PartialEq)]
pub struct VindrImage {
    /// Identifier of the image.
    pub id: String,
    /// Whether it is a test image.
    pub is_test: bool,
    /// The boxes.
    pub boxes: Vec<VindrBox>,
}

/// A box of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct VindrBox {
    /// The class, such as "Pleural effusion".
    pub class: String,
    /// Corners in pixels of the image.
    pub corners: [f64; 4],
    /// Line of the table.
    pub row: Option<u64>,
}

impl VindrImage {
    /// Paths in the data set's folder that the image can have: published are `.dicom` files.
    pub fn paths(&self) -> [String; 2] {
        let folder = if self.is_test { "test" } else { "train" };
        ["dicom", "dcm"].map(|ending| format!("{folder}/{}.{ending}", self.id))
    }

    /// Path of the table that the image is in.
    pub fn table(&self, folder: &Path) -> PathBuf {
        path(folder, self.is_test)
    }
}

fn path(folder: &Path, is_test: bool) -> PathBuf {
    let name = if is_test { "annotations_test.csv" } else { "annotations_train.csv" };
    files::plain_or_packed(&folder.join("annotations"), name)
}

/// Reads both tables: images in the order of their first rows, training images first.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<VindrImage> {
    let mut images: Vec<VindrImage> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for is_test in [false, true] {
        let path = path(folder, is_test);
        let columns = ["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"];
        let mut rows: HashMap<usize, Vec<String>> = HashMap::new();
        table::read(&path, &columns, skipped, |row, at, skipped| {
            let id = row.get("image_id");
            if !files::is_name(id) {
                return skipped.note(Reason::NameUnsafe, at, files::shown(id));
            }
            let annotated = match annotation(row, at) {
                Ok(annotated) => annotated,
                Err((reason, message)) => return skipped.note(reason, at, message),
            };
            let next = images.len();
            let own = *index.entry(id.to_owned()).or_insert(next);
            if own == next {
                images.push(VindrImage { id: id.into(), is_test, boxes: Vec::new() });
            }
            if images[own].is_test != is_test {
                return skipped.note(Reason::RowRepeated, at, format!("{id} is a training image, too"));
            }
            let content = ["rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"].map(|name| row.get(name)).join("\t");
            let known = rows.entry(own).or_default();
            if known.contains(&content) {
                return skipped.note(Reason::RowRepeated, at, format!("{id} has this box already"));
            }
            known.push(content);
            images[own].boxes.extend(annotated);
        });
    }
    images
}

fn annotation(row: &Row, at: At) -> Result<Option<VindrBox>, (Reason, String)> {
    let class = text::plain(row.get("class_name")).map_err(|message| (Reason::TextUnsafe, message))?;
    if class.eq_ignore_ascii_case(NO_FINDING) {
        return Ok(None);
    }
    let number = |name| row.number(name).map_err(|message| (Reason::RowMalformed, message));
    let corners = [number("x_min")?, number("y_min")?, number("x_max")?, number("y_max")?];
    Ok(Some(VindrBox { class, corners, row: at.row }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_gathered_from_both_tables() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("annotations")).unwrap();
        let train = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\na,R1,No finding,,,,\na,R2,No finding,,,,\n\
            b,R1,Cardiomegaly,1,2,3,4\nb,R1,Cardiomegaly,1,2,3,4\nb,R2,Cardiomegaly,1,2,3,4\nb,R3,Edema,1,2,,4\n/etc,R1,Edema,1,2,3,4\n";
        let test = "image_id,class_name,x_min,y_min,x_max,y_max\nc,Nodule/Mass,1,2,3,4\nb,Edema,1,2,3,4\n";
        std::fs::write(path(folder.path(), false), train).unwrap();
        std::fs::write(path(folder.path(), true), test).unwrap();
        let mut skipped = Skipped::default();
        let images = read(folder.path(), &mut skipped);
        let summary: Vec<_> = images.iter().map(|i| (i.id.as_str(), i.is_test, i.boxes.len())).collect();
        assert_eq!(summary, [("a", false, 0), ("b", false, 2), ("c", true, 1)]);
        assert_eq!(images[2].paths()[0], "test/c.dicom");
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        use Reason::{NameUnsafe, RowMalformed, RowRepeated};
        assert_eq!(rows, [(5, RowRepeated), (7, RowMalformed), (8, NameUnsafe), (3, RowRepeated)]);
    }
}
