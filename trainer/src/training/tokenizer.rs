//! A small byte-pair tokenizer for runs without a pretrained language model.
//!
//! Each number from 0 to 1024 is one token, so that a coordinate is one token. Words are learned, and unknown characters fall back to
//! bytes. The special tokens have the first ids, the prompt's among them in the published order.

use anatomix::parts::prompt::{ADDED_TOKENS, CHAT_TOKENS};
use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer, TokenizerBuilder};

/// The character that represents a space in tokens, as in Gemma's vocabulary.
const SPACE: &str = "\u{2581}";

/// Trains a tokenizer on texts; it learns at most `pieces` pieces.
///
/// # Errors
/// If the tokenizer cannot be built.
pub fn train(texts: &[String], pieces: usize) -> Result<Tokenizer> {
    let failed = |e: tokenizers::Error| anyhow!("cannot build the tokenizer: {e}");
    let split = |pattern: SplitPattern, behavior| Split::new(pattern, behavior, false).map(PreTokenizerWrapper::Split).map_err(failed);
    let splits = Sequence::new(vec![
        split(SplitPattern::Regex("[0-9]+".into()), SplitDelimiterBehavior::Isolated)?,
        split(SplitPattern::Regex("\n".into()), SplitDelimiterBehavior::Isolated)?,
        split(SplitPattern::String(SPACE.into()), SplitDelimiterBehavior::MergedWithNext)?,
    ]);
    let mut tokenizer = TokenizerBuilder::<BPE, _, _, tokenizers::PostProcessorWrapper, tokenizers::DecoderWrapper>::new()
        .with_model(BPE::default())
        .with_normalizer(Some(Replace::new(" ", SPACE).map_err(failed)?))
        .with_pre_tokenizer(Some(splits))
        .with_post_processor(None)
        .with_decoder(None)
        .build()
        .map_err(failed)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(pieces)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet((' '..='~').filter(|c| !c.is_ascii_digit() && *c != ' ').chain(['\n', '\u{2581}']).collect())
        .build();
    // Digits are removed from the texts, because the merges of numbers are made below.
    let texts: Vec<String> = texts.iter().map(|t| t.chars().map(|c| if c.is_ascii_digit() { '\n' } else { c }).collect()).collect();
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(failed)?;

    let mut description: Value = serde_json::from_str(&tokenizer.to_string(false).map_err(failed)?)?;
    let learned: BTreeMap<u32, String> = tokenizer.get_model().get_vocab().into_iter().map(|(piece, id)| (id, piece)).collect();
    let mut vocabulary = serde_json::Map::new();
    let mut add = |piece: String| {
        let id = vocabulary.len();
        vocabulary.entry(piece).or_insert(json!(id));
    };
    let special: Vec<&str> = CHAT_TOKENS.iter().chain(ADDED_TOKENS.iter()).copied().collect();
    special.iter().for_each(|token| add(token.to_string()));
    (0..=255).for_each(|byte| add(format!("<0x{byte:02X}>")));
    (0..=1024).for_each(|number| add(number.to_string()));
    learned.into_values().for_each(&mut add);
    let mut merges: Vec<Value> = (10..=1024)
        .map(|number: u32| {
            let digits = number.to_string();
            let (head, tail) = digits.split_at(digits.len() - 1);
            json!([head, tail])
        })
        .collect();
    if let Some(own) = description["model"]["merges"].as_array() {
        merges.extend(own.iter().cloned());
    }
    let model = &mut description["model"];
    model["vocab"] = Value::Object(vocabulary);
    model["merges"] = Value::Array(merges);
    // A word that is in the vocabulary becomes one token. Merges alone would split 110 into 1 and 10.
    model["ignore_merges"] = json!(true);
    model["unk_token"] = json!("<unk>");
    model["byte_fallback"] = json!(true);
    model["fuse_unk"] = json!(true);
    description["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": SPACE }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
    ]});
    let mut tokenizer: Tokenizer = serde_json::from_value(description)?;
    let tokens: Vec<AddedToken> = special.iter().map(|t| AddedToken::from(*t, true).normalized(false)).collect();
    tokenizer.add_special_tokens(tokens).map_err(failed)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_token_and_text_survives() {
        let texts = vec!["Left lung is healthy.\nTask: <box>(12,345),(6,1024)</box>".to_string(); 4];
        let tokenizer = train(&texts, 300).unwrap();
        for number in 0..=1024 {
            let encoding = tokenizer.encode(number.to_string(), false).unwrap();
            assert_eq!(encoding.get_tokens(), [number.to_string()]);
        }
        for text in ["Left lung is healthy.\nTask: (12,345),(6,1024)", "unseen: \u{e9}\u{4e2d}\n  two  spaces 99999"] {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
        }
        let encoding = tokenizer.encode("<box>(1,2),(3,4)</box><obj_35>", false).unwrap();
        assert_eq!(encoding.get_tokens()[0], "<box>");
        assert_eq!(encoding.get_tokens().last().unwrap(), "<obj_35>");
        assert_eq!(tokenizer.token_to_id("<image>"), Some(CHAT_TOKENS.len() as u32));
    }
}
