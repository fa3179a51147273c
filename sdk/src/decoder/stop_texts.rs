//! Stop texts.

/// Looks for stop texts while the text of an answer streams, and holds text back that may be the beginning of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Looks for these texts. Empty ones are ignored.
    pub fn new(texts: &[String]) -> Self {
        Self { texts: texts.iter().filter(|text| !text.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Appends a piece. Returns the text that is certain by now, and whether the answer ends after it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(end) = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(end);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |at: usize| self.texts.iter().any(|text| text.starts_with(&self.held[at..]));
        let certain = self.held.char_indices().map(|(at, _)| at).find(|&at| begins(at)).unwrap_or(self.held.len());
        (self.held.drain(..certain).collect(), false)
    }

    /// The text that is still held back at the end of the answer.
    pub fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(texts: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stop_texts = StopTexts::new(&texts.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        let mut out = Vec::new();
        for piece in pieces {
            let (certain, ends) = stop_texts.push(piece);
            out.push(certain);
            if ends {
                return (out, true);
            }
        }
        out.push(stop_texts.finish());
        (out, false)
    }

    #[test]
    fn the_first_occurrence_ends_the_answer() {
        assert_eq!(
            run(&["Impression"], &["Clear. ", "Impr", "ession: none"]),
            (vec!["Clear. ".into(), String::new(), String::new()], true)
        );
        assert_eq!(run(&["b", "a"], &["xxaab"]), (vec!["xx".into()], true));
        assert_eq!(run(&["é."], &["caf", "é", "."]), (vec!["caf".into(), String::new(), String::new()], true));
    }

    #[test]
    fn text_that_only_begins_like_a_stop_text_is_returned() {
        assert_eq!(run(&["Impression"], &["an Impr", "int"]), (vec!["an ".into(), "Imprint".into(), String::new()], false));
        assert_eq!(run(&["."], &["a"]), (vec!["a".into(), String::new()], false));
        assert_eq!(run(&["aab"], &["aa", "a", "a"]), (vec![String::new(), "a".into(), "a".into(), "aa".into()], false));
        assert_eq!(run(&["", "ab"], &["a"]), (vec![String::new(), "a".into()], false));
    }
}
