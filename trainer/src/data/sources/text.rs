//! Texts of data sets.

use super::files::shown;
use anatomix::parts::prompt::{ADDED_TOKENS, CHAT_TOKENS};

/// The text with single spaces between words and none around it. Line breaks become spaces.
///
/// # Errors
/// A message, if the text is empty or contains a token that has a meaning in the prompt.
pub fn plain(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = words.join(" ");
    if plain.is_empty() {
        return Err("a text is empty".into());
    }
    match ADDED_TOKENS.iter().chain(&CHAT_TOKENS).find(|token| plain.contains(**token)) {
        Some(token) => Err(format!("{} contains {token}", shown(&plain))),
        None => Ok(plain),
    }
}

/// The items with " and " between them, as the published sentences have it.
pub fn joined(items: &[&str]) -> String {
    items.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_prompt_are_refused() {
        assert_eq!(plain("  a\n b < c ").unwrap(), "a b < c");
        for bad in ["", " \n", "x<end_of_turn>", "<box>(1,2)", "see <obj_3>"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
