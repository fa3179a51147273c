//! The form of the prompt: what the language model reads of a study, and how it is written. It belongs to the language model's weights.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Latest version of the prompt's format that this SDK reads. Version 1 is the published form, version 2 any [`PromptForm`].
pub const PROMPT_VERSION: u32 = 2;
/// Largest factor by which image tokens are pooled along each side.
const MAX_POOL: usize = 32;
/// Longest system prompt in bytes.
const MAX_SYSTEM: usize = 4096;

/// What the language model reads of a study. In text, in manifests and recipes, it is some of the letters of `VOSB`, in that order; the
/// paper's ablations have the same letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PromptInputs {
    /// `V`: the image tokens.
    pub image_tokens: bool,
    /// `O`: the object embedding of each structure.
    pub object_embeddings: bool,
    /// `S`: the sentence that was retrieved for each structure.
    pub sentences: bool,
    /// `B`: the box of each structure.
    pub boxes: bool,
}

impl Default for PromptInputs {
    fn default() -> Self {
        Self { image_tokens: true, object_embeddings: true, sentences: true, boxes: true }
    }
}

impl PromptInputs {
    /// Whether anything of the structures is read: what is not image tokens.
    pub(super) fn has_structures(self) -> bool {
        self.object_embeddings || self.sentences || self.boxes
    }

    fn letters(self) -> [(char, bool); 4] {
        [('V', self.image_tokens), ('O', self.object_embeddings), ('S', self.sentences), ('B', self.boxes)]
    }
}

impl fmt::Display for PromptInputs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.letters().into_iter().filter(|(_, read)| *read).try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

impl From<PromptInputs> for String {
    fn from(inputs: PromptInputs) -> Self {
        inputs.to_string()
    }
}

impl TryFrom<String> for PromptInputs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let [image_tokens, object_embeddings, sentences, boxes] = ['V', 'O', 'S', 'B'].map(|letter| text.contains(letter));
        let inputs = Self { image_tokens, object_embeddings, sentences, boxes };
        // Another order, a letter twice, or another letter.
        if text.is_empty() || inputs.to_string() != text {
            let shown: String = text.chars().take(16).collect();
            return Err(format!(
                "inputs are {shown:?}, but must be at least one of the letters V (image tokens), O (object embeddings), S (sentences) and \
                 B (boxes), in this order"
            ));
        }
        Ok(inputs)
    }
}

/// The form of the prompt. The default is the published one. `docs/bundle.md` has the text of each form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PromptForm {
    /// What the language model reads of a study: some of the letters V (image tokens), O (object embeddings), S (sentences) and B (boxes),
    /// in this order. Left out if it is all of them.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(test, schemars(with = "String", regex(pattern = "^(V?O?S?B|V?O?S|V?O|V)$")))]
    pub inputs: PromptInputs,
    /// Whether structures are written with fewer tokens: short names, boxes as four numbers, healthy structures in one line. Left out if
    /// not.
    #[serde(skip_serializing_if = "is_default")]
    pub compact: bool,
    /// Image tokens are means of squares of this many times this many patches. Left out if it is 1.
    #[serde(skip_serializing_if = "is_one")]
    #[cfg_attr(test, schemars(range(min = 1, max = 32)))]
    pub pool: usize,
    /// The system prompt, a text before the context. Left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

impl Default for PromptForm {
    fn default() -> Self {
        Self { inputs: PromptInputs::default(), compact: false, pool: 1, system: None }
    }
}

impl PromptForm {
    /// Version of the prompt's format that this form needs: 1 for the published form, so that older versions of the SDK read it.
    pub fn version(&self) -> u32 {
        if *self == Self::default() { 1 } else { PROMPT_VERSION }
    }

    /// Number of rows of visual features that the projector makes of this many patches.
    pub fn image_features(&self, patches: usize) -> usize {
        patches / self.pool.saturating_mul(self.pool).max(1)
    }

    /// Checks the form for a perception module with this many patches.
    ///
    /// # Errors
    /// A text that says which part of the form cannot be used, and why.
    pub fn check(&self, patches: usize) -> Result<(), String> {
        let pool = self.pool;
        if !(1..=MAX_POOL).contains(&pool) {
            return Err(format!("pool is {pool}, but must lie between 1 and {MAX_POOL}"));
        }
        let side = patches.isqrt();
        if pool > 1 && (side * side != patches || !side.is_multiple_of(pool)) {
            return Err(format!("pool is {pool}, but {patches} patches do not form a square whose side is a multiple of {pool}"));
        }
        match self.system.as_deref() {
            Some(system) if system.trim().is_empty() => Err("system is empty".into()),
            Some(system) if system.len() > MAX_SYSTEM => Err(format!("system has {} bytes, more than {MAX_SYSTEM}", system.len())),
            _ => Ok(()),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_letters_in_one_order() {
        for subset in 1..16 {
            let text: String = "VOSB".chars().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, letter)| letter).collect();
            assert_eq!(PromptInputs::try_from(text.clone()).unwrap().to_string(), text);
        }
        for text in ["", "BV", "VV", "VX", "v", "VOSBV", "V "] {
            assert!(PromptInputs::try_from(text.to_string()).unwrap_err().contains("in this order"), "{text:?}");
        }
    }

    #[test]
    fn the_published_form_leaves_no_trace() {
        let form: PromptForm = serde_json::from_str("{}").unwrap();
        assert_eq!((form == PromptForm::default(), form.version(), serde_json::to_string(&form).unwrap().as_str()), (true, 1, "{}"));
        let text = r#"{"inputs":"VB","compact":true,"pool":2,"system":"Read it."}"#;
        let form: PromptForm = serde_json::from_str(text).unwrap();
        assert_eq!((serde_json::to_string(&form).unwrap().as_str(), form.version(), form.image_features(64)), (text, 2, 16));
    }

    #[test]
    fn forms_that_cannot_be_used() {
        let pooled = |pool| PromptForm { pool, ..PromptForm::default() };
        for (form, patches, words) in [
            (pooled(0), 64, "pool is 0"),
            (pooled(33), 64, "pool is 33"),
            (pooled(usize::MAX), 64, "between 1 and 32"),
            (pooled(3), 64, "64 patches do not form a square"),
            (pooled(2), 32, "32 patches do not form a square"),
            (PromptForm { system: Some("\n ".into()), ..PromptForm::default() }, 64, "system is empty"),
            (PromptForm { system: Some("x".repeat(4097)), ..PromptForm::default() }, 64, "4097 bytes"),
        ] {
            let error = form.check(patches).unwrap_err();
            assert!(error.contains(words), "{form:?}: {error}");
        }
        assert_eq!((pooled(4).check(64), pooled(1).check(63)), (Ok(()), Ok(())));
    }
}
