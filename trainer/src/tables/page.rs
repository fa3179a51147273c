//! A page for a browser: figures of each structure as bars, how far label scores can be trusted, and the worst answers with their images.

use super::groups::PERCEPTION;
use super::journal::{Answer, Record};
use super::layout::Model;
use crate::data::samples::record::Sample;
use crate::evaluation::Case;
use crate::evaluation::image::{Frame, open};
use crate::metrics::boxes::mean_best_iou;
use crate::metrics::calibration::bins;
use crate::metrics::rouge::rouge1;
use crate::predictions::scores::Prediction;
use crate::reporting::page::escaped;
use crate::reporting::plots;
use anatomix::output::write_whole;
use anatomix::parts::hash::Digest;
use anatomix::{PixelBox, Preprocess, Structure, Task};
use anyhow::{Context, Result};
use image::{GrayImage, ImageFormat};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;

/// Name of the page, and of the folder with its images.
const PAGE: &str = "tables.html";
const IMAGES: &str = "images";
/// Answers that are shown of each task.
const WORST: usize = 6;
/// Side of a shown image in pixels.
const SIDE: u32 = 384;

/// An answer with its score, 0..1.
struct Judged<'a> {
    case: &'a Case,
    sample: &'a Sample,
    answer: &'a Answer,
    score: f64,
}

/// Writes the page of a bundle. `records` and `labels` are those of the images as they are; `preprocess` is how the bundle sees an image.
///
/// # Errors
/// If an image cannot be read, or a file cannot be written.
pub fn write(out: &Path, bundle: &Model, cases: &[Case], records: &[Record], labels: &[Prediction], preprocess: &Preprocess) -> Result<()> {
    let title = escaped(&bundle.name);
    let mut body = String::new();
    for (kind, name) in [(PERCEPTION, "boxes of the perception module"), ("anatomy_grounding", "answers to where a structure is")] {
        for (condition, measured) in &bundle.conditions {
            let value = |structure: &Structure| {
                measured.groups.get(&format!("{kind}/{structure}")).and_then(|figures| Some(figures.get("iou_all")?.value))
            };
            let bars: Vec<(&str, f64)> = Structure::all().filter_map(|structure| Some((structure.name(), value(&structure)?))).collect();
            if !bars.is_empty() {
                body += &plots::bars(&format!("IoU of {name}, {}", condition.name()), &bars)?;
            }
        }
    }
    let scores = labels.iter().filter_map(|own| own.scores.as_ref());
    let pairs =
        scores.flat_map(|(applies, scores)| scores.iter().copied().zip(applies.iter().copied())).filter(|(score, _)| !score.is_nan());
    let bins = bins(pairs);
    if !bins.is_empty() {
        body += &plots::reliability("Scores of the 14 labels, not calibrated: how often a label with that score applies", &bins)?;
    }
    let (folder, mut written) = (out.join(IMAGES), BTreeSet::new());
    let mut by_task: BTreeMap<Task, Vec<Judged>> = BTreeMap::new();
    judged(cases, records).into_iter().for_each(|own| by_task.entry(own.sample.task).or_default().push(own));
    for (task, mut answers) in by_task {
        answers.retain(|own| own.score < 1.0);
        if answers.is_empty() {
            continue;
        }
        answers.sort_by(|a, b| a.score.total_cmp(&b.score));
        let _ = writeln!(body, "<h2>The worst answers of {}</h2>", task.name().replace('_', " "));
        for answer in answers.iter().take(WORST) {
            body += &figure(&folder, &mut written, answer, preprocess)?;
        }
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>body {{ font-family: sans-serif; \
         margin: 2em; }} svg {{ margin: 0.5em; }} figure {{ display: inline-block; width: {SIDE}px; vertical-align: top; }} pre \
         {{ white-space: pre-wrap; }}</style>\n<h1>{title}</h1>\n<p>Research use, not a medical device. Expected boxes are green, \
         answered ones red.</p>\n{body}</html>\n"
    );
    Ok(write_whole(out.join(PAGE), page.as_bytes())?)
}

/// Answers with what they can be judged by without a model: IoU of boxes, ROUGE-1 of texts.
fn judged<'a>(cases: &'a [Case], records: &'a [Record]) -> Vec<Judged<'a>> {
    let all = cases.iter().zip(records).flat_map(|(case, record)| case.samples.iter().zip(&record.answers).map(move |own| (case, own)));
    all.filter_map(|(case, (sample, answer))| {
        let score = match sample.task {
            Task::AnatomyGrounding | Task::PhraseGrounding | Task::AbnormalityDetection if !sample.boxes.is_empty() => {
                mean_best_iou(&answer.boxes, &sample.boxes).unwrap_or(0.0)
            }
            Task::AbnormalityDetection => f64::from(u8::from(answer.boxes.is_empty())),
            Task::AnatomyGrounding | Task::PhraseGrounding => return None,
            _ => rouge1(&sample.answer, &answer.text),
        };
        Some(Judged { case, sample, answer, score })
    })
    .collect()
}

/// File name of an image. What a name cannot hold is replaced, so that a hash tells two identifiers apart.
fn file_name(id: &str) -> String {
    let name: String = id.chars().take(100).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("{name}-{}.png", &Digest::of(id.as_bytes()).to_string()[..12])
}

/// An answer with its image, which is written to the folder unless it is one of those that were `written`. One that an earlier call left
/// there may be another picture.
fn figure(folder: &Path, written: &mut BTreeSet<String>, own: &Judged, preprocess: &Preprocess) -> Result<String> {
    let Judged { case, sample, answer, score } = own;
    let name = file_name(&case.image.id);
    if written.insert(name.clone()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let shown = Preprocess { size: SIDE, ..*preprocess };
        let pixels = open(case, false)?.preprocess(&shown)?.iter().map(|value| (value * 255.0) as u8).collect();
        let picture = GrayImage::from_raw(SIDE, SIDE, pixels).context("an image of another size")?;
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png)?;
        write_whole(folder.join(&name), bytes.get_ref())?;
    }
    let frame = Frame { width: case.image.width as f32, flip: false };
    let letterbox = case.image.letterbox();
    let rectangles = |boxes: &[PixelBox], color: &str| {
        boxes.iter().fold(String::new(), |mut out, bounds| {
            let b = letterbox.normalize(bounds);
            let [x, y, width, height] = [b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0].map(|v| v * SIDE as f32);
            let _ = write!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" stroke=\"{color}\"/>"
            );
            out
        })
    };
    Ok(format!(
        "<figure><svg width=\"{SIDE}\" height=\"{SIDE}\"><image href=\"{IMAGES}/{name}\" width=\"{SIDE}\" \
         height=\"{SIDE}\"/>{}{}</svg>\n\
         <figcaption>{}, {score:.3}<pre>{}</pre><pre>expected: {}</pre><pre>answered: {}</pre></figcaption></figure>\n",
        rectangles(&frame.boxes(sample), "lime"),
        rectangles(&answer.boxes, "red"),
        escaped(&case.image.id),
        escaped(&sample.question),
        escaped(&sample.answer),
        escaped(&answer.raw),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_files_of_their_own() {
        let names = ["x/a.1", "x/a_1", "x_a.1", "../x/a.1"].map(file_name);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names[0].starts_with("x_a_1-") && names.iter().all(|name| !name.contains(['/', ' ']) && name.ends_with(".png")));
        assert!(file_name(&"a".repeat(5000)).len() < 200);
    }
}
