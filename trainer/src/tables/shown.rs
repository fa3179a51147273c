//! The images and questions of a measurement under one condition. What can be wrong with them is found before anything is measured.

use super::groups::Condition;
use crate::evaluation::Case;
use crate::evaluation::image::{Frame, open, turns};
use crate::predictions::file::key;
use anatomix::parts::hash::Hasher;
use anyhow::{Context, Result, ensure};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::path::Path;

/// Images with their questions, shown under a condition.
pub struct Shown {
    /// How the images are shown.
    pub condition: Condition,
    /// The images with their questions.
    pub cases: Vec<Case>,
    /// SHA-256 of each image's file; empty until [`look`] has read them.
    pictures: Vec<String>,
}

impl Shown {
    /// Checks that all questions can be asked.
    ///
    /// # Errors
    /// If a box of a question is empty, outside of its image, or not one of the sample's; the error names image, question and box.
    pub fn new(condition: Condition, cases: Vec<Case>) -> Result<Self> {
        for Case { image, samples, .. } in &cases {
            let frame = Frame { width: image.width as f32, flip: condition == Condition::Mirrored };
            for sample in samples {
                let named =
                    || format!("{}: {} {:?} cannot be asked; leave it out of the prepared folder", image.id, sample.task, sample.question);
                turns(sample, frame, &image.letterbox()).with_context(named)?;
            }
        }
        Ok(Self { condition, cases, pictures: Vec::new() })
    }

    /// Whether the images are mirrored.
    pub fn mirrored(&self) -> bool {
        self.condition == Condition::Mirrored
    }

    /// A hash of the condition, and of all images with their questions.
    pub fn hash(&self) -> String {
        let mut hasher = Hasher::default();
        hasher.update(self.condition.name().as_bytes());
        for (case, picture) in self.cases.iter().zip(&self.pictures) {
            for part in [b"\n", case.image.id.as_bytes(), b"\0", picture.as_bytes()] {
                hasher.update(part);
            }
            case.samples.iter().for_each(|sample| hasher.update(key(sample, self.mirrored()).as_bytes()));
        }
        hasher.finish().to_string()
    }

    /// Checks that `unmarked`, which is `folder`, holds the same images and questions as this.
    ///
    /// # Errors
    /// If it does not.
    pub fn ensure_same_questions(&self, unmarked: &Self, folder: &Path) -> Result<()> {
        let asked = |cases: &[Case]| {
            let keys = |case: &Case| case.samples.iter().map(|sample| key(sample, false)).collect::<Vec<_>>();
            cases.iter().map(|case| (case.image.id.clone(), keys(case))).collect::<Vec<_>>()
        };
        ensure!(
            asked(&self.cases) == asked(&unmarked.cases),
            "{} has other images or questions than --data; draw both from one seed, with one --count",
            folder.display()
        );
        Ok(())
    }

    /// Checks that the files of `unmarked`, which is `folder`, are others than these.
    ///
    /// # Errors
    /// If all of them are the same.
    pub fn ensure_other_pictures(&self, unmarked: &Self, folder: &Path) -> Result<()> {
        ensure!(
            self.pictures != unmarked.pictures,
            "all images of {} are the files of --data, so nothing was painted over; name another folder with --without-markers",
            folder.display()
        );
        Ok(())
    }
}

/// Reads all images once, so that one that cannot be read is found now. `progress` is called after each.
///
/// # Errors
/// If an image cannot be read, or is not of the size that it was prepared with; the error names it.
pub fn look(shown: &mut [Shown], pool: &ThreadPool, progress: impl Fn() + Sync) -> Result<()> {
    let read = |case: &Case| {
        let radiograph = open(case, false).with_context(|| format!("{}: {}", case.image.id, case.path.display()))?;
        progress();
        Ok(radiograph.sha256().to_owned())
    };
    let mut upright = Vec::new();
    for own in shown {
        // Mirrored images are the files of upright ones.
        own.pictures = if own.mirrored() && !upright.is_empty() {
            upright.clone()
        } else {
            pool.install(|| own.cases.par_iter().with_max_len(1).map(read).collect::<Result<_>>())?
        };
        if own.condition == Condition::Upright {
            upright.clone_from(&own.pictures);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::samples::record::{Image, Sample, Source};
    use crate::data::sources::split::Split;
    use anatomix::Task;
    use image::GrayImage;

    fn case(folder: &Path, name: &str) -> Case {
        let image = Image::new(Source::Slake, name, format!("{name}.png"), (100, 50), name.into(), name.into(), Some(Split::Test));
        let sample = Sample::new(&image, Split::Test, Task::OpenQuestion, "What is there?".into(), "Edema".into());
        Case { path: folder.join(format!("{name}.png")), samples: vec![sample], image }
    }

    #[test]
    fn a_measurement_is_of_its_pictures_and_condition() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [case(folder.path(), "a"), case(folder.path(), "b")];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let draw = |name: &str, value| GrayImage::from_pixel(100, 50, image::Luma([value])).save(folder.path().join(name)).unwrap();
        let all = || {
            let mut shown: Vec<Shown> = [Condition::Upright, Condition::Mirrored, Condition::Unmarked]
                .map(|condition| Shown::new(condition, cases.to_vec()).unwrap())
                .into();
            look(&mut shown, &pool, || ()).map(|()| shown)
        };
        draw("a.png", 1);
        // The image that cannot be read is named.
        let error = format!("{:#}", all().err().unwrap());
        assert!(error.starts_with("slake/b: ") && error.contains("b.png"), "{error}");
        draw("b.png", 2);
        let hashes = |shown: &[Shown]| shown.iter().map(Shown::hash).collect::<Vec<_>>();
        let first = all().unwrap();
        assert_eq!(hashes(&first), hashes(&all().unwrap()));
        assert!(first[0].hash() != first[2].hash() && first[0].hash() != first[1].hash());
        assert!(first[0].ensure_other_pictures(&first[2], folder.path()).unwrap_err().to_string().contains("nothing was painted over"));
        draw("b.png", 3);
        let second = all().unwrap();
        assert!(hashes(&first).iter().zip(hashes(&second)).all(|(one, other)| *one != other));
        first[0].ensure_other_pictures(&second[2], folder.path()).unwrap();
        // The same images with other questions are no counterpart.
        let mut other = cases.to_vec();
        other[1].samples[0].question = "What else?".into();
        let other = Shown::new(Condition::Unmarked, other).unwrap();
        assert!(first[0].ensure_same_questions(&other, folder.path()).unwrap_err().to_string().contains("other images or questions"));
        first[0].ensure_same_questions(&second[2], folder.path()).unwrap();
    }

    #[test]
    fn a_question_that_cannot_be_asked_is_named() {
        let mut own = case(Path::new(""), "a");
        own.samples[0].history = vec![("What is in <box>(512,300),(512,400)</box>?".into(), "Edema".into())];
        let error = format!("{:#}", Shown::new(Condition::Upright, vec![own]).err().unwrap());
        let words = ["slake/a", "open_question", "What is there?", "(50, ", "is empty or outside of the image of 100 x 50 pixels"];
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
}
