//! Samples on SLAKE: its questions.

use super::config::Folders;
use super::held_out::HeldOut;
use super::making::Making;
use super::record::{Image, Source};
use super::set::Set;
use crate::data::sources::size;
use crate::data::sources::skipped::{At, Skipped};
use crate::data::sources::slake::{SlakeQuestion, images, read};
use crate::data::sources::split::Split;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The questions of SLAKE by their images.
pub struct Slake {
    folder: PathBuf,
    images: Vec<(String, Vec<SlakeQuestion>)>,
}

impl Slake {
    /// Reads the questions. `None` without SLAKE.
    pub fn read(folders: &Folders, held: &mut HeldOut, skipped: &mut Skipped) -> Option<Self> {
        let folder = folders.slake.clone()?;
        let mut by_image: BTreeMap<String, Vec<SlakeQuestion>> = BTreeMap::new();
        for question in read(&folder, skipped) {
            held.note(&patient(&question.image), question.split, Source::Slake.name());
            by_image.entry(question.image.clone()).or_default().push(question);
        }
        Some(Self { folder, images: by_image.into_iter().collect() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Makes the samples on the image with this index. Returns the image; `None` if it cannot be used.
    pub fn make(&self, index: usize, making: &mut Making) -> Option<Image> {
        let (path, questions) = self.images.get(index)?;
        let (width, height) = size::of(&images(&self.folder).join(path), &mut making.skipped)?;
        let patient = patient(path);
        let own = questions.iter().map(|question| question.split).max().unwrap_or(Split::Train);
        let split = making.split(&patient, own);
        let image = Image::new(Source::Slake, path, path.clone(), (width, height), patient.clone(), patient, split);
        for asked in questions {
            let file = self.folder.join(format!("{}.json", asked.split.name()));
            if making.allows(&image, asked.split, At { file: &file, row: asked.row }) {
                let sample = making.on(Set::Slake, &image, asked.split).question(asked.is_closed, &asked.question, &asked.answer);
                making.push(Set::Slake, sample);
            }
        }
        Some(image)
    }
}

/// The folder of an image stands for its patient, who is not known.
fn patient(path: &str) -> String {
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    format!("{}/{folder}", Source::Slake.name())
}
