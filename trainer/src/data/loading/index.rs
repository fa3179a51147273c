//! An index of a prepared folder: which images and samples there are, and where their lines are.

use super::lines::{Lines, Place};
use super::prepared::Prepared;
use crate::data::samples::folder::{IMAGES, file_of};
use crate::data::samples::record::{Image, Sample};
use crate::data::samples::set::Set;
use crate::data::sources::split::Split;
use anatomix::Task;
use anatomix::parts::hash::{Digest, Hasher};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Longest line of a sample in bytes, with its question, answer and earlier turns; a report has some thousand.
const MAX_SAMPLE: usize = 64 << 10;

/// An image of the index, 24 bytes.
#[derive(Clone, Copy, Debug)]
struct ImageEntry {
    at: Place,
    split: Option<Split>,
    has_structures: bool,
}

/// A sample of the index, 24 bytes.
#[derive(Clone, Copy, Debug)]
struct SampleEntry {
    at: Place,
    image: u32,
    file: u8,
    task: Task,
    split: Split,
}

/// The part of an image's record that the index needs.
#[derive(Deserialize)]
struct ImageHead<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    split: Option<Split>,
    #[serde(default)]
    boxes: Vec<Option<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct SampleHead<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
    split: Split,
    task: Task,
}

/// The images of a prepared folder, and samples on them.
#[derive(Debug)]
pub struct Index {
    /// The folder.
    pub prepared: Prepared,
    lines: Lines,
    images: Vec<ImageEntry>,
    /// Files of samples.
    files: Vec<Lines>,
    /// Samples, sorted by image; those of one image are in the order of the files.
    samples: Vec<SampleEntry>,
    /// Hash of all lines that the index was made of.
    pub hash: Digest,
}

impl Index {
    /// Reads the index of images, and of the samples of these splits.
    ///
    /// # Errors
    /// If a file cannot be read, or holds what `prepare` did not write; the error names file and line.
    pub fn read(prepared: Prepared, splits: &[Split]) -> Result<Self> {
        let (mut images, mut ids) = (Vec::new(), HashMap::new());
        let (mut hasher, keyed) = (Hasher::default(), RandomState::new());
        let lines = Lines::open(&prepared.folder.join(IMAGES))?;
        lines.scan(&mut hasher, |line, at| {
            let head: ImageHead = serde_json::from_slice(line)?;
            let number = u32::try_from(images.len()).context("there are more than 4 billion images")?;
            // Only a hash of the identifier is kept; a sample's image is compared when it is read.
            ensure!(ids.insert(keyed.hash_one(head.id.as_ref()), number).is_none(), "the image {} is there twice", head.id);
            images.push(ImageEntry { at, split: head.split, has_structures: head.boxes.iter().any(Option::is_some) });
            Ok(())
        })?;
        let (mut files, mut samples) = (Vec::new(), Vec::new());
        for (set, split) in Set::every().flat_map(|set| splits.iter().map(move |split| (set, *split))) {
            let path = prepared.folder.join(file_of(set, split));
            if !path.exists() {
                continue;
            }
            let (file, own) = (files.len() as u8, Lines::open(&path)?);
            own.scan(&mut hasher, |line, at| {
                // The memory of a step grows with the square of a text's length.
                ensure!(line.len() <= MAX_SAMPLE, "the sample has {} bytes; leave texts of more than {MAX_SAMPLE} out", line.len());
                let head: SampleHead = serde_json::from_slice(line)?;
                ensure!(head.split == split, "the sample is of the split {}", head.split.name());
                match ids.get(&keyed.hash_one(head.image.as_ref())) {
                    Some(&image) => samples.push(SampleEntry { at, image, file, task: head.task, split }),
                    None => bail!("there is no image {}", head.image),
                }
                Ok(())
            })?;
            files.push(own);
        }
        samples.sort_by_key(|sample| sample.image);
        samples.shrink_to_fit();
        images.shrink_to_fit();
        Ok(Self { prepared, lines, images, files, samples, hash: hasher.finish() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Images of a split that have boxes of structures, in the order of the folder.
    pub fn annotated(&self, split: Split) -> Vec<u32> {
        let all = (0..).zip(&self.images);
        all.filter(|(_, image)| image.split == Some(split) && image.has_structures).map(|(number, _)| number).collect()
    }

    /// Whether an image is of this split and has boxes of structures.
    pub fn is_annotated(&self, image: u32, split: Split) -> bool {
        self.images.get(image as usize).is_some_and(|entry| entry.split == Some(split) && entry.has_structures)
    }

    /// Images with a sample of a split and of such a task, in the order of the folder.
    pub fn with_samples(&self, split: Split, wanted: impl Fn(Task) -> bool) -> Vec<u32> {
        let own = self.samples.iter().filter(|sample| sample.split == split && wanted(sample.task));
        let mut images: Vec<u32> = own.map(|sample| sample.image).collect();
        images.dedup();
        images
    }

    /// The number of samples of a split on each of these images, of such tasks.
    pub fn counts<'a>(&'a self, images: &'a [u32], split: Split, wanted: impl Fn(Task) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
        images.iter().map(move |&number| self.on(number).filter(|sample| sample.split == split && wanted(sample.task)).count())
    }

    /// The samples on an image.
    fn on(&self, number: u32) -> impl Iterator<Item = &SampleEntry> {
        let start = self.samples.partition_point(|sample| sample.image < number);
        self.samples.get(start..).unwrap_or_default().iter().take_while(move |sample| sample.image == number)
    }

    /// Reads the record of an image.
    ///
    /// # Errors
    /// If the line cannot be read, or is not one that `prepare` wrote.
    pub fn image(&self, number: u32) -> Result<Image> {
        let entry = self.images.get(number as usize).with_context(|| format!("there is no image {number}"))?;
        let image: Image = self.lines.read(entry.at)?;
        ensure!(
            image.is_valid(),
            "{}: the record of the image {} has a size, boxes, sentences or labels that `prepare` does not write; prepare the folder again",
            self.lines.line(entry.at),
            image.id
        );
        Ok(image)
    }

    /// Reads the samples of a split on an image.
    ///
    /// # Errors
    /// If a line cannot be read.
    pub fn samples(&self, number: u32, image: &Image, split: Split) -> Result<Vec<Sample>> {
        self.on(number)
            .filter(|sample| sample.split == split)
            .map(|entry| {
                let file = self.files.get(usize::from(entry.file)).context("the index has no such file")?;
                let sample: Sample = file.read(entry.at)?;
                let line = || file.line(entry.at);
                ensure!(sample.image == image.id, "{}: a sample on {} was taken for one on {}", line(), sample.image, image.id);
                Ok(sample)
            })
            .collect()
    }

    /// Passes on the records of these images, one after the other.
    ///
    /// # Errors
    /// If one cannot be read, or `each` fails.
    pub fn each(&self, images: &[u32], mut each: impl FnMut(Image) -> Result<()>) -> Result<()> {
        images.iter().try_for_each(|&number| each(self.image(number)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_small() {
        // docs/training.md says so.
        assert_eq!((size_of::<ImageEntry>(), size_of::<SampleEntry>()), (24, 24));
    }
}
