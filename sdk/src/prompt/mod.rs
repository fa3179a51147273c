//! The multimodal prompt (paper, figure S1), as text and as tokens.
//!
//! ```text
//! <bos><start_of_turn>user
//! Image:
//!
//! <image_start><image>...<image_end>                                      P times <image>
//!
//!
//! Likely findings:
//! emb:<emb><obj_0></emb> box:<box>(x0,y0),(x1,y1)</box> SENTENCE          36 lines        } context
//! Task: QUESTION<end_of_turn>                                                             } question
//! <start_of_turn>model
//! ```
//! A space follows `Image:`. All questions on a study share the context. It is tokenized and prefilled once, and questions are tokenized
//! apart from it. That is the published form; a [`PromptForm`] describes any other.

mod context;
mod form;
mod tokens;

pub use context::{ContextLine, grounded_text, line_text};
pub use form::{PROMPT_VERSION, PromptForm, PromptInputs};
pub use tokens::{ADDED_TOKENS, CHAT_TOKENS, OBJECT_TOKENS};

use crate::anatomy::STRUCTURE_COUNT;
use crate::cause::{Source, advice, caught};
use crate::files;
use context::context_text;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The only added tokens that a question may contain: the tags of groundings.
const GROUNDING_TOKENS: [&str; 4] = ["<box>", "</box>", "<ref>", "</ref>"];
/// Largest accepted tokenizer in bytes.
pub(crate) const MAX_TOKENIZER: u64 = 256 << 20;
/// Longest question in bytes.
const MAX_QUESTION: usize = 8192;

/// Errors of a tokenizer or a question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum PromptError {
    #[error("cannot read {path}; {}", advice(.source, "check that the bundle is complete and readable"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{name} cannot be used as a tokenizer; restore it from the bundle's source")]
    Tokenizer { name: String, source: Source },
    #[error("{name} lacks the token {token}; export the bundle again with the tokenizer that its weights were trained with")]
    MissingToken { name: String, token: String },
    #[error("the question contains the control token {token}; remove it")]
    ControlToken { token: String },
    #[error("the system prompt in the bundle's manifest contains the control token {token}; export the bundle with another system prompt")]
    SystemPrompt { token: String },
    #[error("the box {found:?} in the question is invalid; write <box>(x0,y0),(x1,y1)</box> in pixels of the {width}x{height} image")]
    Box { found: String, width: u32, height: u32 },
    #[error("the question is empty; write one or name a task that needs none")]
    EmptyQuestion,
    #[error("the question has {length} bytes, more than {MAX_QUESTION}; shorten it")]
    LongQuestion { length: usize },
    #[error("the text cannot be tokenized; rephrase it, or export the bundle again")]
    Encode { source: Source },
}

/// The tokens of a study's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextTokens {
    /// Token ids.
    pub ids: Vec<i64>,
    /// For each token, the row of the visual features that replaces its embedding, or -1 for a text token. With `n` image features, rows 0
    /// to `n - 1` are those; row `n + i` is structure `i`.
    pub visual_index: Vec<i64>,
}

/// The language model's tokenizer. It is known to have all tokens of the prompt.
#[derive(Clone, Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    image: u32,
    objects: Vec<u32>,
    end_of_turn: u32,
}

impl PromptTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read or parsed, or a token of the prompt is missing.
    pub fn open(path: &Path) -> Result<Self, PromptError> {
        let bytes = files::read(path, MAX_TOKENIZER).map_err(|source| PromptError::Read { path: path.into(), source })?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Parses the bytes of a `tokenizer.json`; `name` is its name in error messages.
    ///
    /// # Errors
    /// As [`PromptTokenizer::open`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, PromptError> {
        // The library can panic on a damaged file.
        let tokenizer = caught(|| Tokenizer::from_bytes(bytes)).map_err(|source| PromptError::Tokenizer { name: name.into(), source })?;
        let id =
            |token: &str| tokenizer.token_to_id(token).ok_or_else(|| PromptError::MissingToken { name: name.into(), token: token.into() });
        for token in ADDED_TOKENS.iter().chain(&["<bos>", "<start_of_turn>"]) {
            id(token)?;
        }
        let objects = OBJECT_TOKENS.iter().map(|t| id(t)).collect::<Result<_, _>>()?;
        Ok(Self { image: id("<image>")?, end_of_turn: id("<end_of_turn>")?, objects, tokenizer })
    }

    /// Maps the spellings of a word to one token: the token of the word in lower case without a leading space, or `token` itself if the
    /// vocabulary has no such token. Returns `None` for tags, numbers and punctuation.
    pub fn word(&self, token: i64) -> Option<i64> {
        let text = self.tokenizer.id_to_token(u32::try_from(token).ok()?)?;
        let bare = text.trim_start_matches([' ', '\u{2581}', '\u{120}']);
        if !bare.starts_with(char::is_alphabetic) {
            return None;
        }
        Some(self.tokenizer.token_to_id(&bare.to_lowercase()).map_or(token, i64::from))
    }

    /// Tokenizes the context of a study in this form. `image_features` is the number of rows of visual features that the image has
    /// ([`PromptForm::image_features`]), each of which is an image token if the form has any.
    ///
    /// # Errors
    /// If the system prompt contains a control token, or a sentence cannot be tokenized.
    pub fn context(&self, form: &PromptForm, lines: &[ContextLine], image_features: usize) -> Result<ContextTokens, PromptError> {
        if let Some(token) = form.system.as_deref().and_then(|system| self.control_token(system)) {
            return Err(PromptError::SystemPrompt { token });
        }
        let ids = self.encode(&context_text(form, lines, image_features))?;
        let mut feature = -1;
        let visual_index = ids
            .iter()
            .map(|&id| {
                if id == i64::from(self.image) {
                    feature += 1;
                    return feature;
                }
                let object = self.objects.iter().position(|&o| i64::from(o) == id);
                object.map_or(-1, |i| (image_features + i) as i64)
            })
            .collect();
        Ok(ContextTokens { ids, visual_index })
    }

    /// Tokenizes a question: all tokens between the context and the first one of the answer.
    ///
    /// # Errors
    /// If the question is empty, has more than 8,192 bytes, or contains a control token other than the tags of groundings.
    pub fn question(&self, question: &str) -> Result<Vec<i64>, PromptError> {
        self.encode(&question_text(self.check(question)?))
    }

    /// Tokenizes a follow-up question: all tokens between the previous answer's end of turn and the first one of the next answer.
    ///
    /// # Errors
    /// As [`PromptTokenizer::question`].
    pub fn follow_up(&self, question: &str) -> Result<Vec<i64>, PromptError> {
        self.encode(&format!("\n<start_of_turn>user{}", question_text(self.check(question)?)))
    }

    fn check<'a>(&self, question: &'a str) -> Result<&'a str, PromptError> {
        let question = question.trim();
        if question.is_empty() {
            return Err(PromptError::EmptyQuestion);
        }
        if question.len() > MAX_QUESTION {
            return Err(PromptError::LongQuestion { length: question.len() });
        }
        self.control_token(question).map_or(Ok(question), |token| Err(PromptError::ControlToken { token }))
    }

    /// The first control token in a text; see [`PromptTokenizer::control_tokens`].
    fn control_token(&self, text: &str) -> Option<String> {
        let found = self.control_tokens().into_values().filter(|token| text.contains(token.as_str()));
        found.min_by_key(|token| text.find(token.as_str()))
    }

    /// Control tokens, by id, that neither a question nor a constrained answer may contain: all but the tags of groundings.
    pub(crate) fn control_tokens(&self) -> BTreeMap<u32, String> {
        // Gemma's added tokens include plain text such as line breaks, which are not special and are allowed.
        let added = self.tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
        let named = ADDED_TOKENS.iter().chain(&CHAT_TOKENS).filter_map(|name| Some((self.id(name)?, (*name).to_string())));
        added.map(|(id, token)| (id, token.content)).chain(named).filter(|(_, token)| !GROUNDING_TOKENS.contains(&token.as_str())).collect()
    }

    /// Tokenizes an answer and its end of turn, as a training target.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn answer(&self, answer: &str) -> Result<Vec<i64>, PromptError> {
        self.encode(&format!("{answer}<end_of_turn>"))
    }

    /// The token that ends the model's turn.
    pub fn end_of_turn(&self) -> u32 {
        self.end_of_turn
    }

    /// The id of a token; `None` if the vocabulary lacks it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The underlying tokenizer.
    pub(crate) fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn encode(&self, text: &str) -> Result<Vec<i64>, PromptError> {
        let encoding = caught(|| self.tokenizer.encode_fast(text, false)).map_err(|source| PromptError::Encode { source })?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

fn question_text(question: &str) -> String {
    format!("\nTask: {question}<end_of_turn>\n<start_of_turn>model\n")
}

const _: () = assert!(OBJECT_TOKENS.len() == STRUCTURE_COUNT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_added_tokens_are_no_control_tokens() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle/tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(path).unwrap();
        // In Gemma's tokenizer a line break is an added token, but not a special one.
        tokenizer.add_tokens([tokenizers::AddedToken::from("\n\n", false), tokenizers::AddedToken::from("<b>", false)]).unwrap();
        tokenizer.add_special_tokens([tokenizers::AddedToken::from("<start_of_image>", true)]).unwrap();
        let tokenizer = PromptTokenizer::from_bytes(tokenizer.to_string(false).unwrap().as_bytes(), "tokenizer").unwrap();
        assert!(tokenizer.question("Is it <b>clear</b>?\n\nAnd the <ref>heart</ref>?").is_ok());
        for refused in ["<start_of_image>", "<start_of_turn>", "<obj_3>", "<eos>"] {
            let error = tokenizer.question(&format!("a {refused} b")).unwrap_err().to_string();
            assert!(error.contains(refused), "{error}");
        }
    }
}
