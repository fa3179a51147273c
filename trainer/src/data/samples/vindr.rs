//! Samples on VinDr-CXR: abnormality detection, phrase grounding and grounded diagnosis.

use super::config::Config;
use super::held_out::HeldOut;
use super::making::Making;
use super::record::{Image, Source};
use super::set::Set;
use crate::data::sources::boxes;
use crate::data::sources::size;
use crate::data::sources::skipped::{At, Reason, Skipped};
use crate::data::sources::split::Split;
use crate::data::sources::vindr::{VindrImage, read};
use anatomix::PixelBox;
use anatomix::parts::hash::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Largest number of boxes on an image; published ones have at most a few dozen, and merging takes the cube of their number.
const MAX_BOXES: usize = 500;
/// Largest number of boxes in an answer to abnormality detection.
const MAX_DETECTED: usize = 5;
/// Largest number of boxes of a class in phrase grounding and grounded diagnosis.
const MAX_OF_CLASS: usize = 2;

/// The images of VinDr-CXR.
pub struct Vindr {
    folder: PathBuf,
    images: Vec<(VindrImage, Split)>,
    classes: BTreeSet<String>,
}

impl Vindr {
    /// Reads the tables. `None` without VinDr-CXR.
    pub fn read(config: &Config, held: &mut HeldOut, skipped: &mut Skipped) -> Option<Self> {
        let folder = config.sources.vindr_cxr.clone()?;
        let with_split = |image: VindrImage| {
            let split = split(&image, config);
            (image, split)
        };
        let images: Vec<_> = read(&folder, skipped).into_iter().map(with_split).collect();
        images.iter().for_each(|(image, split)| held.note(&patient(image), *split, Source::VindrCxr.name()));
        let classes = images.iter().flat_map(|(image, _)| image.boxes.iter().map(|b| b.class.clone())).collect();
        Some(Self { folder, images, classes })
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
        let (own, split) = self.images.get(index)?;
        let table = own.table(&self.folder);
        if own.boxes.len() > MAX_BOXES {
            let at = At { file: &table, row: own.boxes.first().and_then(|b| b.row) };
            making.skipped.note(Reason::RowMalformed, at, format!("{} boxes on one image, more than {MAX_BOXES}", own.boxes.len()));
            return None;
        }
        let paths = own.paths();
        let path = paths.iter().find(|path| self.folder.join(path).exists()).unwrap_or(&paths[0]);
        let (width, height) = size::of(&self.folder.join(path), &mut making.skipped)?;
        let (patient, trained) = (patient(own), making.split(&patient(own), *split));
        let image = Image::new(Source::VindrCxr, &own.id, path.clone(), (width, height), patient, own.id.clone(), trained);
        let mut classes: BTreeMap<&str, Vec<PixelBox>> = BTreeMap::new();
        let mut has_damage = false;
        for annotated in &own.boxes {
            let at = At { file: &table, row: annotated.row };
            match boxes::inside(annotated.corners, (width, height), at, &mut making.skipped) {
                Some(bounds) => classes.entry(&annotated.class).or_default().push(bounds),
                None => has_damage = true,
            }
        }
        let findings: Vec<(&str, Vec<PixelBox>)> = classes.into_iter().map(|(class, found)| (class, boxes::merge(found))).collect();
        let at = At { file: &table, row: own.boxes.first().and_then(|b| b.row) };
        let asked = making.on(Set::VindrInstruct, &image, *split);
        let count: usize = findings.iter().map(|(_, boxes)| boxes.len()).sum();
        // If a box was skipped, it is not known whether the others are all.
        if count > MAX_DETECTED {
            making.skipped.note(Reason::ManyBoxes, at, format!("{count} boxes for abnormality detection"));
        } else if !has_damage {
            let named: Vec<(&str, &[PixelBox])> = findings.iter().map(|(class, boxes)| (*class, boxes.as_slice())).collect();
            making.push(Set::VindrInstruct, asked.abnormality_detection(&named));
        }
        // A wrong diagnosis is one that no radiologist made on this image.
        let is_absent = |class: &&str| own.boxes.iter().all(|b| b.class != *class);
        let absent: Vec<&str> = self.classes.iter().map(String::as_str).filter(is_absent).collect();
        for (class, boxes) in &findings {
            if boxes.len() > MAX_OF_CLASS {
                making.skipped.note(Reason::ManyBoxes, at, format!("{} boxes of {class}", boxes.len()));
                continue;
            }
            making.push(Set::VindrInstruct, asked.phrase_grounding(class, boxes));
            making.push(Set::VindrInstruct, asked.grounded_diagnosis(class, "", &absent, boxes));
        }
        Some(image)
    }
}

/// The split of an image. Of the training images, a share that follows from their identifiers is held out for validation.
fn split(image: &VindrImage, config: &Config) -> Split {
    if image.is_test {
        return Split::Test;
    }
    let digest = Digest::of(format!("{} validation {}", config.seed, image.id).as_bytes()).0;
    let [a, b, c, d, ..] = digest;
    let share = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
    if share < config.vindr_validation { Split::Validate } else { Split::Train }
}

fn patient(image: &VindrImage) -> String {
    format!("{}/{}", Source::VindrCxr.name(), image.id)
}
