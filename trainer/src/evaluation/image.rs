//! Evaluation of one image: the SDK's results are compared with the annotations.

use super::answers::{labels_in, same_words};
use super::cases::Case;
use crate::data::samples::record::Sample;
use crate::metrics::boxes::mean_best_iou;
use crate::metrics::rouge::rouge1;
use crate::predictions::form::Form;
use anatomix::parts::geometry::Letterbox;
use anatomix::parts::retrieval::is_finding;
use anatomix::{Answer, Engine, LABEL_COUNT, PixelBox, Question, Radiograph, STRUCTURE_COUNT, Study, Support, Task, Timing};
use anyhow::{Context, Result, ensure};

/// Smallest score of an image label that counts as given.
const MIN_LABEL_SCORE: f32 = 0.5;

/// Results of one image.
#[derive(Clone, Debug)]
pub struct ImageResult {
    /// Result of each structure; `None` for structures that are not annotated.
    pub structures: [Option<Localised>; STRUCTURE_COUNT],
    /// Whether each label applies; `None` for an image without labels.
    pub expected_labels: Option<[bool; LABEL_COUNT]>,
    /// Whether the perception module gives each label.
    pub labels: [bool; LABEL_COUNT],
    /// Milliseconds of the study's steps.
    pub timing: Timing,
    /// Results of the answers.
    pub answers: Vec<Answered>,
}

/// Result of a structure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Localised {
    /// IoU of the box.
    pub iou: f64,
    /// Whether the structure has a finding.
    pub finding: bool,
    /// Whether the retrieved sentence is the expected one; `false` if none is expected.
    pub exact: bool,
}

/// Result of an answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Task of the question.
    pub task: Task,
    /// Score of the answer.
    pub outcome: Outcome,
    /// Time of the answer in milliseconds.
    pub milliseconds: f64,
    /// Number of tokens of the answer.
    pub tokens: usize,
    /// Sentences of a report.
    pub sentences: Vec<JudgedSentence>,
}

/// A sentence of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedSentence {
    /// Whether what was perceived says the same.
    pub support: Support,
    /// Whether the expected report has this sentence. Phantoms with equal findings have equal sentences, so that another one is wrong.
    pub expected: bool,
}

/// Score of an answer, by the kind of the expected answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Boxes were expected. The value is [`mean_best_iou`], `None` for an answer without boxes.
    Boxes(Option<f64>),
    /// No abnormality was expected. The value is whether the answer says so.
    Normal(bool),
    /// One of a few answers was expected. The value is whether the answer is the expected one.
    Choice(bool),
    /// Labels were expected. The values are the expected labels and the given ones.
    Labels(Box<([bool; LABEL_COUNT], [bool; LABEL_COUNT])>),
    /// Free text was expected.
    Words {
        /// ROUGE-1.
        rouge1: f64,
        /// Whether the words are the expected ones, apart from case and a final full stop.
        exact: bool,
    },
}

/// Opens a case's image, or mirrors it.
///
/// # Errors
/// If it cannot be read, or is not of the size that it was prepared with.
pub fn open(case: &Case, flip: bool) -> Result<Radiograph> {
    let Case { image, path, .. } = case;
    let radiograph = Radiograph::open(path)?;
    ensure!(
        (radiograph.width(), radiograph.height()) == (image.width, image.height),
        "{} has {} x {} pixels, and had {} x {} when it was prepared; prepare the folder again",
        path.display(),
        radiograph.width(),
        radiograph.height(),
        image.width,
        image.height
    );
    Ok(if flip { radiograph.mirrored()? } else { radiograph })
}

/// Runs the engine on an image, or on its mirrored image, and asks the questions of its case.
///
/// Left and right are the patient's: mirroring changes the expected boxes, but no names, sentences or answers.
///
/// # Errors
/// If the image cannot be read or the engine fails.
pub fn evaluate_image(engine: &Engine, case: &Case, flip: bool) -> Result<ImageResult> {
    let Case { image, path, samples } = case;
    let radiograph = open(case, flip)?;
    let frame = Frame { width: radiograph.width() as f32, flip };
    let letterbox = Letterbox::new(radiograph.width(), radiograph.height());
    let mut study = engine.study(&radiograph).with_context(|| path.display().to_string())?;
    let mut structures = [None; STRUCTURE_COUNT];
    for (found, (bounds, sentence)) in study.structures().iter().zip(image.boxes.iter().zip(&image.sentences)) {
        structures[found.structure.index()] = bounds.map(|bounds| Localised {
            iou: f64::from(found.bounds.iou(&frame.bounds(&bounds))),
            finding: sentence.as_deref().is_some_and(is_finding),
            exact: sentence.as_ref().is_some_and(|sentence| found.sentence.text == *sentence),
        });
    }
    let mut labels = [false; LABEL_COUNT];
    for given in study.labels() {
        labels[given.label.index()] = given.score >= MIN_LABEL_SCORE;
    }
    let timing = study.timing().clone();
    let answers = samples
        .iter()
        .map(|sample| {
            ask(&mut study, sample, frame, &letterbox).with_context(|| format!("{}: {} {:?}", path.display(), sample.task, sample.question))
        })
        .collect::<Result<_>>()?;
    let expected_labels = image.labels.map(|labels| labels.map(|label| label == Some(1)));
    Ok(ImageResult { structures, expected_labels, labels, timing, answers })
}

/// Converts expected boxes to the image that is evaluated, which may be mirrored.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Width of the image in pixels.
    pub width: f32,
    /// Whether the image is mirrored.
    pub flip: bool,
}

impl Frame {
    /// A box of the original image in the image that is shown.
    pub fn bounds(self, b: &PixelBox) -> PixelBox {
        if self.flip { PixelBox::new(self.width - b.x1, b.y0, self.width - b.x0, b.y1) } else { *b }
    }

    /// The boxes of a sample.
    pub fn boxes(self, sample: &Sample) -> Vec<PixelBox> {
        sample.boxes.iter().map(|b| self.bounds(b)).collect()
    }
}

fn ask(study: &mut Study, sample: &Sample, frame: Frame, letterbox: &Letterbox) -> Result<Answered> {
    let answer = converse(study, turns(sample, frame, letterbox)?, false)?;
    let sentences = if sample.task == Task::Report { judged_sentences(&sample.answer, &answer) } else { Vec::new() };
    Ok(Answered {
        sentences,
        task: sample.task,
        outcome: judge(sample, &frame.boxes(sample), &answer),
        milliseconds: answer.timing.total.unwrap_or_default(),
        tokens: answer.tokens,
    })
}

/// The questions of a sample's conversation, the sample's own last, with boxes in pixels of the image that is shown.
///
/// # Errors
/// If a box of a question is not one of the sample's.
pub fn turns(sample: &Sample, frame: Frame, letterbox: &Letterbox) -> Result<Vec<String>> {
    let earlier = sample.history.iter().map(|(question, _)| {
        let boxes = Form::Anatomix.read(question, letterbox).boxes();
        with_boxes(question, &boxes.iter().map(|b| frame.bounds(b)).collect::<Vec<_>>(), letterbox)
    });
    let own = with_boxes(&sample.question, &frame.boxes(sample), letterbox);
    earlier.chain([own]).collect()
}

/// Asks questions that follow on each other, and returns the last answer. The study's own answers to the earlier ones precede it, as they
/// would for a user. `accept` accepts flags, see [`Question::accept_flags`].
///
/// # Errors
/// If a question cannot be answered.
pub fn converse(study: &mut Study, turns: Vec<String>, accept: bool) -> Result<Answer> {
    let mut last = None;
    for text in turns {
        let question = Question::new(text);
        let question = if last.is_some() { question.follow_up() } else { question };
        last = Some(study.ask(if accept { question.accept_flags() } else { question })?);
    }
    last.context("a sample without a question")
}

fn judged_sentences(expected: &str, answer: &Answer) -> Vec<JudgedSentence> {
    let judged = answer.evidence.iter().map(|evidence| {
        // A heading before a sentence is not part of it.
        let sentence = &answer.text[evidence.range.clone()];
        let sentence = sentence.strip_prefix("Findings:").or(sentence.strip_prefix("Impression:")).unwrap_or(sentence).trim();
        JudgedSentence { support: evidence.support, expected: expected.contains(sentence) }
    });
    judged.collect()
}

fn judge(sample: &Sample, boxes: &[PixelBox], answer: &Answer) -> Outcome {
    match sample.task {
        Task::AnatomyGrounding | Task::PhraseGrounding | Task::AbnormalityDetection => {
            let found: Vec<PixelBox> = answer.groundings.iter().flat_map(|g| g.boxes.iter().copied()).collect();
            if boxes.is_empty() {
                // An empty answer does not count.
                Outcome::Normal(found.is_empty() && same_words(&sample.answer, &answer.text))
            } else {
                Outcome::Boxes(mean_best_iou(&found, boxes))
            }
        }
        Task::ClosedQuestion | Task::GroundedDiagnosis => Outcome::Choice(same_words(&sample.answer, &answer.text)),
        Task::Classification => Outcome::Labels(Box::new((labels_in(&sample.answer), labels_in(&answer.text)))),
        _ => Outcome::Words { rouge1: rouge1(&sample.answer, &answer.text), exact: same_words(&sample.answer, &answer.text) },
    }
}

/// Replaces the boxes in a question, which data sets write on the prompt's grid, by the boxes in pixels that the SDK expects.
fn with_boxes(question: &str, boxes: &[PixelBox], letterbox: &Letterbox) -> Result<String> {
    let (width, height) = (letterbox.width as f32, letterbox.height as f32);
    let (mut out, mut rest, mut boxes) = (String::new(), question, boxes.iter());
    while let Some((before, after)) = rest.split_once("<box>") {
        let bounds = boxes.next().context("the question contains more boxes than the sample lists")?;
        (_, rest) = after.split_once("</box>").context("the question has <box> without </box>")?;
        let (x0, y0) = (bounds.x0.clamp(0.0, width), bounds.y0.clamp(0.0, height));
        let (x1, y1) = (bounds.x1.clamp(0.0, width), bounds.y1.clamp(0.0, height));
        ensure!(
            x0 < x1 && y0 < y1,
            "the box ({}, {}) to ({}, {}) is empty or outside of the image of {width} x {height} pixels",
            bounds.x0,
            bounds.y0,
            bounds.x1,
            bounds.y1
        );
        out.push_str(&format!("{before}<box>({x0},{y0}),({x1},{y1})</box>"));
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::samples::record::{Image, Source};
    use crate::data::sources::split::Split;

    #[test]
    fn boxes_of_questions_are_in_pixels_and_mirrored() {
        let letterbox = Letterbox::new(100, 50);
        let bounds = PixelBox::new(-3.0, 10.5, 40.0, 20.0);
        let frame = |flip| Frame { width: 100.0, flip };
        let ask = |flip| with_boxes("What is in <box>(0,1),(2,3)</box>?", &[frame(flip).bounds(&bounds)], &letterbox).unwrap();
        assert_eq!(ask(false), "What is in <box>(0,10.5),(40,20)</box>?");
        assert_eq!(ask(true), "What is in <box>(60,10.5),(100,20)</box>?");
        let two = "<box>(0,1),(2,3)</box> and <box>(4,5),(6,7)</box>.";
        let other = PixelBox::new(1.0, 2.0, 3.0, 4.0);
        assert_eq!(with_boxes(two, &[bounds, other], &letterbox).unwrap(), "<box>(0,10.5),(40,20)</box> and <box>(1,2),(3,4)</box>.");
        assert!(with_boxes(two, &[bounds], &letterbox).is_err());
        // Earlier questions have their boxes on the prompt's grid: 512 is the middle of the square of 100 pixels.
        let image = Image::new(Source::Slake, "a", "a.png".into(), (100, 50), "a".into(), "a".into(), None);
        let mut sample = Sample::new(&image, Split::Test, Task::OpenQuestion, "And there?".into(), String::new());
        sample.history = vec![("What is in <box>(0,256),(512,512)</box>?".into(), "Edema".into())];
        assert_eq!(turns(&sample, frame(false), &letterbox).unwrap(), ["What is in <box>(0,0),(50,25)</box>?", "And there?"]);
        assert_eq!(turns(&sample, frame(true), &letterbox).unwrap()[0], "What is in <box>(50,0),(100,25)</box>?");
        assert!(with_boxes("in <box>(0,1),(2,3)</box>?", &[], &letterbox).is_err());
        assert!(with_boxes("in <box>(0,1),(2,3)</box>?", &[PixelBox::new(200.0, 0.0, 300.0, 9.0)], &letterbox).is_err());
    }
}
