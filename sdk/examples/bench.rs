//! The SDK's side of `make bench`. It prepares a work, then does it once for each line on standard input and prints its milliseconds, so
//! that another program can alternate with it.
//!
//! - `bench sentences EMBEDDINGS WIDTH DATABASE` writes a database of 36 lists of the same length, from embeddings in fp32, and ends.
//! - `bench retrieval DATABASE WIDTH` searches that database.
//! - `bench tensor|hashed IMAGE SIDE` makes the network's input; `hashed` also computes the file's SHA-256.
//! - `bench perceive BUNDLE IMAGE` runs the perception module.
//! - `bench ask BUNDLE IMAGE plain|look-up|together MAX` asks the questions in the file ANATOMIX_QUESTIONS, one per line, each about the
//!   study alone. It also prints milliseconds and tokens of prefill and decoding.
//! - `bench cold BUNDLE IMAGE golden-check|no-golden-check` asks the question in that file for one token, and ends.
//! - `bench callers BUNDLE IMAGE THREADS COUNT` asks for reports from several threads. It also prints the number of reports and tokens.
//! - `bench form BUNDLE IMAGE TEMPERATURE` asks for reports with groundings, as JSON by a schema, and unconstrained. It also prints the
//!   microseconds per run of the decoder of each.
//! - `bench rejected BUNDLE IMAGE plain|look-up MAX LETTERS` asks for an answer that a schema fixes: the first letters of the words in the
//!   structures' names, so that drafts from the prompt are rejected. It also prints milliseconds, tokens and runs of decoding.

use anatomix::parts::retrieval::{self, SentenceDatabase, SentenceList};
use anatomix::{Engine, Histogram, Preprocess, Provider, Question, Radiograph, STRUCTURE_COUNT, Sampling, Structure, Task};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

/// The schema of answers in JSON. Their text is free.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "side": {"enum": ["left", "right", "both", "none"]},
        "findings": {"type": "array", "items": {"type": "string", "minLength": 30, "maxLength": 80}, "minItems": 3, "maxItems": 5}
    },
    "required": ["side", "findings"],
    "additionalProperties": false
}"#;

/// Reports of each caller, each on a study of its own.
const REPORTS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sentences", embeddings, width, database] => {
            let values: Vec<f32> = std::fs::read(embeddings)?.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            let width: usize = width.parse()?;
            let count = values.len() / width / STRUCTURE_COUNT;
            let sentences: Vec<String> = (0..count).map(|i| format!("Sentence number {i:07}.")).collect();
            let list = |rows: &[f32]| SentenceList { sentences: sentences.clone(), embeddings: rows.to_vec() };
            let lists: Vec<SentenceList> = values.chunks_exact(count * width).map(list).collect();
            Ok(retrieval::write(database.as_ref(), &lists)?)
        }
        ["retrieval", database, width] => {
            let width = width.parse()?;
            let database = SentenceDatabase::open(database.as_ref(), width)?;
            let queries: Vec<f32> = Structure::all().flat_map(|_| (0..width).map(|i| (i as f32 * 0.7).sin())).collect();
            each(|| {
                black_box(database.search_all(&queries, 1)?);
                Ok(String::new())
            })
        }
        [work @ ("tensor" | "hashed"), image, side] => {
            let preprocess = Preprocess { version: 1, size: side.parse()?, histogram: Histogram::Stretch };
            let pool = rayon::ThreadPoolBuilder::new().build()?;
            each(|| {
                let radiograph = Radiograph::open(image)?;
                let hash = || _ = (work == "hashed").then(|| black_box(radiograph.sha256()));
                black_box(pool.install(|| rayon::join(|| radiograph.preprocess(&preprocess), hash))).0?;
                Ok(String::new())
            })
        }
        ["perceive", bundle, image] => {
            let (engine, radiograph) = open(bundle, image, true)?;
            each_timed(|| {
                let study = engine.study(&radiograph)?;
                Ok((study.timing().perceive.unwrap_or_default(), String::new()))
            })
        }
        ["ask", bundle, image, how, max_tokens] => {
            let (engine, radiograph) = open(bundle, image, how != "plain")?;
            let max_tokens = max_tokens.parse()?;
            let questions = std::fs::read_to_string(std::env::var("ANATOMIX_QUESTIONS")?)?;
            each(|| {
                let mut study = engine.study(&radiograph)?;
                let mut parts = [0.0; 2];
                let (mut prefilled, mut tokens, mut each) = (0, 0, String::new());
                let asked = questions.lines().map(|question| Question::new(question).max_tokens(max_tokens));
                let answers = match how {
                    "together" => study.ask_many(asked)?,
                    _ => asked.map(|question| study.ask(question)).collect::<Result<_, _>>()?,
                };
                for answer in answers {
                    parts = [parts[0] + answer.timing.prefill.unwrap_or_default(), parts[1] + answer.timing.decode.unwrap_or_default()];
                    (prefilled, tokens) = (prefilled + answer.prefilled, tokens + answer.tokens);
                    each += &format!(" {} {}", answer.prefilled, answer.tokens);
                }
                Ok(format!("{} {} {prefilled} {tokens}{each}", parts[0], parts[1]))
            })
        }
        ["callers", bundle, image, threads, count] => {
            let engine = Engine::builder().provider(Provider::Cpu).threads(threads.parse()?).open(bundle)?;
            let radiograph = Radiograph::open(image)?;
            let count: usize = count.parse()?;
            let report = |_| Ok(engine.study(&radiograph)?.ask(Task::Report)?.tokens);
            let reports = || (0..REPORTS).map(report).sum::<anatomix::Result<usize>>();
            each(|| {
                let tokens = std::thread::scope(|scope| {
                    let callers: Vec<_> = (0..count).map(|_| scope.spawn(reports)).collect();
                    callers.into_iter().map(|caller| caller.join().expect("no caller panics")).sum::<anatomix::Result<usize>>()
                })?;
                Ok(format!("{} {tokens}", count * REPORTS))
            })
        }
        ["cold", bundle, image, golden] => {
            let engine = Engine::builder().provider(Provider::Cpu).golden_check(golden == "golden-check").open(bundle)?;
            let radiograph = Radiograph::open(image)?;
            let questions = std::fs::read_to_string(std::env::var("ANATOMIX_QUESTIONS")?)?;
            let answer = engine.study(&radiograph)?.ask(Question::new(questions.trim()).max_tokens(1))?;
            println!("token {}", answer.text);
            Ok(())
        }
        ["form", bundle, image, temperature] => {
            let (engine, radiograph) = open(bundle, image, false)?;
            let mut study = engine.study(&radiograph)?;
            let temperature: f32 = temperature.parse()?;
            let sampling = |seed| Sampling { temperature, seed, ..Sampling::default() };
            each(|| {
                let (mut milliseconds, mut runs) = ([0.0; 3], [0; 3]);
                for seed in 0..10 {
                    let question = Question::from(Task::Report).sampling(sampling(seed)).max_tokens(100);
                    let free = study.ask(question.clone().unconstrained())?;
                    // Answers as long as the unconstrained one, because a token costs more the more of them are before it.
                    let question = question.max_tokens(free.tokens.max(1));
                    let json = study.ask(question.clone().json_schema(SCHEMA))?;
                    for (form, answer) in [study.ask(question)?, json, free].into_iter().enumerate() {
                        milliseconds[form] += answer.timing.decode.unwrap_or_default();
                        // Not as many as tokens: prefill gives the first one, and an answer that ends by itself has a run for that.
                        runs[form] += answer.runs;
                    }
                }
                let each = |form: usize| milliseconds[form] * 1e3 / runs[form] as f64;
                Ok(format!("{:.1} {:.1} {:.1}", each(0), each(1), each(2)))
            })
        }
        ["rejected", bundle, image, how, max_tokens, letters] => {
            let (engine, radiograph) = open(bundle, image, how != "plain")?;
            let letters: usize = letters.parse()?;
            let words =
                (0..STRUCTURE_COUNT).filter_map(|i| Structure::all().nth(i * 7 % STRUCTURE_COUNT)).flat_map(|name| name.name().split(' '));
            let words: Vec<String> = words.map(|word| word.chars().take(letters).collect()).collect();
            let question = Question::new("Which?").json_schema(format!(r#"{{"const": "{}"}}"#, words.join(" ")));
            let question = question.max_tokens(max_tokens.parse()?);
            let mut study = engine.study(&radiograph)?;
            study.ask(question.clone().max_tokens(1))?;
            let saved = study.save()?;
            each(|| {
                // A study without earlier answers, from which drafts would be taken.
                let answer = engine.load_study(&saved)?.ask(question.clone())?;
                Ok(format!("{} {} {}", answer.timing.decode.unwrap_or_default(), answer.tokens, answer.runs))
            })
        }
        _ => Err("usage: bench sentences EMBEDDINGS WIDTH DATABASE | retrieval DATABASE WIDTH | tensor|hashed IMAGE SIDE | \
                 perceive BUNDLE IMAGE | ask BUNDLE IMAGE plain|look-up|together MAX | cold BUNDLE IMAGE golden-check|no-golden-check | \
                 callers BUNDLE IMAGE THREADS COUNT | form BUNDLE IMAGE TEMPERATURE | \
                  rejected BUNDLE IMAGE plain|look-up MAX LETTERS"
            .into()),
    }
}

fn open(bundle: &str, image: &str, look_up: bool) -> Outcome<(Engine, Radiograph)> {
    Ok((Engine::builder().provider(Provider::Cpu).look_up(look_up).open(bundle)?, Radiograph::open(image)?))
}

/// Does the work once for each line on standard input. Prints its milliseconds and the text that it returns.
fn each(mut work: impl FnMut() -> Outcome<String>) -> Outcome<()> {
    each_timed(|| {
        let start = Instant::now();
        let figures = work()?;
        Ok((start.elapsed().as_secs_f64() * 1e3, figures))
    })
}

/// Like [`each`], for work that measures its own milliseconds.
fn each_timed(mut work: impl FnMut() -> Outcome<(f64, String)>) -> Outcome<()> {
    work()?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let (milliseconds, figures) = work()?;
        println!("{milliseconds} {figures}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
