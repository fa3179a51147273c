//! Samples on the images of MIMIC-CXR-JPG: six sets share them.

use super::config::Folders;
use super::draw::Asked;
use super::held_out::HeldOut;
use super::making::Making;
use super::record::{Image, Sample, Source};
use super::set::Set;
use crate::data::sources::boxes;
use crate::data::sources::mimic::{MimicImage, Tables, report};
use crate::data::sources::mimic_vqa::{self, MimicQuestion};
use crate::data::sources::ms_cxr::{self, Phrase};
use crate::data::sources::radialog::{self, Conversation};
use crate::data::sources::skipped::{At, Reason, Skipped};
use crate::data::sources::{imagenome, size};
use anatomix::PixelBox;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The tables of MIMIC-CXR, and of the sets about its images.
pub struct Mimic {
    folder: PathBuf,
    reports: PathBuf,
    /// Folder of Chest ImaGenome, and the images with a scene graph.
    graphs: Option<(PathBuf, BTreeSet<String>)>,
    tables: Tables,
    phrases: ByImage<Phrase>,
    questions: ByImage<MimicQuestion>,
    conversations: ByImage<Conversation>,
    /// Diagnoses of MS-CXR.
    categories: BTreeSet<String>,
}

/// Rows of a table by their images, with the folder of the table.
struct ByImage<T> {
    folder: PathBuf,
    rows: HashMap<String, Vec<T>>,
}

impl<T> ByImage<T> {
    /// Takes rows whose image is known; the others are noted.
    fn new(folder: &Path, rows: Vec<T>, tables: &Tables, image: fn(&T) -> &str, mut unknown: impl FnMut(&T)) -> Self {
        let mut by_image: HashMap<String, Vec<T>> = HashMap::new();
        for row in rows {
            match tables.image(image(&row)) {
                Some(known) => by_image.entry(known.id.clone()).or_default().push(row),
                None => unknown(&row),
            }
        }
        Self { folder: folder.into(), rows: by_image }
    }

    fn none() -> Self {
        Self { folder: PathBuf::new(), rows: HashMap::new() }
    }

    fn of(&self, image: &MimicImage) -> &[T] {
        self.rows.get(&image.id).map_or(&[], Vec::as_slice)
    }
}

impl Mimic {
    /// Reads the tables. `None` without MIMIC-CXR-JPG.
    pub fn read(folders: &Folders, held: &mut HeldOut, skipped: &mut Skipped) -> Option<Self> {
        let folder = folders.mimic_cxr_jpg.clone()?;
        let tables = Tables::read(&folder, skipped);
        let unknown = |skipped: &mut Skipped, file: &Path, row, image: &str| {
            skipped.note(Reason::ImageUnknown, At { file, row }, image);
        };
        let phrases = folders.ms_cxr.as_ref().map_or_else(ByImage::none, |ms_cxr| {
            let (rows, file) = (ms_cxr::read(ms_cxr, skipped), ms_cxr::path(ms_cxr));
            ByImage::new(ms_cxr, rows, &tables, |p| &p.image, |p| unknown(skipped, &file, p.boxes[0].0, &p.image))
        });
        let questions = folders.mimic_cxr_vqa.as_ref().map_or_else(ByImage::none, |vqa| {
            let rows = mimic_vqa::read(vqa, skipped);
            ByImage::new(vqa, rows, &tables, |q| &q.image, |q| unknown(skipped, &mimic_vqa::path(vqa, q.split), q.row, &q.image))
        });
        let conversations = folders.radialog_instruct.as_ref().map_or_else(ByImage::none, |radialog| {
            let (rows, file) = (radialog::read(radialog, skipped), radialog::path(radialog));
            ByImage::new(radialog, rows, &tables, |c| &c.image, |c| unknown(skipped, &file, c.row, &c.image))
        });
        for image in &tables.images {
            let patient = patient(image);
            held.note(&patient, image.split, Source::MimicCxrJpg.name());
            phrases.of(image).iter().for_each(|phrase| held.note(&patient, phrase.split, Set::Mscxr.name()));
            questions.of(image).iter().for_each(|question| held.note(&patient, question.split, Set::MimicVqa.name()));
        }
        let categories = phrases.rows.values().flatten().map(|phrase| phrase.category.clone()).collect();
        let graphs = folders.chest_imagenome.as_ref().map(|graphs| (graphs.clone(), imagenome::ids(graphs, skipped)));
        let reports = folders.mimic_cxr_reports.as_ref().unwrap_or(&folder).clone();
        Some(Self { folder, reports, graphs, tables, phrases, questions, conversations, categories })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.tables.images.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.tables.images.is_empty()
    }

    /// Makes the samples on the image with this index, but for anatomy grounding. Returns the image; `None` if it is not used.
    pub fn make(&self, index: usize, making: &mut Making) -> Option<Image> {
        let own = self.tables.images.get(index)?;
        let (phrases, questions, conversations) = (self.phrases.of(own), self.questions.of(own), self.conversations.of(own));
        let file = self.folder.join(own.path());
        // Without Chest ImaGenome it is not known which images are frontal.
        let has_graph = self.graphs.as_ref().map(|(_, ids)| ids.contains(&own.id));
        if has_graph == Some(false) {
            making.skipped.note(Reason::NoSceneGraph, At::file(&file), &own.study);
            if phrases.is_empty() && questions.is_empty() && conversations.is_empty() {
                return None;
            }
        }
        let patient = patient(own);
        let (width, height) = size::of(&file, &mut making.skipped)?;
        let split = making.split(&patient, own.split);
        let mut image = Image::new(Source::MimicCxrJpg, &own.id, own.path(), (width, height), patient, own.study.clone(), split);
        image.labels = self.tables.labels.get(&own.study).copied();
        if let Some((folder, _)) = self.graphs.as_ref().filter(|_| has_graph == Some(true)) {
            let graph = imagenome::read(&imagenome::path(folder, &own.id), (width, height), &mut making.skipped);
            graph.into_iter().for_each(|graph| image.annotate(graph));
        }
        if has_graph != Some(false) && making.allows(&image, own.split, At::file(&file)) {
            self.of_study(own, &image, &file, making);
        }
        for phrase in phrases {
            self.of_phrase(phrase, phrases, &image, making);
        }
        for asked in questions {
            let file = mimic_vqa::path(&self.questions.folder, asked.split);
            if making.allows(&image, asked.split, At { file: &file, row: asked.row }) {
                let answer = if asked.answers.is_empty() { "None".into() } else { asked.answers.join(", ") };
                let sample = making.on(Set::MimicVqa, &image, asked.split).question(asked.is_closed, &asked.question, &answer);
                making.push(Set::MimicVqa, sample);
            }
        }
        for conversation in conversations {
            // The published list has no split. A random one would leak, so the image's own is used.
            let file = radialog::path(&self.conversations.folder);
            if making.allows(&image, own.split, At { file: &file, row: conversation.row }) {
                turns(conversation, making.on(Set::RadialogInstruct, &image, own.split), making);
            }
        }
        Some(image)
    }

    /// Labels and report of the study.
    fn of_study(&self, own: &MimicImage, image: &Image, file: &Path, making: &mut Making) {
        let sample = making.on(Set::MimicCxrClassification, image, own.split).classification();
        match (image.labels, sample) {
            (_, Some(sample)) => making.push(Set::MimicCxrClassification, sample),
            (Some(_), None) => making.skipped.note(Reason::NoPositiveLabel, At::file(file), &own.study),
            (None, None) => making.skipped.note(Reason::NoLabels, At::file(file), &own.study),
        }
        if let Some(report) = report(&self.reports.join(own.report()), &mut making.skipped) {
            making.push(Set::MimicReportGen, making.on(Set::MimicReportGen, image, own.split).report(&report));
        }
    }

    /// The three tasks on a phrase of MS-CXR.
    fn of_phrase(&self, phrase: &Phrase, all: &[Phrase], image: &Image, making: &mut Making) {
        let file = ms_cxr::path(&self.phrases.folder);
        let at = At { file: &file, row: phrase.boxes.first().and_then(|(row, _)| *row) };
        if !making.allows(image, phrase.split, at) {
            return;
        }
        let (size, skipped) = ((image.width, image.height), &mut making.skipped);
        let Some([x, y]) = boxes::scale(phrase.size, size, at, skipped) else { return };
        let scaled = |[x0, y0, x1, y1]: [f64; 4]| [x0 * x, y0 * y, x1 * x, y1 * y];
        let inside = |&(row, corners)| boxes::inside(scaled(corners), size, At { file: &file, row }, skipped);
        let boxes: Vec<PixelBox> = phrase.boxes.iter().filter_map(inside).collect();
        if boxes.is_empty() {
            return;
        }
        let asked = making.on(Set::Mscxr, image, phrase.split);
        // A wrong diagnosis is one that no phrase on this image has.
        let is_absent = |category: &&str| all.iter().all(|other| other.category != *category);
        let absent: Vec<&str> = self.categories.iter().map(String::as_str).filter(is_absent).collect();
        making.push(Set::Mscxr, asked.phrase_grounding(&phrase.phrase, &boxes));
        making.push(Set::Mscxr, asked.grounded_captioning(&phrase.phrase, &boxes));
        making.push(Set::Mscxr, asked.grounded_diagnosis(&phrase.category, &phrase.phrase, &absent, &boxes));
    }
}

/// A sample for each turn of a conversation, with the turns before it.
fn turns(conversation: &Conversation, asked: Asked, making: &mut Making) {
    for (at, (question, answer)) in conversation.turns.iter().enumerate() {
        let word = answer.trim_end_matches('.');
        let is_closed = ["yes", "no"].iter().any(|closed| word.eq_ignore_ascii_case(closed));
        let history = conversation.turns[..at].to_vec();
        making.push(Set::RadialogInstruct, Sample { history, ..asked.question(is_closed, question, answer) });
    }
}

fn patient(image: &MimicImage) -> String {
    format!("{}/{}", Source::MimicCxrJpg.name(), image.patient)
}
