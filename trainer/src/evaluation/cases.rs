//! Choice of the images and questions that are evaluated.

use crate::data::imagenome::{self, Annotated};
use crate::data::instruct;
use anatomix::Task;
use anatomix::parts::hash::Digest;
use anatomix_phantom::dataset::EVALUATION_SEEDS;
use anatomix_phantom::tasks::Sample;
use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// An annotated image with the questions on it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The image and its annotations.
    pub annotated: Annotated,
    /// The questions with their expected answers.
    pub samples: Vec<Sample>,
}

/// Reads the test split of a data set: the first `limit` images, and for each image at most `questions` questions of each of `tasks`. The
/// image's identifier alone determines which questions are chosen.
///
/// # Errors
/// If the data set cannot be read, has no test images, or contains phantoms with training seeds.
pub fn read(folder: &Path, tasks: &[Task], questions: usize, limit: Option<usize>) -> Result<Vec<Case>> {
    let mut images = imagenome::read(folder, |_| true)?;
    let trained = images.iter().filter(|image| is_for_training(&image.id)).count();
    ensure!(
        trained == 0,
        "{} holds {trained} phantoms of seeds below {EVALUATION_SEEDS}, which are for training; draw others with \
         `anatomix-trainer phantom --seed {EVALUATION_SEEDS} --count N --out DIR`",
        folder.display()
    );
    images.retain(|image| image.split == "test");
    ensure!(!images.is_empty(), "{} has no images of the split \"test\"", folder.display());
    images.truncate(limit.unwrap_or(usize::MAX));
    let mut samples = if questions == 0 { Default::default() } else { instruct::read(&folder.join("instruct.jsonl"))? };
    let cases = images.into_iter().map(|annotated| {
        let all = samples.remove(&annotated.id).unwrap_or_default();
        Case { samples: choose(&annotated.id, all, tasks, questions), annotated }
    });
    Ok(cases.collect())
}

/// Whether this is the identifier of a phantom with a training seed. The identifier ends in the seed.
fn is_for_training(id: &str) -> bool {
    let seed = id.strip_prefix("phantom-").and_then(|seed| seed.parse::<u64>().ok());
    seed.is_some_and(|seed| seed < EVALUATION_SEEDS)
}

/// Chooses samples at random. The first ones would be biased: the first closed question of an image is answered by yes.
fn choose(id: &str, samples: Vec<Sample>, tasks: &[Task], questions: usize) -> Vec<Sample> {
    let mut chosen: Vec<usize> = tasks
        .iter()
        .flat_map(|&task| {
            let mut rng = ChaCha8Rng::from_seed(Digest::of(format!("{id} {task}").as_bytes()).0);
            samples.iter().enumerate().filter(|(_, s)| s.task == task).map(|(i, _)| i).sample(&mut rng, questions)
        })
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().filter_map(|index| samples.get(index).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_seeds_are_recognised() {
        assert!(is_for_training("phantom-0000001"));
        assert!(is_for_training("phantom-0999999"));
        assert!(!is_for_training("phantom-1000000"));
        assert!(!is_for_training("b8e1a-33"));
    }

    #[test]
    fn choice_is_repeatable_and_bounded() {
        let sample = |task, question: String| Sample { task, question, answer: String::new(), boxes: vec![] };
        let samples: Vec<Sample> =
            (0..20).map(|i| sample(if i % 2 == 0 { Task::ClosedQuestion } else { Task::OpenQuestion }, i.to_string())).collect();
        let tasks = [Task::ClosedQuestion, Task::Report];
        let once = choose("a", samples.clone(), &tasks, 3);
        assert_eq!(once, choose("a", samples.clone(), &tasks, 3));
        assert_eq!(once.len(), 3);
        assert!(once.iter().all(|s| s.task == Task::ClosedQuestion));
        let other: Vec<_> = ["b", "c", "d"].map(|id| choose(id, samples.clone(), &tasks, 3)).into();
        assert!(other.iter().any(|o| *o != once), "the choice depends on the image");
    }

    #[test]
    fn training_phantoms_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |seed| {
            let options = anatomix_phantom::dataset::Options { out: folder.path().into(), count: 2, seed, size: 64, dicom_every: 0 };
            anatomix_phantom::dataset::write(&options, |_| ()).unwrap();
        };
        write(EVALUATION_SEEDS - 1);
        let error = read(folder.path(), &Task::ALL, 1, None).unwrap_err().to_string();
        assert!(error.contains("holds 1 phantoms of seeds below 1000000"), "{error}");
        write(EVALUATION_SEEDS);
        let cases = read(folder.path(), &Task::ALL, 1, Some(1)).unwrap();
        assert_eq!(cases.len(), 1);
        assert!(cases[0].samples.iter().any(|s| s.task == Task::Report));
        assert!(read(folder.path(), &Task::ALL, 0, None).unwrap().iter().all(|c| c.samples.is_empty()));
    }
}
