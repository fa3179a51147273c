//! Text that comes from outside and goes into a message.

/// Most characters of a foreign text in a message.
const LONGEST: usize = 240;

/// A text on one line and of at most 240 characters, for a message. What a library says about a damaged file may quote the whole file.
pub(crate) fn brief(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.chars().count() > LONGEST {
            return line.chars().take(LONGEST - 3).chain("...".chars()).collect();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn long_texts_are_cut_and_lines_joined() {
        assert_eq!(brief("one\n  two\tthree "), "one two three");
        assert_eq!(brief("é".repeat(240)), "é".repeat(240));
        for long in ["é".repeat(300_000), "no good ".repeat(100_000)] {
            let brief = brief(long);
            assert!(brief.chars().count() == 240 && brief.ends_with("..."), "{brief}");
        }
    }
}
