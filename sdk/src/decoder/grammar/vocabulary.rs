//! The text of each token, as decoding it gives it.

use crate::prompt::PromptTokenizer;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use std::collections::HashMap;
use std::sync::Arc;
use tokenizers::{DecoderWrapper, Tokenizer};

/// Longer tokens stay out of answers.
const LONGEST: usize = 512;
/// What all tokens together may have, in bytes: the index counts its nodes in 22 bits.
const MOST: usize = (1 << 22) - 2;
/// Stands for a space where tokens were made of sentences.
const SPACE: &str = "\u{2581}";

/// How a decoder reads bytes out of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    /// A character for each byte.
    level: bool,
    /// `<0x0A>` is a byte.
    fallback: bool,
}

impl Bytes {
    fn of(decoder: &DecoderWrapper) -> Self {
        match decoder {
            DecoderWrapper::ByteLevel(_) => Self { level: true, fallback: false },
            DecoderWrapper::ByteFallback(_) => Self { level: false, fallback: true },
            DecoderWrapper::Sequence(all) => all
                .get_decoders()
                .iter()
                .map(Self::of)
                .fold(Self::default(), |a, b| Self { level: a.level || b.level, fallback: a.fallback || b.fallback }),
            _ => Self::default(),
        }
    }
}

/// The text of the first `size` tokens; nothing for controls, and where there is no token.
pub(super) fn of(tokenizer: &PromptTokenizer, size: usize) -> Vec<Vec<u8>> {
    let mut texts = vec![Vec::new(); size];
    let inner: &Tokenizer = tokenizer.inner();
    let bytes = inner.get_decoder().map(Bytes::of).unwrap_or_default();
    let characters = if bytes.level { characters() } else { HashMap::new() };
    for (token, id) in inner.get_vocab(true) {
        if let Some(text) = texts.get_mut(id as usize) {
            *text = read(&token, bytes, &characters);
        }
    }
    for id in tokenizer.controls().into_keys() {
        if let Some(text) = texts.get_mut(id as usize) {
            text.clear();
        }
    }
    texts
}

fn read(token: &str, bytes: Bytes, characters: &HashMap<char, u8>) -> Vec<u8> {
    if bytes.level {
        return token.chars().map(|c| characters.get(&c).copied()).collect::<Option<_>>().unwrap_or_else(|| token.into());
    }
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| bytes.fallback && hex.len() == 2);
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into(),
    }
}

/// The characters that stand for bytes: printable ones for themselves, the others, in their order, from U+0100 on.
fn characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255).filter(|&byte| !printable(byte)).zip('\u{100}'..).map(|(byte, c)| (c, byte));
    (0..=255).filter(|&byte| printable(byte)).map(|byte| (char::from(byte), byte)).chain(others).collect()
}

/// Tokens by their text, for finding which may come next.
pub(super) fn index(mut texts: Vec<Vec<u8>>, end: u32) -> Result<TokEnv, String> {
    texts.iter_mut().filter(|text| text.len() > LONGEST).for_each(Vec::clear);
    let bytes: usize = texts.iter().map(Vec::len).sum();
    if bytes > MOST || texts.len() > MOST {
        return Err(format!("{} tokens of {bytes} bytes are too many", texts.len()));
    }
    if end as usize >= texts.len() {
        return Err(format!("the token {end}, which ends a turn, is not among {}", texts.len()));
    }
    // It has no text, so nothing else can be taken for it.
    texts[end as usize].clear();
    let trie = TokTrie::from(&TokRxInfo::new(texts.len() as u32, end), &texts);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_decoders_read_them() {
        let none = HashMap::new();
        let fallback = Bytes { level: false, fallback: true };
        assert_eq!(read("\u{2581}left\u{2581}lung", fallback, &none), b" left lung");
        assert_eq!(read("<0xE2>", fallback, &none), [0xE2]);
        assert_eq!(read("<0xE2>", Bytes::default(), &none), b"<0xE2>");
        assert_eq!(read("<0xE22>", fallback, &none), b"<0xE22>");
        let (level, all) = (Bytes { level: true, fallback: false }, characters());
        assert_eq!(all.len(), 256);
        // Of GPT-2's vocabulary: space, line break, and two bytes of three.
        assert_eq!(read("Ġlung", level, &all), b" lung");
        assert_eq!(read("Ċ", level, &all), b"\n");
        assert_eq!(read("âĢ", level, &all), [0xE2, 0x80]);
        assert_eq!(read("<|end▁|>", level, &all), "<|end▁|>".as_bytes());
    }

    #[test]
    fn vocabularies_that_cannot_be_indexed_are_refused() {
        assert!(index(vec![b"a".to_vec(), Vec::new()], 1).is_ok());
        assert!(index(vec![b"a".to_vec()], 1).is_err());
        assert!(index(vec![vec![b'a'; 500]; 10_000], 0).is_err());
        assert!(index(vec![vec![b'a'; 5_000_000], Vec::new()], 1).is_ok(), "left out");
    }
}
