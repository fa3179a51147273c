//! Asking a bundle all questions of a data set, through the SDK.

use super::journal::{Answer, Header, Journal, Record};
use super::shown::Shown;
use crate::evaluation::Case;
use crate::evaluation::image::{Frame, converse, open, turns};
use crate::predictions::file::key;
use anatomix::parts::geometry::Letterbox;
use anatomix::{Engine, LABEL_COUNT, Question};
use anyhow::{Context, Result};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// Questions that are decoded together. More need more memory.
const TOGETHER: usize = 12;

/// Perceives the images and asks their questions, or takes what an earlier, interrupted call left in the journal at `path`. `progress` is
/// called after each image, and first with the number of those that were there. The records are in the order of the cases.
///
/// # Errors
/// If the journal is of another measurement, an image cannot be read, or the engine fails. What was measured stays in the journal.
pub fn measure(engine: &Engine, pool: &ThreadPool, shown: &Shown, path: &Path, progress: impl Fn(u64) + Sync) -> Result<Vec<Record>> {
    let (cases, mirrored) = (&shown.cases, shown.mirrored());
    let header = Header::new(engine.bundle().hash().into(), shown.hash(), engine.provider().to_string(), mirrored);
    let (journal, earlier) = Journal::open(path, &header)?;
    let mut records: HashMap<String, Record> = earlier.into_iter().map(|record| (record.image.clone(), record)).collect();
    let left: Vec<&Case> = cases.iter().filter(|case| !records.contains_key(&case.image.id)).collect();
    progress((cases.len() - left.len()) as u64);
    let journal = Mutex::new(journal);
    let measured: Vec<Record> = pool.install(|| {
        let one = |case: &&Case| {
            let record = record(engine, case, mirrored).with_context(|| format!("{}: {}", case.image.id, case.path.display()))?;
            // A thread that panicked wrote a whole line or none.
            journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(&record)?;
            progress(1);
            Ok(record)
        };
        left.par_iter().with_max_len(1).map(one).collect::<Result<_>>()
    })?;
    records.extend(measured.into_iter().map(|record| (record.image.clone(), record)));
    cases.iter().map(|case| records.remove(&case.image.id).with_context(|| format!("the image {} is there twice", case.image.id))).collect()
}

fn record(engine: &Engine, case: &Case, mirrored: bool) -> Result<Record> {
    let start = Instant::now();
    let radiograph = open(case, mirrored)?;
    let frame = Frame { width: radiograph.width() as f32, flip: mirrored };
    let letterbox = Letterbox::new(radiograph.width(), radiograph.height());
    let mut study = engine.study(&radiograph)?;
    let boxes = study.structures().iter().map(|found| found.bounds).collect();
    let sentences = study.structures().iter().map(|found| found.sentence.text.clone()).collect();
    let mut labels = [0.0; LABEL_COUNT];
    study.labels().iter().for_each(|given| labels[given.label.index()] = given.score);
    let flags = study.flags().iter().filter(|flag| flag.code.must_be_accepted()).map(|flag| flag.code.name().into()).collect();
    let asked = case.samples.iter().map(|sample| turns(sample, frame, &letterbox)).collect::<Result<Vec<_>>>()?;
    let mut answers: Vec<Option<anatomix::Answer>> = vec![None; asked.len()];
    // Data sets hold chest radiographs: a flag is counted, and does not end the measurement.
    let alone: Vec<usize> = (0..asked.len()).filter(|&index| asked[index].len() == 1).collect();
    for together in alone.chunks(TOGETHER) {
        let questions = together.iter().map(|&index| Question::new(asked[index].concat()).accept_flags());
        for (&index, answer) in together.iter().zip(study.ask_many(questions)?) {
            answers[index] = Some(answer);
        }
    }
    for (answer, turns) in answers.iter_mut().zip(asked).filter(|(answer, _)| answer.is_none()) {
        *answer = Some(converse(&mut study, turns, true)?);
    }
    let answers = case.samples.iter().zip(answers.into_iter().flatten()).map(|(sample, answer)| Answer {
        sample: key(sample, mirrored),
        boxes: answer.groundings.iter().flat_map(|grounding| grounding.boxes.iter().copied()).collect(),
        text: answer.text,
        raw: answer.raw,
    });
    let answers = answers.collect();
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Record { image: case.image.id.clone(), boxes, sentences, labels, flags, answers, milliseconds })
}
