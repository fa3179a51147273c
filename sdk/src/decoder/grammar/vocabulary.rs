//! The text of each token of the vocabulary, as decoding gives it.

use crate::prompt::PromptTokenizer;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use std::collections::HashMap;
use std::sync::Arc;
use tokenizers::{DecoderWrapper, Tokenizer};

/// Longest token in bytes. Answers do not contain longer ones.
const MAX_TOKEN: usize = 512;
/// Largest number of bytes of all tokens together. The index numbers its nodes with 22 bits.
const MAX_BYTES: usize = (1 << 22) - 2;
/// Stands for a space in SentencePiece vocabularies.
const SPACE: &str = "\u{2581}";

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    /// Each character of a token stands for a byte (byte-level BPE).
    level: bool,
    /// A token such as `<0x0A>` stands for a byte (byte fallback).
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

/// The texts of the first `size` tokens. They are empty for control tokens and for ids without a token.
pub(super) fn texts(tokenizer: &PromptTokenizer, size: usize) -> Vec<Vec<u8>> {
    let mut texts = vec![Vec::new(); size];
    let inner: &Tokenizer = tokenizer.inner();
    let bytes = inner.get_decoder().map(Bytes::of).unwrap_or_default();
    let characters = if bytes.level { characters() } else { HashMap::new() };
    for (token, id) in inner.get_vocab(true) {
        if let Some(text) = texts.get_mut(id as usize) {
            *text = read(&token, bytes, &characters);
        }
    }
    for id in tokenizer.control_tokens().into_keys() {
        if let Some(text) = texts.get_mut(id as usize) {
            text.clear();
        }
    }
    texts
}

/// The text of a token.
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

/// The byte that each character stands for in byte-level BPE: printable characters stand for themselves, and characters from U+0100 on for
/// the other bytes in ascending order.
fn characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255).filter(|&byte| !printable(byte)).zip('\u{100}'..).map(|(byte, c)| (c, byte));
    (0..=255).filter(|&byte| printable(byte)).map(|byte| (char::from(byte), byte)).chain(others).collect()
}

/// An index of tokens by their text; `end` is the token that ends a turn.
///
/// # Errors
/// If there are too many tokens or bytes, or `end` is not among the tokens.
pub(super) fn index(mut texts: Vec<Vec<u8>>, end: u32) -> Result<TokEnv, String> {
    texts.iter_mut().filter(|text| text.len() > MAX_TOKEN).for_each(Vec::clear);
    let bytes: usize = texts.iter().map(Vec::len).sum();
    if bytes > MAX_BYTES || texts.len() > MAX_BYTES {
        return Err(format!("{} tokens of {bytes} bytes are too many", texts.len()));
    }
    if end as usize >= texts.len() {
        return Err(format!("the token {end}, which ends a turn, is not among {}", texts.len()));
    }
    // The end of a turn has no text, so that no text can be mistaken for it.
    texts[end as usize].clear();
    let trie = TokTrie::from(&TokRxInfo::new(texts.len() as u32, end), &texts);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_decoding_gives() {
        let none = HashMap::new();
        let fallback = Bytes { level: false, fallback: true };
        assert_eq!(read("\u{2581}left\u{2581}lung", fallback, &none), b" left lung");
        assert_eq!(read("<0xE2>", fallback, &none), [0xE2]);
        assert_eq!(read("<0xE2>", Bytes::default(), &none), b"<0xE2>");
        assert_eq!(read("<0xE22>", fallback, &none), b"<0xE22>");
        let (level, all) = (Bytes { level: true, fallback: false }, characters());
        assert_eq!(all.len(), 256);
        // From GPT-2's vocabulary: a space, a line break, and two of the three bytes of a character.
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
        assert!(index(vec![vec![b'a'; 5_000_000], Vec::new()], 1).is_ok(), "a token that is too long is left out");
    }
}
