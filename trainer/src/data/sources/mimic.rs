//! MIMIC-CXR-JPG 2.1.0 and the reports of MIMIC-CXR: splits, labels, paths of images and texts.
//!
//! ```text
//! FOLDER/mimic-cxr-2.0.0-split.csv(.gz)     dicom_id, study_id, subject_id, split
//! FOLDER/mimic-cxr-2.0.0-chexpert.csv(.gz)  subject_id, study_id, 14 labels: 1, 0, -1 (uncertain) or blank (not mentioned)
//! FOLDER/files/p10/p10000032/s50414267/DICOM_ID.jpg
//! REPORTS/files/p10/p10000032/s50414267.txt
//! ```

use super::files;
use super::skipped::{At, Reason, Skipped};
use super::split::Split;
use super::table::{self, Row};
use super::text;
use anatomix::{LABEL_COUNT, Label};
use std::collections::HashMap;
use std::path::Path;

/// The labels of a study in index order: 1 applies, 0 does not, -1 is uncertain, `None` is not mentioned.
pub type Labels = [Option<i8>; LABEL_COUNT];

/// Largest report in bytes.
const MAX_REPORT: u64 = 1 << 20;

/// An image of the table of splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MimicImage {
    /// Identifier of the image: the name of its file without `.jpg`.
    pub id: String,
    /// Number of the study.
    pub study: String,
    /// Number of the patient.
    pub patient: String,
    /// The split.
    pub split: Split,
}

impl MimicImage {
    /// The folder of the image's patient: `files/p10/p10000032`.
    fn folder(&self) -> String {
        let group: String = self.patient.chars().take(2).collect();
        format!("files/p{group}/p{}", self.patient)
    }

    /// Path of the image in the data set's folder.
    pub fn path(&self) -> String {
        format!("{}/s{}/{}.jpg", self.folder(), self.study, self.id)
    }

    /// Path of the study's report in the folder of the reports.
    pub fn report(&self) -> String {
        format!("{}/s{}.txt", self.folder(), self.study)
    }
}

/// The tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// All images in the order of the table.
    pub images: Vec<MimicImage>,
    /// Index of each image by its identifier.
    pub index: HashMap<String, usize>,
    /// Labels by study; a study that is not labelled has none.
    pub labels: HashMap<String, Labels>,
}

impl Tables {
    /// Reads both tables of a folder.
    pub fn read(folder: &Path, skipped: &mut Skipped) -> Self {
        let mut tables = Self::default();
        let path = files::plain_or_packed(folder, "mimic-cxr-2.0.0-split.csv");
        table::read(&path, &["dicom_id", "study_id", "subject_id", "split"], skipped, |row, at, skipped| match image(row) {
            Err((reason, message)) => skipped.note(reason, at, message),
            Ok(image) if tables.index.contains_key(&image.id) => skipped.note(Reason::RowRepeated, at, &image.id),
            Ok(image) => {
                tables.index.insert(image.id.clone(), tables.images.len());
                tables.images.push(image);
            }
        });
        let path = files::plain_or_packed(folder, "mimic-cxr-2.0.0-chexpert.csv");
        let columns: Vec<&str> = std::iter::once("study_id").chain(Label::ALL.map(Label::name)).collect();
        table::read(&path, &columns, skipped, |row, at, skipped| match labels(row) {
            Err(message) => skipped.note(Reason::RowMalformed, at, message),
            Ok(_) if tables.labels.contains_key(row.get("study_id")) => skipped.note(Reason::RowRepeated, at, row.get("study_id")),
            Ok(labels) => {
                tables.labels.insert(row.get("study_id").into(), labels);
            }
        });
        tables
    }

    /// The image with this identifier.
    pub fn image(&self, id: &str) -> Option<&MimicImage> {
        self.images.get(*self.index.get(id)?)
    }
}

fn image(row: &Row) -> Result<MimicImage, (Reason, String)> {
    let [id, study, patient] = ["dicom_id", "study_id", "subject_id"].map(|name| row.get(name));
    if let Some(name) = [id, study, patient].into_iter().find(|name| !files::is_name(name)) {
        return Err((Reason::NameUnsafe, files::shown(name)));
    }
    let split = row.get("split");
    let split = Split::from_published(split).ok_or_else(|| (Reason::RowMalformed, format!("the split is {}", files::shown(split))))?;
    Ok(MimicImage { id: id.into(), study: study.into(), patient: patient.into(), split })
}

fn labels(row: &Row) -> Result<Labels, String> {
    let mut labels = [None; LABEL_COUNT];
    for label in Label::ALL {
        labels[label.index()] = match row.get(label.name()) {
            "" => None,
            "1" | "1.0" => Some(1),
            "0" | "0.0" => Some(0),
            "-1" | "-1.0" => Some(-1),
            other => return Err(format!("{label} is {}, not 1, 0, -1 or blank", files::shown(other))),
        };
    }
    Ok(labels)
}

/// The two sections of a report that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The section FINDINGS.
    pub findings: String,
    /// The section IMPRESSION.
    pub impression: String,
}

/// Reads a report. One without a file, or without one of the sections, is noted and `None`.
pub fn report(path: &Path, skipped: &mut Skipped) -> Option<Report> {
    let at = At::file(path);
    let bytes = match anatomix::parts::files::read(path, MAX_REPORT) {
        Ok(bytes) => bytes,
        Err(error) => {
            skipped.note(Reason::ReportMissing, at, error);
            return None;
        }
    };
    let whole = String::from_utf8_lossy(&bytes);
    let [findings, impression] = [section(&whole, "FINDINGS"), section(&whole, "IMPRESSION")];
    let (Some(findings), Some(impression)) = (findings, impression) else {
        skipped.note(Reason::ReportIncomplete, at, "");
        return None;
    };
    match (text::plain(&findings), text::plain(&impression)) {
        (Ok(findings), Ok(impression)) => Some(Report { findings, impression }),
        (Err(message), _) | (_, Err(message)) => {
            skipped.note(Reason::TextUnsafe, at, message);
            None
        }
    }
}

/// The text of the last section with this heading; `None` if there is none or it is blank. A section begins with a heading in capitals
/// and a colon, and ends at the next heading.
fn section(report: &str, name: &str) -> Option<String> {
    let mut found: Option<String> = None;
    let mut inside = false;
    for line in report.lines().map(str::trim) {
        let (heading, rest) = heading(line).map_or((None, line), |(heading, rest)| (Some(heading), rest));
        if let Some(heading) = heading {
            inside = heading == name;
            if inside {
                found = Some(String::new());
            }
        }
        if let Some(text) = found.as_mut().filter(|_| inside) {
            text.push_str(rest);
            text.push('\n');
        }
    }
    found.filter(|text| !text.trim().is_empty())
}

/// The heading at the beginning of a line and what follows it.
fn heading(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(':')?;
    let name = name.trim();
    let is_heading = name.chars().all(|c| c.is_ascii_uppercase() || " ()/&,-".contains(c)) && (3..=60).contains(&name.len());
    is_heading.then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(split: &str, labels: &str) -> (Tables, Skipped) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mimic-cxr-2.0.0-split.csv"), split).unwrap();
        std::fs::write(folder.path().join("mimic-cxr-2.0.0-chexpert.csv"), labels).unwrap();
        let mut skipped = Skipped::default();
        (Tables::read(folder.path(), &mut skipped), skipped)
    }

    fn header() -> String {
        format!("subject_id,study_id,{}\n", Label::ALL.map(Label::name).join(","))
    }

    #[test]
    fn tables_are_read_as_published() {
        let labels = format!("{}10000032,50414267,1.0,0.0,-1.0,,,,,,,,,,,1.0\n", header());
        let (tables, skipped) = folder("dicom_id,study_id,subject_id,split\n02aa-5e,50414267,10000032,validate\n", &labels);
        let image = tables.image("02aa-5e").unwrap();
        assert_eq!(image.path(), "files/p10/p10000032/s50414267/02aa-5e.jpg");
        assert_eq!(image.report(), "files/p10/p10000032/s50414267.txt");
        assert_eq!(image.split, Split::Validate);
        let labels = tables.labels["50414267"];
        assert_eq!(labels[..4], [Some(1), Some(0), Some(-1), None]);
        assert_eq!(labels[13], Some(1));
        assert!(skipped.counts().is_empty());
    }

    #[test]
    fn damaged_rows_are_noted() {
        let split = "dicom_id,study_id,subject_id,split\na,1,2,train\na,1,2,test\nb,1,2,other\n../c,1,2,test\nd,1\n";
        let labels = format!("{}2,1,1.0,yes,,,,,,,,,,,,\n2,3,,,,,,,,,,,,,,\n2,3,,,,,,,,,,,,,,\n", header());
        let (tables, skipped) = folder(split, &labels);
        assert_eq!((tables.images.len(), tables.labels.len()), (1, 1));
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        use Reason::{NameUnsafe, RowMalformed, RowRepeated};
        let expected = [(3, RowRepeated), (4, RowMalformed), (5, NameUnsafe), (6, RowMalformed), (2, RowMalformed), (4, RowRepeated)];
        assert_eq!(rows, expected);
    }

    #[test]
    fn sections_of_reports_are_found() {
        let text = " FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n FINDINGS: \n\n The lungs\n are clear: no effusion.\n\n \
            IMPRESSION:   No acute\n process.\n RECOMMENDATION(S):  None.\n";
        assert_eq!(section(text, "FINDINGS").unwrap().trim().replace('\n', " "), "The lungs are clear: no effusion.");
        assert_eq!(section(text, "IMPRESSION").unwrap().trim().replace('\n', " "), "No acute process.");
        assert_eq!(section("FINDINGS:\nIMPRESSION: x", "FINDINGS"), None);
        assert_eq!(section("findings: x", "FINDINGS"), None);
        assert_eq!(section("IMPRESSION: first\nIMPRESSION: second", "IMPRESSION").unwrap().trim(), "second");
    }
}
