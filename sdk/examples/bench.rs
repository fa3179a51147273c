//! The SDK's side of `make bench`: prepares a work, then does it once for every line on standard input and prints how many
//! milliseconds that took, so that another program can take turns with it.
//!
//! `bench retrieval DATABASE WIDTH`, which `bench sentences EMBEDDINGS WIDTH DATABASE` makes of 36 equally long lists of fp32;
//! `bench tensor IMAGE SIDE`, or `hashed` for the file's SHA-256 as well; `bench perceive BUNDLE IMAGE`; `bench ask BUNDLE IMAGE
//! plain|look-up|together MAX`; `bench cold BUNDLE IMAGE golden-check|no-golden-check` answers with one token and ends. The last two ask
//! what the file holds that ANATOMIX_QUESTIONS names, a question a line, each about the study only. `bench form BUNDLE IMAGE
//! TEMPERATURE` asks for reports grounded, as JSON by a schema, and unconstrained in turns and prints what a token takes of each, in
//! microseconds. `bench rejected BUNDLE IMAGE plain|look-up MAX LETTERS` lets a schema say what the answer is: the first letters of the
//! words in the structures' names, which often begins as the prompt does, and goes on otherwise. It prints what decoding takes in
//! milliseconds, tokens and runs.

use anatomix::parts::radiograph::{Histogram, Preprocess};
use anatomix::parts::retrieval::{self, SentenceDatabase, SentenceList};
use anatomix::{Engine, Provider, Question, Radiograph, STRUCTURES, Sampling, Structure, Task};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

/// What an answer in JSON has to meet: text of any words.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "side": {"enum": ["left", "right", "both", "none"]},
        "findings": {"type": "array", "items": {"type": "string", "minLength": 30, "maxLength": 80}, "minItems": 3, "maxItems": 5}
    },
    "required": ["side", "findings"],
    "additionalProperties": false
}"#;

/// How many reports each caller asks for in a turn, each on a study of its own.
const REPORTS: usize = 5;

type Anyhow<T> = Result<T, Box<dyn Error>>;

fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sentences", embeddings, width, database] => {
            let values: Vec<f32> = std::fs::read(embeddings)?.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            let width: usize = width.parse()?;
            let count = values.len() / width / STRUCTURES;
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
            each(|| {
                let radiograph = Radiograph::open(image)?;
                let hash = || _ = (work == "hashed").then(|| black_box(radiograph.sha256()));
                black_box(rayon::join(|| radiograph.preprocess(&preprocess), hash)).0?;
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
                let (mut milliseconds, mut tokens) = ([0.0; 3], [0; 3]);
                for seed in 0..10 {
                    let question = Question::from(Task::Report).sampling(sampling(seed)).max_tokens(100);
                    let json = question.clone().json_schema(SCHEMA);
                    for (form, question) in [question.clone(), json, question.unconstrained()].into_iter().enumerate() {
                        let answer = study.ask(question)?;
                        milliseconds[form] += answer.timing.decode.unwrap_or_default();
                        tokens[form] += answer.tokens;
                    }
                }
                let each = |form: usize| milliseconds[form] * 1e3 / tokens[form] as f64;
                Ok(format!("{:.1} {:.1} {:.1}", each(0), each(1), each(2)))
            })
        }
        ["rejected", bundle, image, how, max_tokens, letters] => {
            let (engine, radiograph) = open(bundle, image, how != "plain")?;
            let letters: usize = letters.parse()?;
            let words = (0..STRUCTURES).filter_map(|i| Structure::all().nth(i * 7 % STRUCTURES)).flat_map(|name| name.name().split(' '));
            let words: Vec<String> = words.map(|word| word.chars().take(letters).collect()).collect();
            let question = Question::new("Which?").json_schema(format!(r#"{{"const": "{}"}}"#, words.join(" ")));
            let question = question.max_tokens(max_tokens.parse()?);
            let mut study = engine.study(&radiograph)?;
            study.ask(question.clone().max_tokens(1))?;
            let saved = study.save()?;
            each(|| {
                // One without earlier answers, which this one would repeat.
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

fn open(bundle: &str, image: &str, look_up: bool) -> Anyhow<(Engine, Radiograph)> {
    Ok((Engine::builder().provider(Provider::Cpu).look_up(look_up).open(bundle)?, Radiograph::open(image)?))
}

fn each(mut work: impl FnMut() -> Anyhow<String>) -> Anyhow<()> {
    each_timed(|| {
        let start = Instant::now();
        let said = work()?;
        Ok((start.elapsed().as_secs_f64() * 1e3, said))
    })
}

fn each_timed(mut work: impl FnMut() -> Anyhow<(f64, String)>) -> Anyhow<()> {
    work()?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let (milliseconds, said) = work()?;
        println!("{milliseconds} {said}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
