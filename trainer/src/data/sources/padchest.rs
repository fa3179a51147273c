//! PadChest-GR: `grounded_reports_20240819.json`, an entry for each study, and `master_table.csv` with the splits.

use super::array;
use super::files;
use super::skipped::{At, Reason, Skipped};
use super::split::Split;
use super::table;
use super::text;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A study's image with its findings.
#[derive(Clone, Debug, PartialEq)]
pub struct PadChestImage {
    /// File name of the image.
    pub file: String,
    /// Identifier of the study.
    pub study: String,
    /// Identifier of the patient; that of the study if the table does not tell.
    pub patient: String,
    /// The split.
    pub split: Split,
    /// Index of the entry.
    pub row: Option<u64>,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// A sentence of a grounded report.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The sentence in English, without a full stop at its end.
    pub sentence: String,
    /// All its boxes: corners as fractions of the image's sides.
    pub boxes: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "StudyID")]
    study: String,
    #[serde(rename = "ImageID")]
    image: String,
    findings: Vec<Published>,
}

#[derive(Deserialize)]
struct Published {
    sentence_en: String,
    #[serde(default)]
    boxes: Vec<Vec<Option<f64>>>,
}

struct Study {
    patient: String,
    split: Split,
}

/// Path of the list of reports.
pub fn path(folder: &Path) -> PathBuf {
    files::plain_or_packed(folder, "grounded_reports_20240819.json")
}

/// Reads all images with their findings.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<PadChestImage> {
    let studies = splits(folder, skipped);
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    array::read(&path(folder), skipped, |entry: Entry, at, skipped| {
        if !files::is_name(&entry.image) {
            return skipped.note(Reason::NameUnsafe, at, files::shown(&entry.image));
        }
        let Some(study) = studies.get(&entry.study) else {
            return skipped.note(Reason::ImageUnknown, at, format!("study {} is not in master_table.csv", files::shown(&entry.study)));
        };
        if !seen.insert(entry.image.clone()) {
            return skipped.note(Reason::RowRepeated, at, &entry.image);
        }
        let findings = entry.findings.into_iter().filter_map(|finding| finding.checked(at, skipped)).collect();
        let patient = study.patient.clone();
        images.push(PadChestImage { file: entry.image, study: entry.study, patient, split: study.split, row: at.row, findings });
    });
    images
}

impl Published {
    fn checked(self, at: At, skipped: &mut Skipped) -> Option<Finding> {
        let sentence = match text::plain(self.sentence_en.trim().trim_end_matches('.')) {
            Ok(sentence) => sentence,
            Err(message) => {
                skipped.note(Reason::TextUnsafe, at, message);
                return None;
            }
        };
        let mut boxes = Vec::with_capacity(self.boxes.len());
        for corners in self.boxes {
            match corners[..] {
                [x0, y0, x1, y1] => boxes.push([x0, y0, x1, y1].map(|v| v.unwrap_or(f64::NAN))),
                _ => skipped.note(Reason::BoxInvalid, at, format!("a box of {} has {} numbers", files::shown(&sentence), corners.len())),
            }
        }
        Some(Finding { sentence, boxes })
    }
}

/// Patient and split of each study.
fn splits(folder: &Path, skipped: &mut Skipped) -> HashMap<String, Study> {
    let mut studies: HashMap<String, Study> = HashMap::new();
    table::read(&files::plain_or_packed(folder, "master_table.csv"), &["StudyID", "ImageID", "split"], skipped, |row, at, skipped| {
        let Some(split) = Split::from_published(row.get("split")) else {
            return skipped.note(Reason::RowMalformed, at, format!("the split is {}", files::shown(row.get("split"))));
        };
        let study = row.get("StudyID");
        let patient = Some(row.get("PatientID")).filter(|id| !id.is_empty()).unwrap_or(study);
        // A study has a row for each of its labels. If rows differ in their split, the most protected one counts.
        let known = studies.entry(study.to_owned()).or_insert_with(|| Study { patient: patient.into(), split });
        if known.split != split {
            skipped.note(Reason::RowMalformed, at, format!("study {} is in the split {}, too", files::shown(study), known.split.name()));
            known.split = known.split.max(split);
        }
    });
    studies
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_box_of_a_finding_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let table = "StudyID,ImageID,label,split\ns1,a.png,x,train\ns1,a.png,y,train\ns2,b.png,x,validation\ns3,c.png,x,none\n\
            s4,d.png,x,train\ns4,d.png,y,test\n";
        std::fs::write(folder.path().join("master_table.csv"), table).unwrap();
        let finding = |boxes: serde_json::Value| json!({"sentence_en": "Nodules in both lungs.", "abnormal": true, "boxes": boxes});
        let entry = |study: &str, image: &str, finding| json!({"StudyID": study, "ImageID": image, "findings": [finding]});
        let three = json!([[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6], [1]]);
        let entries = json!([
            entry("s1", "a.png", finding(three)),
            entry("s1", "a.png", finding(json!([]))),
            entry("s2", "../b.png", finding(json!([]))),
            entry("s3", "c.png", finding(json!([]))),
            entry("s4", "d.png", json!({"sentence_en": "<eos>"})),
            {"StudyID": 4}
        ]);
        std::fs::write(path(folder.path()), entries.to_string()).unwrap();
        let mut skipped = Skipped::default();
        let images = read(folder.path(), &mut skipped);
        assert_eq!(images.len(), 2);
        assert_eq!(images[0].findings[0].sentence, "Nodules in both lungs");
        assert_eq!(images[0].findings[0].boxes.len(), 3);
        assert_eq!((images[0].patient.as_str(), images[0].split), ("s1", Split::Train));
        assert_eq!((images[1].split, images[1].findings.len()), (Split::Test, 0));
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        use Reason::{BoxInvalid, ImageUnknown, NameUnsafe, RowMalformed, RowRepeated, TextUnsafe};
        let expected = [
            (5, RowMalformed),
            (7, RowMalformed),
            (0, BoxInvalid),
            (1, RowRepeated),
            (2, NameUnsafe),
            (3, ImageUnknown),
            (4, TextUnsafe),
            (5, RowMalformed),
        ];
        assert_eq!(rows, expected);
    }
}
