//! Samples on PadChest-GR: phrase grounding of every finding that has boxes.

use super::config::Folders;
use super::held_out::HeldOut;
use super::making::Making;
use super::record::{Image, Source};
use super::set::Set;
use crate::data::sources::boxes;
use crate::data::sources::padchest::{PadChestImage, path, read};
use crate::data::sources::size;
use crate::data::sources::skipped::{At, Reason, Skipped};
use anatomix::PixelBox;
use std::path::PathBuf;

/// The images of PadChest-GR.
pub struct PadChest {
    table: PathBuf,
    images_folder: PathBuf,
    images: Vec<PadChestImage>,
}

impl PadChest {
    /// Reads the reports. `None` without PadChest-GR.
    pub fn read(folders: &Folders, held: &mut HeldOut, skipped: &mut Skipped) -> Option<Self> {
        let folder = folders.padchest_gr.clone()?;
        let images = read(&folder, skipped);
        images.iter().for_each(|image| held.note(&patient(image), image.split, Source::PadchestGr.name()));
        let images_folder = images_folder(folders)?;
        Some(Self { table: path(&folder), images_folder, images })
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
        let own = self.images.get(index)?;
        let (width, height) = size::of(&self.images_folder.join(&own.file), &mut making.skipped)?;
        let at = At { file: &self.table, row: own.row };
        let patient = patient(own);
        let split = making.split(&patient, own.split);
        let image = Image::new(Source::PadchestGr, &own.file, own.file.clone(), (width, height), patient, own.study.clone(), split);
        if !making.allows(&image, own.split, at) {
            return Some(image);
        }
        // Findings with the same sentence would be the same question with several answers.
        let mut sentences: Vec<(&str, Vec<PixelBox>)> = Vec::new();
        for finding in &own.findings {
            if finding.boxes.is_empty() {
                making.skipped.note(Reason::NoBox, at, &finding.sentence);
            }
            for &[x0, y0, x1, y1] in &finding.boxes {
                let (w, h) = (f64::from(width), f64::from(height));
                let corners = [x0 * w, y0 * h, x1 * w, y1 * h];
                let Some(bounds) = boxes::inside(corners, (width, height), at, &mut making.skipped) else { continue };
                match sentences.iter_mut().find(|(sentence, _)| *sentence == finding.sentence) {
                    Some((_, boxes)) if boxes.contains(&bounds) => {}
                    Some((_, boxes)) => boxes.push(bounds),
                    None => sentences.push((&finding.sentence, vec![bounds])),
                }
            }
        }
        for (sentence, boxes) in sentences {
            let sample = making.on(Set::PadchestGr, &image, own.split).phrase_grounding(sentence, &boxes);
            making.push(Set::PadchestGr, sample);
        }
        Some(image)
    }
}

/// The folder of the images.
pub fn images_folder(folders: &Folders) -> Option<PathBuf> {
    folders.padchest_gr_images.clone().or_else(|| Some(folders.padchest_gr.as_ref()?.join("images")))
}

fn patient(image: &PadChestImage) -> String {
    format!("{}/{}", Source::PadchestGr.name(), image.patient)
}
