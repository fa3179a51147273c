//! `anatomix ask`: a question or task about a radiograph.

use crate::common::{Failure, Kept, Options, positive, read_text, seconds, spinner};
use crate::documents::Documents;
use crate::image::Reading;
use crate::print;
use crate::shown::{out, remark};
use anatomix::output::{AskRecord, Overlay};
use anatomix::parts::files;
use anatomix::{Answer, Engine, Error, Flow, Question, Radiograph, Sampling, Study, Task};
use clap::Args;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ask questions about a radiograph, or set one of the nine tasks
///
/// The answer is printed while it is decoded, then its groundings with boxes in pixels of the image. A question may name a region: "What
/// is the finding in <box>(x0,y0),(x1,y1)</box>?" Several questions are decoded together over the same context.
#[derive(Args)]
pub struct Ask {
    /// DICOM, PNG or JPEG file, or a study that --save wrote
    image: PathBuf,
    /// The questions; not needed with the tasks report, classification and abnormality_detection
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// The task of the questions
    #[arg(long, value_name = "NAME", value_parser = task_parser())]
    task: Option<Task>,
    /// Each question after the first continues the conversation, so that the model sees the earlier questions and answers
    #[arg(long)]
    follow_up: bool,
    #[command(flatten)]
    output: Output,
}

/// Longest JSON schema in bytes, as in the SDK.
const MAX_SCHEMA: u64 = 1 << 16;

/// Options of answers; `ask`, `chat` and `report` share them.
#[derive(Args)]
pub struct Output {
    /// Print one JSON object for each answer
    #[arg(long)]
    json: bool,
    /// Draw the boxes of the answer over the radiograph, as a PNG file
    #[arg(long, value_name = "PNG")]
    overlay: Option<PathBuf>,
    /// Ask even if the radiograph is flagged not_chest, not_frontal or for_processing, which otherwise ends with exit code 3
    #[arg(long)]
    accept_flags: bool,
    /// Largest number of tokens of an answer [default: 512]
    #[arg(long, value_name = "N", value_parser = positive::<NonZeroUsize>, allow_negative_numbers = true)]
    max_tokens: Option<NonZeroUsize>,
    /// Save the study with its prefilled context as a file, to be asked later without perceiving and prefilling again; questions and
    /// answers are not saved
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    documents: Documents,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    decoding: Decoding,
}

/// Sampling, and what ends an answer.
#[derive(Args)]
#[command(next_help_heading = "Decoding")]
pub struct Decoding {
    /// Temperature of sampling, 0 to 100: 1 samples by the model's probabilities, 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample among this many of the most likely tokens [default: all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    top_k: usize,
    /// Sample among the fewest most likely tokens whose probabilities add up to this, above 0 and at most 1
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Make tokens that occur in the answer less likely by this factor, 0.01 to 100; 1 changes nothing
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = repetition_penalty, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// Seed of sampling: the same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// End the answer after this time, with the tokens decoded so far [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    deadline: Option<Duration>,
    /// With --json, print the natural logarithm of each token's probability
    #[arg(long, requires = "json")]
    log_probabilities: bool,
    /// Constrain the answer to JSON that conforms to the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Do not constrain decoding: tags may stay open, boxes may be malformed, and control tokens may appear
    #[arg(long, conflicts_with = "json_schema")]
    unconstrained: bool,
    /// Decode token by token, without prompt look-up; the answer is the same
    #[arg(long)]
    no_look_up: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    setting(text, |temperature| Sampling { temperature, ..Sampling::default() })
}

fn top_p(text: &str) -> Result<f32, String> {
    setting(text, |top_p| Sampling { top_p, ..Sampling::default() })
}

fn repetition_penalty(text: &str) -> Result<f32, String> {
    setting(text, |repetition_penalty| Sampling { repetition_penalty, ..Sampling::default() })
}

/// Parses a setting of sampling, whose range the SDK knows.
fn setting(text: &str, sampling: fn(f32) -> Sampling) -> Result<f32, String> {
    let value = text.parse().map_err(|_| "it must be a number".to_string())?;
    sampling(value).check().map(|()| value).map_err(|e| e.to_string())
}

impl Decoding {
    fn apply(&self, question: Question) -> Result<Question, Failure> {
        let Self { temperature, top_k, top_p, repetition_penalty, seed, .. } = *self;
        let mut question = question.sampling(Sampling { temperature, top_k, top_p, repetition_penalty, seed });
        question.stop.clone_from(&self.stop);
        question.deadline = self.deadline;
        question.log_probabilities = self.log_probabilities;
        Ok(match &self.json_schema {
            Some(path) => question.json_schema(read_text(path, MAX_SCHEMA)?),
            None if self.unconstrained => question.unconstrained(),
            None => question,
        })
    }
}

fn task_parser() -> impl TypedValueParser<Value = Task> {
    PossibleValuesParser::new(Task::ALL.map(Task::name))
        .try_map(|name| Task::from_name(&name).ok_or_else(|| format!("{name} is not a task")))
}

impl Ask {
    pub fn run(&self, options: &Options) -> Result<(), Failure> {
        let instructed = self.task.is_some_and(|task| task.instruction().is_some());
        let mut texts = self.questions.clone();
        if texts.is_empty() {
            texts.push(String::new());
        }
        if texts.iter().any(|text| text.trim().is_empty()) && !instructed {
            let message = "the question is missing; give a question, or one of --task report, classification, abnormality_detection";
            return Err(Failure::Usage(message.into()));
        }
        if let Some(task) = self.task {
            texts.iter().try_for_each(|text| task.check(text)).map_err(|unsuitable| Failure::Usage(unsuitable.to_string()))?;
        }
        let question = |(i, text): (usize, String)| {
            let mut question = Question::new(text);
            question.task = self.task;
            question.follow_up = self.follow_up && i > 0;
            question
        };
        self.output.answer(options, &self.image, texts.into_iter().enumerate().map(question).collect())
    }
}

/// The image argument: a radiograph, or the file of a saved study.
enum Source {
    Radiograph(Box<Radiograph>),
    Saved(PathBuf),
}

impl Source {
    fn open(path: &Path, reading: &Reading) -> Result<Self, Failure> {
        let mut start = Vec::new();
        // If the file cannot be read, opening it as a radiograph reports that.
        let _ = files::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
        if anatomix::is_saved_study(&start) {
            return Ok(Self::Saved(path.into()));
        }
        Ok(Self::Radiograph(Box::new(reading.open(path)?)))
    }

    fn study(&self, engine: &Engine) -> anatomix::Result<Study> {
        match self {
            Self::Radiograph(radiograph) => engine.study(radiograph),
            Self::Saved(path) => engine.open_study(path),
        }
    }

    fn radiograph(self) -> Option<Box<Radiograph>> {
        match self {
            Self::Radiograph(radiograph) => Some(radiograph),
            Self::Saved(_) => None,
        }
    }
}

impl Output {
    /// Asks these questions, of which there is at least one.
    pub fn answer(&self, options: &Options, image: &Path, questions: Vec<Question>) -> Result<(), Failure> {
        let pictures = [("--overlay", &self.overlay), ("--sc", &self.documents.sc)];
        if let Some((option, _)) = pictures.iter().find(|(_, place)| place.is_some() && questions.len() > 1) {
            return Err(Failure::Usage(format!("{option} shows one answer; ask one question at a time")));
        }
        let questions = questions.into_iter().map(|question| self.question(question)).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.open(options, image)?;
        session.shows_questions = questions.len() > 1;
        // A follow-up needs the answer before it, so those are asked one by one.
        let together = if questions.iter().any(|question| question.follow_up) { 1 } else { questions.len() };
        for questions in questions.chunks(together) {
            session.ask(questions.to_vec())?;
        }
        session.close()
    }

    /// Applies these options to a question.
    pub fn question(&self, question: Question) -> Result<Question, Failure> {
        let limit = self.max_tokens.map_or(question.max_tokens, NonZeroUsize::get);
        let mut question = question.max_tokens(limit);
        question.accept_flags = self.accept_flags;
        self.decoding.apply(question)
    }

    /// Opens the engine and the image. The paths of output files are checked before any work is done.
    pub fn open(&self, options: &Options, image: &Path) -> Result<Session<'_>, Failure> {
        let files = options.inputs();
        let inputs = [Some(image), self.decoding.json_schema.as_deref()].into_iter().flatten().chain(files.iter().map(PathBuf::as_path));
        let outs =
            [("--overlay", &self.overlay), ("--save", &self.save)].into_iter().filter_map(|(option, out)| Some((option, out.as_deref()?)));
        let outs = outs.chain(self.documents.places().map(|(kind, place)| (kind.option(), place)));
        Kept::new(inputs, &options.bundle()?).check_all(outs)?;
        let source = Source::open(image, &self.reading)?;
        let pictures = [("--overlay", &self.overlay), ("--sc", &self.documents.sc)];
        if let Some((option, _)) = pictures.iter().find(|(_, place)| place.is_some() && matches!(source, Source::Saved(_))) {
            return Err(Failure::Usage(format!("{option} needs the radiograph itself, which a saved study does not hold")));
        }
        if self.reading.window.is_some() && matches!(source, Source::Saved(_)) {
            return Err(Failure::Usage("--window needs the radiograph itself, which a saved study does not hold".into()));
        }
        if let Source::Radiograph(radiograph) = &source {
            self.documents.check(radiograph)?;
        }
        let engine = options.engine(!self.decoding.no_look_up)?;
        let waiting = spinner("perceiving the radiograph");
        let study = source.study(&engine);
        waiting.finish_and_clear();
        let study = study?;
        let radiograph = source.radiograph();
        self.documents.check_study(&study, radiograph.as_deref())?;
        Ok(Session { study, radiograph, output: self, answers: Vec::new(), shows_questions: false, flags_printed: false })
    }
}

/// A study that is asked, and the outputs of its answers.
pub struct Session<'a> {
    pub study: Study,
    /// `None` for a saved study.
    radiograph: Option<Box<Radiograph>>,
    output: &'a Output,
    /// All answers, for the documents.
    answers: Vec<Answer>,
    /// Whether each answer is printed below its question.
    shows_questions: bool,
    /// Whether the study's flags were printed.
    flags_printed: bool,
}

impl Session<'_> {
    /// Asks questions together. The first answer is printed as it is decoded, the others after it.
    pub fn ask(&mut self, questions: Vec<Question>) -> Result<(), Failure> {
        let json = self.output.json;
        let texts: Vec<String> =
            if self.shows_questions { questions.iter().map(|question| question.text.clone()).collect() } else { Vec::new() };
        let head = |number: usize| texts.get(number).map_or(Ok(()), |text| out().line(format_args!("> {text}")));
        let show = |text: &str| if self.output.decoding.json_schema.is_some() { out().json_text(text) } else { out().text(text) };
        let waiting = spinner("computing the context and the question");
        let (mut begun, mut written) = (false, Ok(()));
        let on_piece = |number: usize, piece: &str| {
            if json || number > 0 {
                return Flow::Continue;
            }
            waiting.finish_and_clear();
            written = if std::mem::replace(&mut begun, true) { Ok(()) } else { head(0) }.and_then(|()| show(piece));
            if written.is_ok() { Flow::Continue } else { Flow::Stop }
        };
        let answers = match <[Question; 1]>::try_from(questions) {
            // Only a question that is asked by itself becomes a turn of the conversation.
            Ok([question]) => {
                let mut on_piece = on_piece;
                self.study.ask_streaming(question, |piece| on_piece(0, piece)).map(|answer| vec![answer])
            }
            Err(questions) => self.study.ask_many_streaming(questions, on_piece),
        };
        waiting.finish_and_clear();
        written?;
        let answers = answers?;
        for (number, answer) in answers.iter().enumerate() {
            if json {
                out().json(&AskRecord::from(answer))?;
                continue;
            }
            if number > 0 || !begun {
                head(number)?;
            }
            if number > 0 {
                show(&answer.text)?;
            }
            out().line("")?;
            print::groundings(answer)?;
            print::cut(answer.finish);
            print::doubts(answer, self.study.structures());
            if !std::mem::replace(&mut self.flags_printed, true) {
                print::flags(&answer.flags);
            }
            remark(&print::origin(&answer.provenance, &answer.timing));
        }
        if let (Some(path), Some(radiograph), Some(answer)) = (&self.output.overlay, &self.radiograph, answers.last()) {
            Overlay::of_answer(answer, radiograph).map_err(Error::from)?.write(path).map_err(Error::from)?;
        }
        if self.output.documents.places().next().is_some() {
            self.answers.extend(answers);
        }
        Ok(())
    }

    /// Writes the documents, and saves the study, if the options are given.
    pub fn close(mut self) -> Result<(), Failure> {
        for (kind, path) in self.output.documents.places() {
            self.output.documents.write(kind, &self.study, self.radiograph.as_deref(), &self.answers, path)?;
        }
        if let Some(path) = &self.output.save {
            let unsaved = |error: Error| Failure::Message(format!("{} was not written: {}", path.display(), error.full_message()));
            let bytes = self.study.save().map_err(unsaved)?;
            anatomix::output::write_private(path, &bytes).map_err(Error::from)?;
        }
        Ok(())
    }
}
