//! Choice of the images and questions that are evaluated.

use crate::data::loading::index::Index;
use crate::data::loading::prepared::Prepared;
use crate::data::samples::record::{Image, Sample, Source};
use crate::data::sources::split::Split;
use anatomix::Task;
use anatomix::parts::hash::Digest;
use anatomix_phantom::dataset::EVALUATION_SEEDS;
use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};

/// An image with the questions on it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The image and its annotations. Those of an image that is not of the test split are left out.
    pub image: Image,
    /// The image's file.
    pub path: PathBuf,
    /// The questions with their expected answers.
    pub samples: Vec<Sample>,
}

/// Reads the test split of a prepared folder: the first `limit` images, and for each image at most `questions` questions of each of
/// `tasks`. The image's identifier alone determines which questions are chosen.
///
/// # Errors
/// If the folder cannot be read, has no test images, or contains phantoms with training seeds.
pub fn read(folder: &Path, tasks: &[Task], questions: usize, limit: Option<usize>) -> Result<Vec<Case>> {
    let index = Index::read(Prepared::open(folder)?, &[Split::Test])?;
    let all: Vec<u32> = if index.prepared.has(Source::Phantom) { (0..index.len() as u32).collect() } else { Vec::new() };
    // An annotated image has a question, too.
    let (mut trained, mut images) = (0, index.with_samples(Split::Test, |_| true));
    index.each(&all, |image| {
        trained += usize::from(is_for_training(&image));
        Ok(())
    })?;
    let folder = folder.display();
    ensure!(
        trained == 0,
        "{folder} holds {trained} phantoms of seeds below {EVALUATION_SEEDS}, which are for training; draw others with \
         `anatomix-trainer phantom --seed {EVALUATION_SEEDS} --count N --out DIR`"
    );
    ensure!(!images.is_empty(), "{folder} has no images of the split \"test\"");
    images.truncate(limit.unwrap_or(usize::MAX));
    images
        .into_iter()
        .map(|number| {
            let mut image = index.image(number)?;
            let samples = if questions == 0 { Vec::new() } else { index.samples(number, &image, Split::Test)? };
            if image.split != Some(Split::Test) {
                (image.boxes, image.sentences, image.labels) = (Vec::new(), Vec::new(), None);
            }
            Ok(Case { samples: choose(name(&image), samples, tasks, questions), path: index.prepared.path(&image)?, image })
        })
        .collect()
}

/// The source's identifier of the image.
fn name(image: &Image) -> &str {
    image.id.strip_prefix(image.source.name()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&image.id)
}

/// Whether this is a phantom with a training seed. Its identifier ends in the seed.
fn is_for_training(image: &Image) -> bool {
    let seed = name(image).strip_prefix("phantom-").and_then(|seed| seed.parse::<u64>().ok());
    let seed = seed.filter(|_| image.source == Source::Phantom);
    seed.is_some_and(|seed| seed < EVALUATION_SEEDS)
}

/// Chooses samples at random. The first ones would be biased: the first closed question of an image is answered by yes.
fn choose(id: &str, samples: Vec<Sample>, tasks: &[Task], questions: usize) -> Vec<Sample> {
    let mut chosen: Vec<usize> = tasks
        .iter()
        .flat_map(|&task| {
            let mut rng = ChaCha8Rng::from_seed(Digest::of(format!("{id} {task}").as_bytes()).0);
            let own = samples.iter().enumerate().filter(|(_, s)| s.task == task).map(|(i, _)| i);
            // Room for all that are wanted is allocated, however many there are.
            own.sample(&mut rng, questions.min(samples.len()))
        })
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().filter_map(|index| samples.get(index).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::loading::prepared::INSIDE;
    use crate::data::samples::config::{Config, Folders};
    use crate::data::samples::prepare::prepare;

    fn image(source: Source, name: &str) -> Image {
        let id = format!("{}/{name}", source.name());
        let (path, patient, study) = (format!("{name}.png"), id.clone(), id.clone());
        let (boxes, sentences) = (vec![], vec![]);
        Image { id, source, path, width: 9, height: 9, patient, study, split: Some(Split::Test), boxes, sentences, labels: None }
    }

    #[test]
    fn training_seeds_are_recognised() {
        assert!(is_for_training(&image(Source::Phantom, "phantom-0000001")));
        assert!(is_for_training(&image(Source::Phantom, "phantom-0999999")));
        assert!(!is_for_training(&image(Source::Phantom, "phantom-1000000")));
        assert!(!is_for_training(&image(Source::MimicCxrJpg, "phantom-0000001")));
        assert!(!is_for_training(&image(Source::MimicCxrJpg, "b8e1a-33")));
    }

    #[test]
    fn choice_is_repeatable_and_bounded() {
        let image = image(Source::Slake, "a");
        let sample = |task, question: String| Sample::new(&image, Split::Test, task, question, String::new());
        let samples: Vec<Sample> =
            (0..20).map(|i| sample(if i % 2 == 0 { Task::ClosedQuestion } else { Task::OpenQuestion }, i.to_string())).collect();
        let tasks = [Task::ClosedQuestion, Task::Report];
        let once = choose("a", samples.clone(), &tasks, 3);
        assert_eq!(once, choose("a", samples.clone(), &tasks, 3));
        assert_eq!(once.len(), 3);
        assert!(once.iter().all(|s| s.task == Task::ClosedQuestion));
        let other: Vec<_> = ["b", "c", "d"].map(|id| choose(id, samples.clone(), &tasks, 3)).into();
        assert!(other.iter().any(|o| *o != once), "the choice depends on the image");
        assert_eq!(choose("a", samples.clone(), &Task::ALL, usize::MAX), samples);
    }

    #[test]
    fn training_phantoms_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |seed| {
            let options =
                anatomix_phantom::dataset::Options { out: folder.path().into(), count: 2, seed, size: 64, dicom_every: 0, markers: true };
            anatomix_phantom::dataset::write(&options, |_| ()).unwrap();
            let sources = Folders { phantom: Some(folder.path().into()), ..Folders::default() };
            prepare(&Config { sources, ..Config::default() }, &folder.path().join(INSIDE), true).unwrap();
        };
        write(EVALUATION_SEEDS - 1);
        let error = read(folder.path(), &Task::ALL, 1, None).unwrap_err().to_string();
        assert!(error.contains("holds 1 phantoms of seeds below 1000000"), "{error}");
        write(EVALUATION_SEEDS);
        let cases = read(folder.path(), &Task::ALL, 1, Some(1)).unwrap();
        assert_eq!(cases.len(), 1);
        assert!(cases[0].samples.iter().any(|s| s.task == Task::Report));
        assert!(cases[0].image.labels.unwrap().iter().all(Option::is_some), "all labels of a phantom are known");
        assert!(read(folder.path(), &Task::ALL, 0, None).unwrap().iter().all(|c| c.samples.is_empty()));
    }
}
