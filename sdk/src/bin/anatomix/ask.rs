//! `anatomix ask`: a question or task about a radiograph.

use crate::common::{Failure, Options, check_apart, check_outside, place, read_text, spinner};
use crate::print;
use crate::shown::{out, remark};
use anatomix::output::{AskRecord, Overlay};
use anatomix::{Engine, Error, Flow, Question, Radiograph, Sampling, Study, Task};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ask a question of a radiograph, or set one of the nine tasks
///
/// The answer is printed as it is decoded, then the places that it speaks of, in pixels of the image. A question may name
/// a region: "What is the finding in <box>(x0,y0),(x1,y1)</box>?" Several questions share the work that the radiograph takes.
#[derive(Args)]
pub struct Ask {
    /// DICOM, PNG or JPEG file, or a study that --save wrote
    image: PathBuf,
    /// The questions; may be left out with the tasks report, classification and abnormality_detection
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// What kind of question it is
    #[arg(long, value_name = "NAME", value_parser = task_parser())]
    task: Option<Task>,
    /// Each question after the first continues the conversation, so that the model sees what was said; else each is asked of
    /// the radiograph alone
    #[arg(long)]
    follow_up: bool,
    #[command(flatten)]
    output: Output,
}

/// Longest JSON schema in bytes. The SDK takes no longer one.
const MAX_SCHEMA: usize = 1 << 16;

/// How an answer is given; `ask` and `report` share it.
#[derive(Args)]
pub struct Output {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw the places that the answer speaks of over the radiograph, as a PNG file
    #[arg(long, value_name = "PNG")]
    overlay: Option<PathBuf>,
    /// Ask even if the radiograph is flagged not_chest or not_frontal, which otherwise ends with exit code 3
    #[arg(long)]
    accept_flags: bool,
    /// Longest answer in tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<NonZeroUsize>,
    /// Keep the study with everything that was computed of the radiograph, as a file to be asked later without computing it again;
    /// questions and answers are left out
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    decoding: Decoding,
}

/// How tokens are chosen and when the answer ends.
#[derive(Args)]
#[command(next_help_heading = "Decoding")]
pub struct Decoding {
    /// Draw tokens this freely, 1 being as likely as the model says; 0 takes the most likely one
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Draw among this many of the most likely tokens [default: all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Draw among the fewest most likely tokens that are this probable together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Make tokens that the answer holds already less likely by this factor
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Draw the same answer again
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// End the answer after this time, as far as it has come
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    deadline: Option<Duration>,
    /// With --json, tell how probable each token was, as natural logarithms
    #[arg(long, requires = "json")]
    log_probabilities: bool,
    /// Answer with JSON that meets the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Let the model say anything; else tags are closed, boxes are boxes, and no control token appears
    #[arg(long, conflicts_with = "json_schema")]
    unconstrained: bool,
    /// Decode token by token, without looking up what the answer repeats; the answer is the same
    #[arg(long)]
    no_look_up: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
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
            let message = "the question is missing; only report, classification and abnormality_detection need none";
            return Err(Failure::Usage(message.into()));
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

/// What is asked: a radiograph, or the file of a study that was saved.
enum Source {
    Radiograph(Box<Radiograph>),
    Saved(PathBuf),
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        let mut start = Vec::new();
        if path.is_file() {
            // What cannot be read is the radiograph's error to tell.
            let _ = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
        }
        if anatomix::is_saved(&start) {
            return Ok(Self::Saved(path.into()));
        }
        Ok(Self::Radiograph(Box::new(Radiograph::open(path).map_err(Error::from)?)))
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
    /// Asks these questions, one at least.
    pub fn answer(&self, options: &Options, image: &Path, questions: Vec<Question>) -> Result<(), Failure> {
        if self.overlay.is_some() && questions.len() > 1 {
            return Err(Failure::Usage("--overlay shows one answer; ask one question at a time".into()));
        }
        let questions = questions.into_iter().map(|question| self.question(question)).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.open(options, image)?;
        // What follows up has to wait for what it follows.
        let together = if questions.iter().any(|question| question.follow_up) { 1 } else { questions.len() };
        for questions in questions.chunks(together) {
            session.ask(questions.to_vec())?;
        }
        session.close()
    }

    /// A question as these options want it answered.
    pub fn question(&self, question: Question) -> Result<Question, Failure> {
        let limit = self.max_tokens.map_or(question.max_tokens, NonZeroUsize::get);
        let mut question = question.max_tokens(limit);
        question.accept_flags = self.accept_flags;
        self.decoding.apply(question)
    }

    /// Opens the engine and what is asked. Where results go is looked at before any work is done.
    pub fn open(&self, options: &Options, image: &Path) -> Result<Session<'_>, Failure> {
        let outs = [("--overlay", &self.overlay), ("--save", &self.save)];
        for (option, out) in outs.into_iter().filter_map(|(option, out)| Some((option, out.as_ref()?))) {
            let read = [Some(image), self.decoding.json_schema.as_deref(), options.onnxruntime.as_deref()];
            read.into_iter().flatten().try_for_each(|read| check_apart(read, option, out))?;
            check_outside(&options.bundle()?, option, out)?;
        }
        if let (Some(overlay), Some(save)) = (&self.overlay, &self.save)
            && place(overlay).is_some_and(|overlay| Some(overlay) == place(save))
        {
            return Err(Failure::Usage("--overlay and --save name the same file; name two".into()));
        }
        let engine = options.engine(!self.decoding.no_look_up)?;
        let source = Source::open(image)?;
        if self.overlay.is_some() && matches!(source, Source::Saved(_)) {
            return Err(Failure::Usage("--overlay needs the radiograph itself, which a saved study does not hold".into()));
        }
        let waiting = spinner("reading the radiograph");
        let study = source.study(&engine);
        waiting.finish_and_clear();
        Ok(Session { study: study?, radiograph: source.radiograph(), output: self, doubted: false })
    }
}

/// A study that is asked, and where its answers go.
pub struct Session<'a> {
    pub study: Study,
    /// Unless the study was saved.
    radiograph: Option<Box<Radiograph>>,
    output: &'a Output,
    /// Whether the study's flags were printed.
    doubted: bool,
}

impl Session<'_> {
    /// Asks questions together. The first answer is printed as it is decoded, the others after it.
    pub fn ask(&mut self, questions: Vec<Question>) -> Result<(), Failure> {
        let json = self.output.json;
        let waiting = spinner("reading the question");
        let mut written = Ok(());
        let on_piece = |number: usize, piece: &str| {
            if json || number > 0 {
                return Flow::Continue;
            }
            waiting.finish_and_clear();
            written = out().text(piece);
            if written.is_ok() { Flow::Continue } else { Flow::Stop }
        };
        let answers = match <[Question; 1]>::try_from(questions) {
            // A conversation keeps its turn.
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
            if number > 0 {
                out().text(&answer.text)?;
            }
            out().line("")?;
            print::groundings(answer)?;
            print::cut(answer.finish);
            if !std::mem::replace(&mut self.doubted, true) {
                print::flags(&answer.flags);
            }
            remark(&print::origin(&answer.provenance, &answer.timing));
        }
        if let (Some(path), Some(radiograph), Some(answer)) = (&self.output.overlay, &self.radiograph, answers.last()) {
            Overlay::of_answer(answer, radiograph).write(path).map_err(Error::from)?;
        }
        Ok(())
    }

    /// Keeps the study where that was asked for.
    pub fn close(mut self) -> Result<(), Failure> {
        if let Some(path) = &self.output.save {
            let unsaved = |error: Error| Failure::Message(format!("{} was not written: {}", path.display(), error.full_message()));
            let bytes = self.study.save().map_err(unsaved)?;
            anatomix::output::write_whole(path, &bytes).map_err(Error::from)?;
        }
        Ok(())
    }
}
