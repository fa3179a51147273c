//! Samples on phantoms: the questions that were drawn with them.

use super::config::Folders;
use super::held_out::HeldOut;
use super::making::Making;
use super::record::{Image, Sample, Source};
use super::set::Set;
use crate::data::sources::mimic::Tables;
use crate::data::sources::phantom::{Asked, graph, image_path, questions, questions_path};
use crate::data::sources::size;
use crate::data::sources::skipped::{At, Reason, Skipped};
use std::collections::HashMap;
use std::path::PathBuf;

/// The tables and questions of phantoms.
pub struct Phantoms {
    folder: PathBuf,
    tables: Tables,
    questions: HashMap<String, Vec<Asked>>,
}

impl Phantoms {
    /// Reads tables and questions. `None` without phantoms.
    pub fn read(folders: &Folders, held: &mut HeldOut, skipped: &mut Skipped) -> Option<Self> {
        let folder = folders.phantom.clone()?;
        let (tables, questions) = (Tables::read(&folder, skipped), questions(&folder, skipped));
        for image in &tables.images {
            held.note(&patient(&image.patient), image.split, Source::Phantom.name());
        }
        let file = questions_path(&folder);
        for (image, asked) in questions.iter().filter(|(image, _)| tables.image(image).is_none()) {
            skipped.note(Reason::ImageUnknown, At { file: &file, row: asked.first().map(|asked| asked.row) }, image);
        }
        Some(Self { folder, tables, questions })
    }

    /// Number of phantoms.
    pub fn len(&self) -> usize {
        self.tables.images.len()
    }

    /// Whether there are no phantoms.
    pub fn is_empty(&self) -> bool {
        self.tables.images.is_empty()
    }

    /// Makes the samples on the phantom with this index. Returns its image; `None` if that cannot be used.
    pub fn make(&self, index: usize, making: &mut Making) -> Option<Image> {
        let own = self.tables.images.get(index)?;
        let path = image_path(&own.id);
        let file = self.folder.join(&path);
        let (width, height) = size::of(&file, &mut making.skipped)?;
        let patient = patient(&own.patient);
        // Labels that are not positive do not apply: everything is known of a phantom.
        let labels = self.tables.labels.get(&own.study).map(|labels| labels.map(|label| label.or(Some(0))));
        let split = making.split(&patient, own.split);
        let mut image = Image::new(Source::Phantom, &own.id, path, (width, height), patient, own.study.clone(), split);
        image.labels = labels;
        graph(&self.folder, &own.id, (width, height), &mut making.skipped).into_iter().for_each(|graph| image.annotate(graph));
        if labels.is_none() {
            making.skipped.note(Reason::NoLabels, At::file(&file), &own.study);
        }
        for asked in self.questions.get(&own.id).into_iter().flatten() {
            let drawn = &asked.sample;
            let sample = Sample::new(&image, own.split, drawn.task, drawn.question.clone(), drawn.answer.clone());
            making.push(Set::Phantom, Sample { boxes: drawn.boxes.clone(), ..sample });
        }
        Some(image)
    }
}

fn patient(seed: &str) -> String {
    format!("{}/{seed}", Source::Phantom.name())
}
