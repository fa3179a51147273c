//! Grounded text: `<ref>phrase</ref><box>(x0,y0),(x1,y1)</box>` with integer coordinates on the prompt's grid (paper, figure S1).

use crate::geometry::{Letterbox, NormalizedBox, PROMPT_GRID, PixelBox};
use crate::prompt::PromptError;

/// A phrase of an answer with its bounding boxes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Grounding {
    /// The phrase; empty for boxes without a phrase.
    pub phrase: String,
    /// Boxes in pixels of the original image.
    pub boxes: Vec<PixelBox>,
}

/// Parses the groundings in a model's text. Malformed boxes are skipped. A model may write any two opposite corners of a box; the result
/// has `x0 <= x1` and `y0 <= y1`.
pub fn parse(text: &str, letterbox: &Letterbox) -> Vec<Grounding> {
    let mut out: Vec<Grounding> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        if let Some((phrase, after)) = enclosed(rest, "<ref>", "</ref>") {
            // The phrase starts at the last `<ref>` before `</ref>`.
            let phrase = phrase.rsplit("<ref>").next().unwrap_or_default();
            out.push(Grounding { phrase: phrase.trim().into(), boxes: vec![] });
            rest = after;
        } else if let Some((inner, after)) = enclosed(rest, "<box>", "</box>") {
            if let Some([x0, y0, x1, y1]) = corners::<u32>(inner).filter(|g| g.iter().all(|&v| v <= PROMPT_GRID)) {
                if out.is_empty() {
                    out.push(Grounding { phrase: String::new(), boxes: vec![] });
                }
                let grid = [x0.min(x1), y0.min(y1), x0.max(x1), y0.max(y1)];
                let bounds = letterbox.restore(&NormalizedBox::from_grid(grid));
                out.last_mut().into_iter().for_each(|g| g.boxes.push(bounds));
            }
            rest = after;
        } else {
            rest = &rest[1..];
        }
    }
    out
}

/// Converts the boxes in a question from pixels of the original image to the prompt's grid.
///
/// # Errors
/// If a box is malformed, empty, or not inside the image.
pub fn question_to_grid(question: &str, letterbox: &Letterbox) -> Result<String, PromptError> {
    let mut out = String::with_capacity(question.len());
    let mut rest = question;
    while let Some(start) = rest.find("<box>") {
        out.push_str(&rest[..start]);
        let invalid = || PromptError::Box { found: quoted(&rest[start..]), width: letterbox.width, height: letterbox.height };
        let (inner, after) = enclosed(&rest[start..], "<box>", "</box>").ok_or_else(invalid)?;
        let [x0, y0, x1, y1] = corners::<f32>(inner).ok_or_else(invalid)?;
        let inside = |low: f32, high: f32, size: u32| 0.0 <= low && low < high && high <= size as f32;
        if !inside(x0, x1, letterbox.width) || !inside(y0, y1, letterbox.height) {
            return Err(invalid());
        }
        let [x0, y0, x1, y1] = letterbox.normalize(&PixelBox::new(x0, y0, x1, y1)).to_grid();
        out.push_str(&format!("<box>({x0},{y0}),({x1},{y1})</box>"));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The box at the beginning of `text`, for a message: to its end, or its first 60 characters.
fn quoted(text: &str) -> String {
    const CLOSE: &str = "</box>";
    let end = text.find(CLOSE).map_or(text.len(), |start| start + CLOSE.len());
    text[..end].chars().take(60).collect()
}

/// If `text` starts with `open`, returns the text up to `close` and the text after it.
fn enclosed<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(open)?.split_once(close)
}

/// Parses `(a,b),(c,d)`.
fn corners<T: std::str::FromStr + Copy>(text: &str) -> Option<[T; 4]> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let (first, second) = inner.split_once("),(").or_else(|| inner.split_once("), ("))?;
    let pair = |text: &str| {
        let (a, b) = text.split_once(',')?;
        Some((a.trim().parse::<T>().ok()?, b.trim().parse::<T>().ok()?))
    };
    let ((a, b), (c, d)) = (pair(first)?, pair(second)?);
    Some([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Letterbox = Letterbox { width: 2048, height: 1024 };

    #[test]
    fn a_phrase_has_the_boxes_that_follow_it() {
        let text = "<ref>nodule</ref><box>(0,256),(512,768)</box><box>(9,9),(2000,9)</box> and <ref>mass</ref>";
        let found = parse(text, &WIDE);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].phrase.as_str(), found[0].boxes.as_slice()), ("nodule", &[PixelBox::new(0.0, 0.0, 1024.0, 1024.0)][..]));
        assert_eq!((found[1].phrase.as_str(), found[1].boxes.len()), ("mass", 0));
        assert_eq!(parse("<box>(1,2),(3,4)</box>", &WIDE)[0].phrase, "");
        assert_eq!(parse("<ref><ref>mass</ref>", &WIDE)[0].phrase, "mass");
    }

    #[test]
    fn corners_may_be_written_in_any_order() {
        for text in ["<box>(0,256),(512,768)</box>", "<box>(512,256),(0,768)</box>", "<box>(512,768),(0,256)</box>"] {
            assert_eq!(parse(text, &WIDE)[0].boxes, [PixelBox::new(0.0, 0.0, 1024.0, 1024.0)], "{text}");
        }
    }

    #[test]
    fn boxes_of_questions_are_converted_from_pixels() {
        let grid = question_to_grid("What is in <box>(0,0),(1024, 1024)</box>?", &WIDE).unwrap();
        assert_eq!(grid, "What is in <box>(0,256),(512,768)</box>?");
        for wrong in
            ["<box>(0,0),(1,1)", "<box>1,2,3,4</box>", "<box>(0,0),(9999,5)</box>", "<box>(5,5),(5,9)</box>", "<box>(0,0),(NaN,1)</box>"]
        {
            assert!(question_to_grid(wrong, &WIDE).is_err(), "{wrong}");
        }
        let message = question_to_grid("What is in <box>(0,0),(9999,5)</box>?", &WIDE).unwrap_err().to_string();
        assert!(message.contains("\"<box>(0,0),(9999,5)</box>\""), "{message}");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(<ref>|</ref>|<box>|</box>|[(),0-9a-zé<]{0,6}){0,12}") {
            parse(&text, &WIDE);
            let _ = question_to_grid(&text, &WIDE);
        }
    }
}
