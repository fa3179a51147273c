//! MS-CXR 1.1.0: `MS_CXR_Local_Alignment_v1.1.0.csv`, a row for each box of a phrase, on images of MIMIC-CXR-JPG.

use super::files;
use super::skipped::{Reason, Skipped};
use super::split::Split;
use super::table;
use super::text;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const COLUMNS: [&str; 9] = ["dicom_id", "category_name", "label_text", "x", "y", "w", "h", "image_width", "image_height"];

/// A phrase with its boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Phrase {
    /// Identifier of the image in MIMIC-CXR.
    pub image: String,
    /// The finding, such as "Pneumonia".
    pub category: String,
    /// The phrase of a report.
    pub phrase: String,
    /// The boxes: line of the table, corners in pixels of an image of `size`.
    pub boxes: Vec<(Option<u64>, [f64; 4])>,
    /// Width and height of the annotated image.
    pub size: (f64, f64),
    /// The split.
    pub split: Split,
}

/// Path of the table.
pub fn path(folder: &Path) -> PathBuf {
    files::plain_or_packed(folder, "MS_CXR_Local_Alignment_v1.1.0.csv")
}

/// Reads all phrases, in the order of their first rows.
pub fn read(folder: &Path, skipped: &mut Skipped) -> Vec<Phrase> {
    let mut phrases: Vec<Phrase> = Vec::new();
    let mut index: HashMap<(String, String), usize> = HashMap::new();
    let columns: Vec<&str> = COLUMNS.into_iter().chain(["split"]).collect();
    table::read(&path(folder), &columns, skipped, |row, at, skipped| {
        let parse = || {
            let number = |name| row.number(name).map_err(|message| (Reason::RowMalformed, message));
            let plain = |name| text::plain(row.get(name)).map_err(|message| (Reason::TextUnsafe, message));
            let split = Split::from_published(row.get("split"));
            let split = split.ok_or_else(|| (Reason::RowMalformed, format!("the split is {}", files::shown(row.get("split")))))?;
            let [x, y, w, h] = [number("x")?, number("y")?, number("w")?, number("h")?];
            let image = row.get("dicom_id");
            if !files::is_name(image) {
                return Err((Reason::NameUnsafe, files::shown(image)));
            }
            Ok(Phrase {
                image: image.into(),
                category: plain("category_name")?,
                phrase: plain("label_text")?,
                boxes: vec![(at.row, [x, y, x + w, y + h])],
                size: (number("image_width")?, number("image_height")?),
                split,
            })
        };
        let phrase: Phrase = match parse() {
            Ok(phrase) => phrase,
            Err((reason, message)) => return skipped.note(reason, at, message),
        };
        let next = phrases.len();
        let known = *index.entry((phrase.image.clone(), phrase.phrase.clone())).or_insert(next);
        let Some(first) = phrases.get_mut(known) else { return phrases.push(phrase) };
        let bounds = phrase.boxes[0].1;
        if first.boxes.iter().any(|(_, other)| *other == bounds) {
            return skipped.note(Reason::RowRepeated, at, format!("this box of {} is there already", files::shown(&first.phrase)));
        }
        if (&first.category, first.size, first.split) != (&phrase.category, phrase.size, phrase.split) {
            let message = format!("{} has another category, size or split in an earlier row", files::shown(&first.phrase));
            return skipped.note(Reason::RowMalformed, at, message);
        }
        first.boxes.extend(phrase.boxes);
    });
    phrases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_phrase_are_one_phrase() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = format!("{},path,split\n", COLUMNS.join(","));
        let good = "a,Pneumonia,left  base opacity,10,20,30,40,100,200,files/a.jpg,train\n";
        let second = "a,Pneumonia,left base opacity,50,20,30,40,100,200,files/a.jpg,train\n";
        let other = "a,Edema,left base opacity,60,20,30,40,100,200,files/a.jpg,train\n";
        let nan = "a,Edema,x,abc,20,30,40,100,200,files/a.jpg,train\n";
        [good, second, good, other, nan, "../a,Edema,x,1,20,30,40,100,200,p,train\n", "a,E,,1,2,3,4,5,6,p,train\n"]
            .iter()
            .for_each(|row| text.push_str(row));
        std::fs::write(path(folder.path()), text).unwrap();
        let mut skipped = Skipped::default();
        let phrases = read(folder.path(), &mut skipped);
        assert_eq!(phrases.len(), 1);
        assert_eq!(phrases[0].boxes, [(Some(2), [10.0, 20.0, 40.0, 60.0]), (Some(3), [50.0, 20.0, 80.0, 60.0])]);
        let rows: Vec<_> = skipped.entries().iter().map(|e| (e.row.unwrap(), e.reason)).collect();
        use Reason::{NameUnsafe, RowMalformed, RowRepeated, TextUnsafe};
        assert_eq!(rows, [(4, RowRepeated), (5, RowMalformed), (6, RowMalformed), (7, NameUnsafe), (8, TextUnsafe)]);
    }
}
