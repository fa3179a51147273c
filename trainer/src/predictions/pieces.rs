//! The content of an answer, whatever form it was written in.

use anatomix::PixelBox;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Words without a place in the image.
    Text(String),
    /// A phrase that the boxes after it belong to.
    Phrase(String),
    /// A box in pixels of the image.
    Bounds(PixelBox),
}

/// The content of an answer or a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Its parts in order.
    pub pieces: Vec<Piece>,
    /// Number of boxes that could not be read.
    pub unread: usize,
}

impl Content {
    /// Adds words; without any, nothing.
    pub(super) fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text.into()));
        }
    }

    /// Adds a phrase; without words, nothing.
    pub(super) fn phrase(&mut self, phrase: &str) {
        let phrase = phrase.trim();
        if !phrase.is_empty() {
            self.pieces.push(Piece::Phrase(phrase.into()));
        }
    }

    /// Adds a box, or counts one that could not be read.
    pub(super) fn bounds(&mut self, bounds: Option<PixelBox>) {
        match bounds {
            Some(bounds) => self.pieces.push(Piece::Bounds(bounds)),
            None => self.unread += 1,
        }
    }

    /// The words without boxes, with single spaces in each line.
    pub fn words(&self) -> String {
        let mut words = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) | Piece::Phrase(text) => words += text,
                // Words before and after a box stay apart.
                Piece::Bounds(_) => words.push(' '),
            }
        }
        let lines = words.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n").trim().into()
    }

    /// All boxes.
    pub fn boxes(&self) -> Vec<PixelBox> {
        self.pieces.iter().filter_map(|piece| if let Piece::Bounds(bounds) = piece { Some(*bounds) } else { None }).collect()
    }

    /// The phrases with their boxes; boxes before the first phrase have an empty one.
    pub fn groups(&self) -> Vec<(&str, Vec<PixelBox>)> {
        let mut groups: Vec<(&str, Vec<PixelBox>)> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(_) => {}
                Piece::Phrase(phrase) => groups.push((phrase, Vec::new())),
                Piece::Bounds(bounds) => match groups.last_mut() {
                    Some((_, boxes)) => boxes.push(*bounds),
                    None => groups.push(("", vec![*bounds])),
                },
            }
        }
        groups
    }

    /// The same with other boxes.
    pub fn map_boxes(mut self, map: impl Fn(&PixelBox) -> PixelBox) -> Self {
        for piece in &mut self.pieces {
            if let Piece::Bounds(bounds) = piece {
                *bounds = map(bounds);
            }
        }
        self
    }
}
