//! Foreign text in messages: what files and dependencies say.

/// Largest number of characters of a foreign text in a message.
const MAX_LENGTH: usize = 240;

/// The text on one line and cut to 240 characters, for a message: a dependency's error about a damaged file may quote the whole file.
/// Control characters, and those that change the direction of text, are written as `\u{1b}` and the like.
pub(crate) fn brief(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    let words = text.split_whitespace().enumerate();
    let characters = words.flat_map(|(index, word)| (index > 0).then_some(' ').into_iter().chain(word.chars()));
    let mut line: Vec<char> = characters.flat_map(harmless).take(MAX_LENGTH + 1).collect();
    if line.len() > MAX_LENGTH {
        line.truncate(MAX_LENGTH - 3);
        line.extend("...".chars());
    }
    line.into_iter().collect()
}

/// The text with control characters, and those that change the direction of text, written as `\u{1b}` and the like.
#[cfg(feature = "capi")]
pub(crate) fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(controls_terminal) { text.chars().flat_map(harmless).collect::<String>().into() } else { text.into() }
}

/// Whether this character may control a terminal, or change the order in which the characters after it are shown.
pub fn controls_terminal(character: char) -> bool {
    let is_direction = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || is_direction
}

/// The character, or its escape sequence if it may control a terminal.
fn harmless(character: char) -> impl Iterator<Item = char> {
    let controls_terminal = controls_terminal(character);
    let escaped = controls_terminal.then(|| character.escape_default());
    (!controls_terminal).then_some(character).into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn long_texts_are_cut_and_lines_joined() {
        assert_eq!(brief("one\n  two\tthree "), "one two three");
        assert_eq!(brief("é".repeat(240)), "é".repeat(240));
        for long in ["é".repeat(300_000), "no good ".repeat(100_000), "\u{1b}".repeat(300_000)] {
            let brief = brief(long);
            assert!(brief.chars().count() == 240 && brief.ends_with("..."), "{brief}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(brief("a\u{1b}[31m\rb \u{202e}c \u{7f}"), r"a\u{1b}[31m b \u{202e}c \u{7f}");
    }
}
