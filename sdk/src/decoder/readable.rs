//! Removes grounding tags and coordinates from the text of an answer while it streams.

const BOX: &str = "<box>";
const BOX_END: &str = "</box>";
/// Tags that are removed; the text between them stays.
const TAGS: [&str; 5] = ["<ref>", "</ref>", "<end_of_turn>", "<eos>", "</box>"];

/// A filter that turns the model's text into the text without tags and coordinates.
#[derive(Clone, Debug, Default)]
pub struct Readable {
    /// Text that may be the beginning of a tag.
    pending: String,
    in_box: bool,
    /// Whether a space precedes the next character. Spaces at the beginning, at the end and around removed tags are not doubled.
    space: bool,
    /// Whether a character was written.
    written: bool,
}

impl Readable {
    /// Appends a piece of the model's text and returns the text that is certain by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.pending.push_str(piece);
        let mut out = String::new();
        loop {
            if self.in_box {
                let Some(end) = self.pending.find(BOX_END) else { return out };
                self.pending.drain(..end + BOX_END.len());
                self.in_box = false;
                continue;
            }
            let Some(start) = self.pending.find('<') else {
                let text = std::mem::take(&mut self.pending);
                self.write(&text, &mut out);
                return out;
            };
            let text: String = self.pending.drain(..start).collect();
            self.write(&text, &mut out);
            if self.pending.starts_with(BOX) {
                self.pending.drain(..BOX.len());
                self.in_box = true;
            } else if let Some(tag) = TAGS.iter().find(|tag| self.pending.starts_with(**tag)) {
                self.pending.drain(..tag.len());
            } else if TAGS.into_iter().chain([BOX]).any(|tag| tag.starts_with(self.pending.as_str())) {
                return out;
            } else {
                self.pending.remove(0);
                self.write("<", &mut out);
            }
        }
    }

    /// The text that is still held back at the end of the answer.
    pub fn finish(mut self) -> String {
        let mut out = String::new();
        if !self.in_box {
            let text = std::mem::take(&mut self.pending);
            self.write(&text, &mut out);
        }
        out
    }

    fn write(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            if c == ' ' {
                self.space = true;
                continue;
            }
            if std::mem::take(&mut self.space) && self.written {
                out.push(' ');
            }
            out.push(c);
            self.written = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readable;
    use proptest::prelude::*;

    fn filtered(text: &str) -> String {
        let mut filter = Readable::default();
        let mut out = filter.push(text);
        out.push_str(&filter.finish());
        out
    }

    #[test]
    fn tags_and_coordinates_are_removed() {
        let text = "<ref>nodule</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box> <ref>pacemaker</ref><box>(1,1),(2,2)</box>";
        assert_eq!(filtered(text), "nodule pacemaker");
        assert_eq!(filtered("The lungs <are> clear. x < y<end_of_turn>"), "The lungs <are> clear. x < y");
        assert_eq!(filtered("<box>(1,2),(3"), "");
    }

    proptest! {
        #[test]
        fn streaming_gives_the_same_text(
            parts in prop::collection::vec("(<ref>|</ref>|<box>|</box>|[a-z <>(),0-9]{0,5})", 0..20),
            cut in 1usize..4,
        ) {
            let text = parts.concat();
            let mut filter = Readable::default();
            let mut streamed = String::new();
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(cut) {
                streamed.push_str(&filter.push(&piece.iter().collect::<String>()));
            }
            streamed.push_str(&filter.finish());
            prop_assert_eq!(streamed, filtered(&text));
        }
    }
}
