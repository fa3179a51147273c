//! Which samples of an image are asked in one pack.
//!
//! An image has more samples than a pack takes. So it has several packs in each epoch, which take every sample of it once together.

use super::order::of_image;
use super::settings::StageSettings;
use crate::data::samples::record::Sample;
use anatomix::Task;
use rand::seq::SliceRandom;

/// Number of look-up questions in each pack in the stage `instruct`, if there are any.
const LOOK_UPS: usize = 3;

/// Largest number of an image's samples in a pack of instruction tuning, where the other questions are look-ups.
pub fn own_questions(settings: &StageSettings, looks_up: bool) -> usize {
    if looks_up { settings.questions.saturating_sub(LOOK_UPS).max(1) } else { settings.questions }
}

/// A pack of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the image.
    pub image: usize,
    /// Number of the pack among those of the image.
    pub number: usize,
    /// How many packs the image has.
    pub of: usize,
}

/// The packs of all images, 4 bytes an image.
#[derive(Clone, Debug)]
pub struct Packs {
    /// For each image the number of packs of those up to it.
    ends: Vec<u32>,
}

impl Packs {
    /// One pack for each image.
    pub fn one_each(images: usize) -> Self {
        Self::new(std::iter::repeat_n(1, images), 1)
    }

    /// Packs of images with these numbers of samples, which take at most `most` samples each; an image without samples has one, too.
    pub fn new(samples: impl Iterator<Item = usize>, most: usize) -> Self {
        let packs = samples.scan(0u32, |end, count| {
            *end = end.saturating_add(count.div_ceil(most.max(1)).max(1) as u32);
            Some(*end)
        });
        Self { ends: packs.collect() }
    }

    /// Number of packs.
    pub fn len(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// Whether there are no packs.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The pack with this index.
    pub fn part(&self, pack: usize) -> Part {
        let image = self.ends.partition_point(|&end| end as usize <= pack);
        let first = image.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let end = self.ends.get(image).map_or(pack + 1, |&end| end as usize);
        Part { image, number: pack - first, of: end - first }
    }
}

/// Whether instruction tuning takes a sample. If look-ups ask for the boxes of structures, there are no other such questions: a target that
/// differs from the box in the context would teach an answer between the two.
pub fn is_usable(task: Task, looks_up: bool) -> bool {
    !looks_up || task != Task::AnatomyGrounding
}

/// Leaves those of an image's samples that a pack of an epoch takes, in random order.
pub fn keep(samples: &mut Vec<Sample>, part: Part, looks_up: bool, seed: i64, epoch: u64) {
    samples.retain(|sample| is_usable(sample.task, looks_up));
    samples.shuffle(&mut of_image(seed, epoch, part.image));
    let at = |number: usize| samples.len() * number / part.of.max(1);
    let (from, to) = (at(part.number), at(part.number + 1));
    samples.truncate(to);
    samples.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sources::split::Split;

    fn samples(tasks: impl Iterator<Item = Task>) -> Vec<Sample> {
        let sample = |(number, task)| Sample {
            image: String::new(),
            patient: String::new(),
            study: String::new(),
            split: Split::Train,
            task,
            history: vec![],
            question: format!("{number}"),
            answer: String::new(),
            boxes: vec![],
        };
        (0..).zip(tasks).map(sample).collect::<Vec<_>>()
    }

    #[test]
    fn packs_belong_to_images() {
        let packs = Packs::new([3, 0, 9, 4].into_iter(), 4);
        assert_eq!(packs.len(), 6);
        let parts: Vec<_> = (0..6).map(|pack| packs.part(pack)).map(|part| (part.image, part.number, part.of)).collect();
        assert_eq!(parts, [(0, 0, 1), (1, 0, 1), (2, 0, 3), (2, 1, 3), (2, 2, 3), (3, 0, 1)]);
        let each = Packs::one_each(3);
        assert_eq!((each.len(), each.part(2)), (3, Part { image: 2, number: 0, of: 1 }));
    }

    #[test]
    fn the_packs_of_an_epoch_take_every_sample_once() {
        let tasks = [Task::AnatomyGrounding, Task::Report, Task::ClosedQuestion];
        let all = samples(tasks.into_iter().cycle().take(31));
        for (looks_up, usable) in [(false, 31), (true, 20)] {
            let packs = Packs::new([5, usable].into_iter(), 6);
            let of_epoch = |epoch| {
                let own = (1..packs.len()).map(|pack| {
                    let mut own = all.clone();
                    keep(&mut own, packs.part(pack), looks_up, 3, epoch);
                    assert!((1..=6).contains(&own.len()));
                    own
                });
                own.flatten().map(|sample| sample.question).collect::<Vec<_>>()
            };
            let (first, second) = (of_epoch(0), of_epoch(1));
            assert_ne!(first, second, "another epoch packs them in another way");
            assert_eq!(first, of_epoch(0));
            for mut taken in [first, second] {
                taken.sort();
                let own = all.iter().filter(|sample| is_usable(sample.task, looks_up)).map(|sample| sample.question.clone());
                let mut expected: Vec<String> = own.collect();
                expected.sort();
                assert_eq!(taken, expected);
            }
        }
    }
}
