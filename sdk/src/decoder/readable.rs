//! From the model's text to what people read: grounding tags and coordinates are taken out while the text streams.

const BOX: &str = "<box>";
const BOX_END: &str = "</box>";
/// Tags that vanish, with what they leave behind.
const TAGS: [(&str, &str); 5] = [("<ref>", ""), ("</ref>", ""), ("<end_of_turn>", ""), ("<eos>", ""), ("</box>", "")];

/// A filter for streamed text.
#[derive(Clone, Debug, Default)]
pub struct Readable {
    pending: String,
    in_box: bool,
    /// A space that is due before more text: none is left at the end or where a box stood alone.
    space: bool,
    written: bool,
}

impl Readable {
    /// Takes a piece of the model's text and returns what can be read of it so far.
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
            } else if let Some((tag, left)) = TAGS.iter().find(|(tag, _)| self.pending.starts_with(tag)) {
                self.pending.drain(..tag.len());
                self.write(left, &mut out);
            } else if TAGS.iter().map(|t| t.0).chain([BOX]).any(|tag| tag.starts_with(self.pending.as_str())) {
                return out;
            } else {
                self.pending.remove(0);
                self.write("<", &mut out);
            }
        }
    }

    /// What is left at the end.
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

    fn of(text: &str) -> String {
        let mut filter = Readable::default();
        let mut out = filter.push(text);
        out.push_str(&filter.finish());
        out
    }

    #[test]
    fn tags_and_coordinates_vanish() {
        let text = "<ref>nodule</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box> <ref>pacemaker</ref><box>(1,1),(2,2)</box>";
        assert_eq!(of(text), "nodule pacemaker");
        assert_eq!(of("The lungs <are> clear. x < y<end_of_turn>"), "The lungs <are> clear. x < y");
        assert_eq!(of("<box>(1,2),(3"), "");
    }

    proptest! {
        #[test]
        fn streaming_gives_the_same_text(parts in prop::collection::vec("(<ref>|</ref>|<box>|</box>|[a-z <>(),0-9]{0,5})", 0..20), cut in 1usize..4) {
            let text = parts.concat();
            let mut filter = Readable::default();
            let mut streamed = String::new();
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(cut) {
                streamed.push_str(&filter.push(&piece.iter().collect::<String>()));
            }
            streamed.push_str(&filter.finish());
            prop_assert_eq!(streamed, of(&text));
        }
    }
}
