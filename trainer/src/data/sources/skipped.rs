//! What a reader could not use, and why.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Number of entries that are kept of each reason; further ones are counted.
const KEPT: u64 = 1000;

/// What became of a row, an image or a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was skipped, because the data are not as published: `--strict` stops at the first one.
    Skipped,
    /// It was used, but changed before.
    Changed,
    /// It was left out by a rule. Published data have such rows, too.
    LeftOut,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $outcome:ident, $text:literal;)+) => {
        /// Why something was skipped, changed or left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What becomes of what has this reason.
            pub fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome,)+ }
            }

            /// The reason in words.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// A file is missing, cannot be read, is cut or is not of its format.
    FileUnreadable = Skipped, "a file cannot be read to its end";
    /// A table has no such column.
    ColumnMissing = Skipped, "a table lacks a column";
    /// A row or entry has a wrong number of fields, or a field of another form.
    RowMalformed = Skipped, "a row is not of the published form";
    /// A row or entry that was there before.
    RowRepeated = Skipped, "a row is there twice";
    /// A name that could lead out of the data set's folder.
    NameUnsafe = Skipped, "a file name is not one of the data set";
    /// A text that contains a token with a meaning in the prompt.
    TextUnsafe = Skipped, "a text contains a token of the prompt";
    /// A box that is not a number, is empty, or lies outside the image.
    BoxInvalid = Skipped, "a box is not one inside the image";
    /// An image without a file.
    ImageMissing = Skipped, "an image file is missing";
    /// An image whose header cannot be read.
    ImageUnreadable = Skipped, "the header of an image cannot be read";
    /// An image with other sides than the annotations are for.
    ImageOther = Skipped, "an image has other proportions than its annotations";
    /// A row about an image that the table of splits does not have.
    ImageUnknown = Skipped, "an image is in no split";
    /// A study without a report file.
    ReportMissing = Skipped, "a report file is missing";
    /// A box that reached over the image's edge.
    BoxClipped = Changed, "a box was clipped to the image";
    /// An image without a scene graph, such as a lateral.
    NoSceneGraph = LeftOut, "no scene graph (laterals have none)";
    /// A study without labels.
    NoLabels = LeftOut, "a study has no labels";
    /// A study for which no label is positive.
    NoPositiveLabel = LeftOut, "no label of a study applies";
    /// A report that lacks its findings or its impression.
    ReportIncomplete = LeftOut, "a report lacks its findings or impression";
    /// A question in another language than English.
    OtherLanguage = LeftOut, "a question is not in English";
    /// A question on another kind of image.
    OtherImage = LeftOut, "a question is not on a chest radiograph";
    /// A finding without a box.
    NoBox = LeftOut, "a finding has no box";
    /// An image with too many boxes for the task.
    ManyBoxes = LeftOut, "more boxes than the task takes";
    /// A row of a patient whom another set, or another row, has in a more protected split.
    HeldOut = LeftOut, "the patient is in validation or test elsewhere";
}

/// A file, and a row of it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Path of the file.
    pub file: &'a Path,
    /// Line of a table, from 1 for the header; index of an entry of a list, from 0.
    pub row: Option<u64>,
}

impl<'a> At<'a> {
    /// A file as a whole.
    pub fn file(file: &'a Path) -> Self {
        Self { file, row: None }
    }
}

/// One thing that was not used as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The file.
    pub file: String,
    /// Line of a table, from 1 for the header; index of an entry of a list, from 0.
    pub row: Option<u64>,
    /// The reason.
    pub reason: Reason,
    /// What exactly is wrong.
    pub detail: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        write!(f, ": {} ({})", self.detail, self.reason.text())
    }
}

/// Collects what could not be used. Memory is bounded, however much that is.
#[derive(Clone, Debug, Default)]
pub struct Skipped {
    counts: BTreeMap<Reason, u64>,
    entries: Vec<Entry>,
}

impl Skipped {
    /// Notes one thing.
    pub fn note(&mut self, reason: Reason, at: At, detail: impl fmt::Display) {
        self.push(Entry { file: at.file.display().to_string(), row: at.row, reason, detail: detail.to_string() });
    }

    fn push(&mut self, entry: Entry) {
        let count = self.counts.entry(entry.reason).or_default();
        *count += 1;
        if *count <= KEPT {
            self.entries.push(entry);
        }
    }

    /// Adds what another collector has.
    pub fn absorb(&mut self, other: Self) {
        let mut rest = other.counts;
        for entry in other.entries {
            rest.entry(entry.reason).and_modify(|count| *count -= 1);
            self.push(entry);
        }
        rest.into_iter().for_each(|(reason, count)| *self.counts.entry(reason).or_default() += count);
    }

    /// How often each reason occurred.
    pub fn counts(&self) -> &BTreeMap<Reason, u64> {
        &self.counts
    }

    /// The number of things with this reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts.get(&reason).copied().unwrap_or_default()
    }

    /// The first thousand entries of each reason, in the order in which they were noted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The first entry that says that data are not as published.
    pub fn first_damage(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.reason.outcome() == Outcome::Skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_bounded_and_counts_are_not() {
        let (mut all, mut part) = (Skipped::default(), Skipped::default());
        for row in 0..1500 {
            part.note(Reason::RowMalformed, At { file: Path::new("a.csv"), row: Some(row) }, "field 2");
        }
        part.note(Reason::NoSceneGraph, At::file(Path::new("b")), "");
        all.note(Reason::NoSceneGraph, At::file(Path::new("a")), "");
        assert!(all.first_damage().is_none());
        all.absorb(part);
        assert_eq!((all.count(Reason::RowMalformed), all.count(Reason::NoSceneGraph)), (1500, 2));
        assert_eq!(all.entries().len(), 1002);
        let damage = all.first_damage().unwrap().to_string();
        assert_eq!(damage, "a.csv, row 0: field 2 (a row is not of the published form)");
    }
}
