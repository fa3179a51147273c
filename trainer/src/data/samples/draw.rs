//! Samples from templates. What is drawn follows from the seed, the set and a key of the sample, not from the order of samples.

use super::record::{Image, Sample, box_text};
use super::set::Set;
use super::templates::{Templates, fill};
use crate::data::sources::mimic::Report;
use crate::data::sources::split::Split;
use anatomix::parts::hash::Digest;
use anatomix::{Label, PixelBox, Structure, Task};
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Largest number of wrong diagnoses to choose from.
const MAX_WRONG: usize = 3;

/// What all samples are drawn with.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The seed.
    pub seed: u64,
    /// The templates.
    pub templates: &'a Templates,
}

impl<'a> Draw<'a> {
    /// A generator for one sample.
    pub fn rng(&self, set: Set, key: &str) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(Digest::of(format!("{} {} {key}", self.seed, set.name()).as_bytes()).0)
    }

    /// Draws samples of a set on an image.
    pub fn on(self, set: Set, image: &'a Image, split: Split) -> Asked<'a> {
        Asked { draw: self, set, image, split }
    }
}

/// Draws samples of a set on an image.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    draw: Draw<'a>,
    set: Set,
    image: &'a Image,
    split: Split,
}

impl Asked<'_> {
    fn sample(&self, task: Task, key: &str, values: &[(&str, &str)], boxes: &[PixelBox]) -> Sample {
        let mut rng = self.draw.rng(self.set, &format!("{} {task} {key}", self.image.id));
        let template = self.draw.templates.draw(task, false, &mut rng);
        let (question, answer) = (fill(&template.question, values), fill(&template.answer, values));
        Sample { boxes: boxes.to_vec(), ..Sample::new(self.image, self.split, task, question, answer) }
    }

    /// The places of a phrase.
    pub fn phrase_grounding(&self, phrase: &str, boxes: &[PixelBox]) -> Sample {
        let places = box_text(boxes, &self.image.letterbox());
        self.sample(Task::PhraseGrounding, phrase, &[("phrase", phrase), ("boxes", &places)], boxes)
    }

    /// The phrase on a region.
    pub fn grounded_captioning(&self, phrase: &str, boxes: &[PixelBox]) -> Sample {
        let region = box_text(boxes, &self.image.letterbox());
        self.sample(Task::GroundedCaptioning, phrase, &[("phrase", phrase), ("region", &region)], boxes)
    }

    /// The diagnosis of a region. Wrong ones to choose from are taken from `absent`, the diagnoses that the image does not have.
    pub fn grounded_diagnosis(&self, finding: &str, key: &str, absent: &[&str], boxes: &[PixelBox]) -> Sample {
        let task = Task::GroundedDiagnosis;
        let mut rng = self.draw.rng(self.set, &format!("{} {task} {finding} {key}", self.image.id));
        let template = self.draw.templates.draw(task, !absent.is_empty(), &mut rng);
        let region = box_text(boxes, &self.image.letterbox());
        let mut options: Vec<&str> = absent.sample(&mut rng, MAX_WRONG).copied().collect();
        options.push(finding);
        options.shuffle(&mut rng);
        let lettered: Vec<(String, &str)> = ('A'..='Z').map(String::from).zip(options).collect();
        let letter = lettered.iter().find(|(_, option)| *option == finding).map_or("", |(letter, _)| letter);
        let options: Vec<String> = lettered.iter().map(|(letter, option)| format!("({letter}) {option}")).collect();
        let options = options.join(" ");
        let values = [("region", region.as_str()), ("finding", finding), ("options", &options), ("letter", letter)];
        let (question, answer) = (fill(&template.question, &values), fill(&template.answer, &values));
        Sample { boxes: boxes.to_vec(), ..Sample::new(self.image, self.split, task, question, answer) }
    }

    /// All abnormal findings with their boxes.
    pub fn abnormality_detection(&self, findings: &[(&str, &[PixelBox])]) -> Sample {
        let task = Task::AbnormalityDetection;
        let mut rng = self.draw.rng(self.set, &format!("{} {task}", self.image.id));
        let template = self.draw.templates.draw(task, false, &mut rng);
        let letterbox = self.image.letterbox();
        let named: Vec<String> = findings.iter().map(|(name, boxes)| format!("<ref>{name}</ref>{}", box_text(boxes, &letterbox))).collect();
        let answer = match (&template.none, named.is_empty()) {
            (Some(none), true) => none.clone(),
            _ => fill(&template.answer, &[("findings", &named.join(" "))]),
        };
        let boxes = findings.iter().flat_map(|(_, boxes)| boxes.iter().copied()).collect();
        Sample { boxes, ..Sample::new(self.image, self.split, task, template.question.clone(), answer) }
    }

    /// The place of a structure.
    pub fn anatomy_grounding(&self, structure: Structure, bounds: PixelBox) -> Sample {
        let place = box_text(&[bounds], &self.image.letterbox());
        let task = Task::AnatomyGrounding;
        let mut rng = self.draw.rng(self.set, &format!("{} {task}", self.image.id));
        let template = self.draw.templates.draw(task, false, &mut rng);
        let question = fill(&template.question, &[("structure", &structure.name().to_lowercase())]);
        let answer = fill(&template.answer, &[("structure", structure.name()), ("boxes", &place)]);
        Sample { boxes: vec![bounds], ..Sample::new(self.image, self.split, task, question, answer) }
    }

    /// The labels that apply; `None` if none does.
    pub fn classification(&self) -> Option<Sample> {
        let labels = self.image.labels.as_ref()?;
        let named: Vec<&str> = Label::ALL.iter().filter(|label| labels[label.index()] == Some(1)).map(|label| label.name()).collect();
        (!named.is_empty()).then(|| self.sample(Task::Classification, "", &[("labels", &named.join(", "))], &[]))
    }

    /// The report.
    pub fn report(&self, report: &Report) -> Sample {
        self.sample(Task::Report, "", &[("findings", &report.findings), ("impression", &report.impression)], &[])
    }

    /// A published question with its answer.
    pub fn question(&self, is_closed: bool, question: &str, answer: &str) -> Sample {
        let task = if is_closed { Task::ClosedQuestion } else { Task::OpenQuestion };
        Sample::new(self.image, self.split, task, question.into(), answer.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Source;
    use super::*;

    fn image(width: u32, height: u32) -> Image {
        let [id, path, patient, study] = ["vindr_cxr/a", "train/a.dicom", "vindr_cxr/a", "a"].map(String::from);
        let (boxes, sentences) = (vec![], vec![]);
        Image {
            id,
            source: Source::VindrCxr,
            path,
            width,
            height,
            patient,
            study,
            split: Some(Split::Train),
            boxes,
            sentences,
            labels: None,
        }
    }

    #[test]
    fn boxes_follow_the_letterbox() {
        let (templates, _) = Templates::read(None).unwrap();
        let image = image(500, 1000);
        let asked = Draw { seed: 1, templates: &templates }.on(Set::VindrInstruct, &image, Split::Train);
        // The image has 250 empty columns on its left in the square of 1000 pixels: both axes have the same scale.
        let sample = asked.phrase_grounding("Cardiomegaly", &[PixelBox::new(100.0, 100.0, 300.0, 500.0)]);
        let expected = "<ref>Cardiomegaly</ref><box>(358,102),(563,512)</box>";
        assert_eq!(sample.answer, expected);
        assert_eq!(sample.boxes, [PixelBox::new(100.0, 100.0, 300.0, 500.0)]);
    }

    #[test]
    fn a_question_and_its_answer_belong_together() {
        let (templates, _) = Templates::read(None).unwrap();
        let image = image(100, 100);
        let asked = Draw { seed: 1, templates: &templates }.on(Set::VindrInstruct, &image, Split::Train);
        let bounds = [PixelBox::new(10.0, 10.0, 30.0, 50.0)];
        let absent = ["Edema", "Pneumothorax", "Pneumonia", "Atelectasis"];
        let (mut kinds, mut letters) = ([0; 2], std::collections::BTreeSet::new());
        for key in 0..200 {
            let sample = asked.grounded_diagnosis("Nodule/Mass", &key.to_string(), &absent, &bounds);
            let offers = sample.question.contains("(A)");
            kinds[usize::from(offers)] += 1;
            if !offers {
                assert_eq!(sample.answer, "Nodule/Mass");
                continue;
            }
            // The letter of the answer is that of the finding in its own question.
            let letter = sample.answer.trim_start_matches('(').chars().next().unwrap();
            letters.insert(letter);
            assert!(sample.question.contains(&format!("({letter}) Nodule/Mass")), "{sample:?}");
            assert_eq!(absent.iter().filter(|name| sample.question.contains(*name)).count(), 3, "{sample:?}");
        }
        assert!(kinds.iter().all(|&count| count > 40), "{kinds:?}");
        assert_eq!(letters.into_iter().collect::<String>(), "ABCD", "the place of the right answer tells nothing");
    }
}
