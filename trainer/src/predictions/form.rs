//! The forms in which models write answers with boxes.
//!
//! | form | a phrase with a box | numbers |
//! | --- | --- | --- |
//! | `anatomix` | `<ref>left lung</ref><box>(512,200),(900,800)</box>` | [`Convention::GRID`] |
//! | `radvlm` | `left lung [0.5, 0.2, 0.88, 0.78]` | [`Convention::FRACTIONS`] |
//! | `maira2` | `<obj>left lung<box><x50><y20><x88><y78></box></obj>` | [`Convention::BINS`] |
//! | `chexagent` | `<\|ref\|>left lung<\|/ref\|><\|box\|>(50,20),(88,78)<\|/box\|>` | [`Convention::PERCENT`] |
//! | `radialog` | `left lung`: it writes no boxes | |
//! | `medgemma` | `[{"box_2d": [200, 500, 780, 880], "label": "left lung"}]` | [`Convention::THOUSANDTHS`] |

use super::convention::Convention;
use super::pieces::{Content, Piece};
use anatomix::PixelBox;
use anatomix::parts::geometry::Letterbox;
use regex::{Captures, Regex};
use serde::Deserialize;
use std::sync::LazyLock;

/// The form of a model's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// AnatomiX.
    Anatomix,
    /// RadVLM.
    RadVlm,
    /// MAIRA-2.
    Maira2,
    /// CheXagent.
    CheXagent,
    /// RaDialog.
    RaDialog,
    /// MedGemma.
    MedGemma,
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?\d+(?:\.\d+)?"));
static ANATOMIX: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<ref>(?<phrase>.*?)</ref>|<box>(?<bounds>.*?)</box>"));
static CHEXAGENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<\|ref\|>(?<phrase>.*?)<\|/ref\|>|<\|box\|>(?<bounds>.*?)<\|/box\|>"));
static MAIRA2: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)(?<open><obj>)|(?<close></obj>)|<box>(?<bounds>.*?)</box>"));
static RADVLM: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"\s*-?\d+(?:\.\d+)?\s*";
    pattern(&format!(r"\[(?<bounds>{number},{number},{number},{number})\]"))
});
static MEDGEMMA: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\{[^{}]*"box_2d"[^{}]*\}"#));

/// An object of MedGemma's answers.
#[derive(Deserialize)]
struct Labelled {
    box_2d: [f64; 4],
    #[serde(default)]
    label: String,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 6] = [Self::Anatomix, Self::RadVlm, Self::Maira2, Self::CheXagent, Self::RaDialog, Self::MedGemma];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anatomix => "anatomix",
            Self::RadVlm => "radvlm",
            Self::Maira2 => "maira2",
            Self::CheXagent => "chexagent",
            Self::RaDialog => "radialog",
            Self::MedGemma => "medgemma",
        }
    }

    /// The form of a model with this name: letters and digits count, in any case, so that `MAIRA-2` is `maira2`.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Self::ALL.into_iter().find(|form| form.name() == plain)
    }

    /// The numbers of its boxes; `None` if it has no boxes.
    pub fn convention(self) -> Option<Convention> {
        match self {
            Self::Anatomix => Some(Convention::GRID),
            Self::RadVlm => Some(Convention::FRACTIONS),
            Self::Maira2 => Some(Convention::BINS),
            Self::CheXagent => Some(Convention::PERCENT),
            Self::RaDialog => None,
            Self::MedGemma => Some(Convention::THOUSANDTHS),
        }
    }

    /// Reads an answer on an image of this size. Boxes that cannot be read are left out and counted.
    pub fn read(self, text: &str, letterbox: &Letterbox) -> Content {
        let mut content = Content::default();
        let Some(convention) = self.convention() else {
            content.text(text);
            return content;
        };
        let bounds = |numbers: &str| {
            let found: Vec<f64> = NUMBER.find_iter(numbers).filter_map(|number| number.as_str().parse().ok()).collect();
            convention.read(found.try_into().ok()?, letterbox)
        };
        match self {
            Self::Anatomix => tagged(&mut content, &ANATOMIX, text, bounds),
            Self::CheXagent => tagged(&mut content, &CHEXAGENT, text, bounds),
            Self::RadVlm => tagged(&mut content, &RADVLM, text, bounds),
            Self::Maira2 => nested(&mut content, text, bounds),
            Self::MedGemma => objects(&mut content, text, |numbers| convention.read(numbers, letterbox)),
            Self::RaDialog => {}
        }
        content
    }

    /// Writes an answer. The forms of MAIRA-2 and MedGemma have no words outside of phrases: an answer with boxes keeps its phrases only.
    /// RaDialog's has no boxes.
    pub fn write(self, content: &Content, letterbox: &Letterbox) -> String {
        let numbers = |bounds: &PixelBox| self.convention().map_or([0.0; 4], |convention| convention.write(bounds, letterbox));
        let has_boxes = !content.boxes().is_empty();
        match self {
            Self::Anatomix => {
                in_line(content, |phrase| format!("<ref>{phrase}</ref>"), |bounds| corners(numbers(bounds), ["<box>", "</box>"]))
            }
            Self::CheXagent => {
                in_line(content, |phrase| format!("<|ref|>{phrase}<|/ref|>"), |bounds| corners(numbers(bounds), ["<|box|>", "<|/box|>"]))
            }
            Self::RadVlm => listed(content, |bounds| {
                let [x0, y0, x1, y1] = numbers(bounds);
                format!("[{x0}, {y0}, {x1}, {y1}]")
            }),
            Self::Maira2 if has_boxes => {
                let group = |(phrase, boxes): (&str, Vec<PixelBox>)| {
                    let boxes = boxes.iter().map(numbers).map(|[x0, y0, x1, y1]| format!("<box><x{x0}><y{y0}><x{x1}><y{y1}></box>"));
                    format!("<obj>{phrase}{}</obj>", boxes.collect::<String>())
                };
                content.groups().into_iter().map(group).collect()
            }
            Self::MedGemma if has_boxes => {
                let groups = content.groups();
                let objects = groups.iter().flat_map(|(phrase, boxes)| boxes.iter().map(move |bounds| (phrase, bounds)));
                let objects = objects.map(|(phrase, bounds)| {
                    let [y0, x0, y1, x1] = numbers(bounds);
                    format!("{{\"box_2d\": [{y0}, {x0}, {y1}, {x1}], \"label\": {}}}", serde_json::Value::from(*phrase))
                });
                format!("```json\n[{}]\n```", objects.collect::<Vec<_>>().join(", "))
            }
            Self::Maira2 | Self::MedGemma | Self::RaDialog => content.words(),
        }
    }
}

/// Words with phrases and boxes between them.
fn tagged(content: &mut Content, tags: &Regex, text: &str, bounds: impl Fn(&str) -> Option<PixelBox>) {
    let mut end = 0;
    for found in tags.captures_iter(text) {
        content.text(&text[end..start_of(&found)]);
        end = end_of(&found);
        match (found.name("phrase"), found.name("bounds")) {
            (Some(phrase), _) => content.phrase(phrase.as_str()),
            (_, Some(numbers)) => content.bounds(bounds(numbers.as_str())),
            _ => {}
        }
    }
    content.text(&text[end..]);
}

/// MAIRA-2: phrases hold their boxes.
fn nested(content: &mut Content, text: &str, bounds: impl Fn(&str) -> Option<PixelBox>) {
    let (mut end, mut inside) = (0, false);
    let words = |content: &mut Content, words: &str, inside: bool| if inside { content.phrase(words) } else { content.text(words) };
    for found in MAIRA2.captures_iter(text) {
        words(content, &text[end..start_of(&found)], inside);
        end = end_of(&found);
        match found.name("bounds") {
            Some(numbers) => content.bounds(bounds(numbers.as_str())),
            None => inside = found.name("open").is_some(),
        }
    }
    words(content, &text[end..], inside);
}

/// MedGemma: a list of objects, often in a block of code, between words.
fn objects(content: &mut Content, text: &str, bounds: impl Fn([f64; 4]) -> Option<PixelBox>) {
    let mut end = 0;
    let words = |content: &mut Content, words: &str| {
        let words = words.replace("```json", "").replace("```", "");
        content.text(words.trim_matches(|c: char| c.is_whitespace() || "[],".contains(c)));
    };
    for object in MEDGEMMA.find_iter(text) {
        words(content, &text[end..object.start()]);
        end = object.end();
        match serde_json::from_str::<Labelled>(object.as_str()) {
            Ok(Labelled { box_2d, label }) => {
                content.phrase(&label);
                content.bounds(bounds(box_2d));
            }
            Err(_) => content.unread += 1,
        }
    }
    if end == 0 { content.text(text) } else { words(content, &text[end..]) }
}

fn start_of(found: &Captures) -> usize {
    found.get(0).map_or(0, |whole| whole.start())
}

fn end_of(found: &Captures) -> usize {
    found.get(0).map_or(0, |whole| whole.end())
}

fn corners([x0, y0, x1, y1]: [f64; 4], [open, close]: [&str; 2]) -> String {
    format!("{open}({x0},{y0}),({x1},{y1}){close}")
}

fn in_line(content: &Content, phrase: impl Fn(&str) -> String, bounds: impl Fn(&PixelBox) -> String) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Phrase(text) => phrase(text),
        Piece::Bounds(own) => bounds(own),
    };
    content.pieces.iter().map(piece).collect()
}

/// RadVLM: the boxes of a phrase as in a sentence, `A, B and C`.
fn listed(content: &Content, bounds: impl Fn(&PixelBox) -> String) -> String {
    let is_box = |at: usize| matches!(content.pieces.get(at), Some(Piece::Bounds(_)));
    let mut out = String::new();
    for (at, piece) in content.pieces.iter().enumerate() {
        match piece {
            Piece::Text(text) | Piece::Phrase(text) => {
                if out.ends_with(']') && text.starts_with(char::is_alphanumeric) {
                    out.push(' ');
                }
                out += text;
            }
            Piece::Bounds(own) => {
                if at > 0 && is_box(at - 1) {
                    out += if is_box(at + 1) { ", " } else { " and " };
                } else if !out.is_empty() && !out.ends_with(char::is_whitespace) {
                    out.push(' ');
                }
                out += &bounds(own);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Letterbox = Letterbox { width: 2000, height: 1000 };

    fn answer() -> Content {
        let pieces = vec![
            Piece::Text("The ".into()),
            Piece::Phrase("left lung".into()),
            Piece::Text(" is at ".into()),
            Piece::Bounds(PixelBox::new(1100.0, 100.0, 1500.0, 700.0)),
            Piece::Bounds(PixelBox::new(600.0, 300.0, 800.0, 500.0)),
            Piece::Text(".".into()),
        ];
        Content { pieces, unread: 0 }
    }

    /// The forms, as the published code of each model reads and writes them.
    #[test]
    fn each_model_writes_boxes_in_its_own_form() {
        for (form, written) in [
            (Form::Anatomix, "The <ref>left lung</ref> is at <box>(563,307),(768,614)</box><box>(307,409),(409,512)</box>."),
            (Form::RadVlm, "The left lung is at [0.55, 0.1, 0.75, 0.7] and [0.3, 0.3, 0.4, 0.5]."),
            (Form::Maira2, "<obj>left lung<box><x60><y10><x99><y70></box><box><x10><y30><x30><y50></box></obj>"),
            (Form::CheXagent, "The <|ref|>left lung<|/ref|> is at <|box|>(55,10),(75,70)<|/box|><|box|>(30,30),(40,50)<|/box|>."),
            (Form::RaDialog, "The left lung is at ."),
            (
                Form::MedGemma,
                "```json\n[{\"box_2d\": [300, 550, 600, 750], \"label\": \"left lung\"}, {\"box_2d\": [400, 300, 500, 400], \
                 \"label\": \"left lung\"}]\n```",
            ),
        ] {
            assert_eq!(form.write(&answer(), &WIDE), written, "{form:?}");
            let read = form.read(written, &WIDE);
            let expected = if form == Form::RaDialog { vec![] } else { answer().boxes() };
            assert_eq!((read.boxes().len(), read.unread), (expected.len(), 0), "{form:?}");
            for (read, expected) in read.boxes().iter().zip(&expected) {
                assert!(read.iou(expected) > 0.9, "{form:?} {read} {expected}");
            }
            let phrases: Vec<&str> = read.groups().iter().map(|group| group.0).collect();
            match form {
                Form::Anatomix | Form::CheXagent => {
                    assert_eq!((phrases, read.words()), (vec!["left lung"], "The left lung is at .".into()))
                }
                Form::Maira2 => assert_eq!(phrases, ["left lung"]),
                Form::MedGemma => assert_eq!(phrases, ["left lung", "left lung"]),
                Form::RadVlm => assert_eq!(read.words(), "The left lung is at and ."),
                Form::RaDialog => assert_eq!(phrases, [""; 0]),
            }
            assert_eq!(Form::from_name(form.name()), Some(form));
        }
        assert_eq!(Form::from_name("MAIRA-2"), Some(Form::Maira2));
        assert_eq!(Form::from_name("GPT"), None);
    }

    #[test]
    fn answers_without_boxes_are_the_same_words() {
        let content = Form::Anatomix.read("No abnormality is seen.", &WIDE);
        for form in Form::ALL {
            assert_eq!(form.write(&content, &WIDE), "No abnormality is seen.");
            assert_eq!(form.read("No abnormality is seen.", &WIDE), content, "{form:?}");
        }
        let report = Form::Maira2.read("<obj>Clear lungs.</obj><obj>Small effusion.<box><x1><y2><x3><y4></box></obj>", &WIDE);
        assert_eq!(report.groups().iter().map(|group| group.1.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn broken_boxes_are_counted_and_left_out() {
        for (form, text, boxes, unread) in [
            (Form::Anatomix, "<box>(1,2),(3,4)</box><box>(1,2),(3)</box><box>(1,2),(3,1025)</box><box>", 1, 2),
            (Form::RadVlm, "[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 1.3, 0.4], [1, 2], [a]", 1, 1),
            (Form::Maira2, "<obj>a<box><x1><y2><x3><y4></box><box><x1><y2></box><box><x1><y2><x3><y100></box>", 1, 2),
            (Form::CheXagent, "<|box|>(1,2),(3,4)<|/box|><|box|>(1,2),(3,101)<|/box|><|box|>(9<|/box|>", 1, 2),
            (Form::RaDialog, "[0.1, 0.2, 0.3, 0.4]", 0, 0),
            (
                Form::MedGemma,
                r#"[{"box_2d": [1, 2, 3, 4]}, {"box_2d": [1, 2, 3, 1001], "label": "a"}, {"box_2d": [1, 2]}, {"box_2d""#,
                1,
                2,
            ),
        ] {
            let read = form.read(text, &WIDE);
            assert_eq!((read.boxes().len(), read.unread), (boxes, unread), "{form:?} {read:?}");
        }
        // Numbers of any length and nested tags do no harm.
        for form in Form::ALL {
            let long = format!("<box>({},1),(2,3)</box>", "9".repeat(1000));
            for text in
                [long.as_str(), "<obj><obj></obj></obj></box><ref></ref>", "{\"box_2d\": [1e999, 1, 1, 1]}", "<|box|><|box|><|/box|>"]
            {
                assert!(form.read(text, &WIDE).boxes().is_empty(), "{form:?} {text}");
            }
        }
    }
}
