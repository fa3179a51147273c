//! Import of tokenizers: the language model's, to which the prompt's tokens are added, and the sentence encoder's, which is not changed.

use super::checkpoint::{bytes, json};
use super::error::ImportError;
use anatomix::parts::prompt::{ADDED_TOKENS, CHAT_TOKENS};
use serde::Deserialize;
use std::path::Path;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer, TruncationParams};

/// Reads the language model's tokenizer and adds the prompt's 45 tokens after its own, in the published order.
pub(super) fn language_tokenizer(folder: &Path) -> Result<Tokenizer, ImportError> {
    let path = folder.join("tokenizer.json");
    let mut tokenizer = read(&path)?;
    let missing: Vec<&str> = CHAT_TOKENS.into_iter().filter(|token| tokenizer.token_to_id(token).is_none()).collect();
    if !missing.is_empty() {
        return Err(ImportError::unsupported(&path, format!("a tokenizer without {}, which a Gemma chat needs", missing.join(", "))));
    }
    let added = ADDED_TOKENS.into_iter().map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer.add_special_tokens(added).map_err(|e| ImportError::file(&path, e))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| ImportError::file(&path, e))?;
    Ok(tokenizer)
}

/// Reads the chat template of a model, from any of the files that may hold it.
///
/// # Errors
/// If the template does not write Gemma's turns, which the prompt consists of.
pub(super) fn chat_template(folder: &Path) -> Result<Option<String>, ImportError> {
    #[derive(Deserialize)]
    struct Holder {
        #[serde(default)]
        chat_template: Option<serde_json::Value>,
    }
    let file = |name: &str| folder.join(name);
    let mut found = None;
    if file("chat_template.jinja").exists() {
        let text = bytes(&file("chat_template.jinja"))?;
        found = Some(String::from_utf8(text).map_err(|e| ImportError::file(&file("chat_template.jinja"), e))?);
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        if found.is_none() && file(name).exists() {
            let holder: Holder = json(&file(name))?;
            found = holder.chat_template.and_then(|template| template.as_str().map(String::from));
        }
    }
    if let Some(template) = &found
        && !(template.contains("<start_of_turn>") && template.contains("<end_of_turn>"))
    {
        return Err(ImportError::unsupported(folder, "a chat template without <start_of_turn> and <end_of_turn>, which the prompt needs"));
    }
    Ok(found)
}

/// Reads a BERT model's tokenizer from `tokenizer.json`, or builds it from `vocab.txt` as transformers does. It truncates sentences to
/// `positions` tokens.
pub(super) fn sentence_tokenizer(folder: &Path, positions: usize) -> Result<Tokenizer, ImportError> {
    let path = folder.join("tokenizer.json");
    let mut tokenizer = if path.exists() { read(&path)? } else { from_vocabulary(folder)? };
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: positions.max(8), ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|e| ImportError::file(&path, e))?;
    Ok(tokenizer)
}

fn from_vocabulary(folder: &Path) -> Result<Tokenizer, ImportError> {
    #[derive(Deserialize)]
    #[serde(default)]
    struct Settings {
        do_lower_case: bool,
        tokenize_chinese_chars: bool,
        strip_accents: Option<bool>,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
        }
    }
    let path = folder.join("vocab.txt");
    if !path.exists() {
        return Err(ImportError::file(folder, "it holds neither tokenizer.json nor vocab.txt; put the encoder's tokenizer beside it"));
    }
    let settings_path = folder.join("tokenizer_config.json");
    let settings: Settings = if settings_path.exists() { json(&settings_path)? } else { Settings::default() };
    let failed = |e: tokenizers::Error| ImportError::file(&path, e);
    let vocabulary = WordPiece::read_bytes(&bytes(&path)?).map_err(failed)?;
    let id = |token: &str| vocabulary.get(token).copied().ok_or_else(|| ImportError::file(&path, format!("it lacks {token}")));
    let (separator, class) = (("[SEP]".to_string(), id("[SEP]")?), ("[CLS]".to_string(), id("[CLS]")?));
    id("[UNK]")?;
    let special: Vec<&str> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().filter(|token| vocabulary.contains_key(*token)).collect();
    let model = WordPiece::builder().vocab(vocabulary.clone()).unk_token("[UNK]".into()).build().map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    let normalizer = BertNormalizer::new(true, settings.tokenize_chinese_chars, settings.strip_accents, settings.do_lower_case);
    tokenizer.with_normalizer(Some(normalizer)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(separator, class)));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    tokenizer.add_special_tokens(special.into_iter().map(|token| AddedToken::from(token, true))).map_err(failed)?;
    Ok(tokenizer)
}

fn read(path: &Path) -> Result<Tokenizer, ImportError> {
    Tokenizer::from_bytes(bytes(path)?).map_err(|e| ImportError::file(path, e))
}

/// Number of rows that an embedding table needs: one more than the largest token id.
pub(super) fn rows(tokenizer: &Tokenizer) -> i64 {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |largest| i64::from(largest) + 1)
}

/// Checks that the model has a row for each token.
pub(super) fn check_rows(folder: &Path, tokenizer: &Tokenizer, vocabulary: i64) -> Result<(), ImportError> {
    if rows(tokenizer) > vocabulary { Err(other_model(folder, tokenizer, vocabulary)) } else { Ok(()) }
}

/// The error for a tokenizer of another model, with token ids beyond the rows of this one.
pub(super) fn other_model(folder: &Path, tokenizer: &Tokenizer, vocabulary: i64) -> ImportError {
    let last = rows(tokenizer) - 1;
    let message = format!("its tokenizer has tokens up to {last}, but its model has {vocabulary} rows; they do not belong together");
    ImportError::file(folder, message)
}
