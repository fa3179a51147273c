//! What the language model reads of a study: `[models.prompt]` of a recipe.

use anatomix::{PromptForm, PromptInputs};
use anyhow::{Result, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The form of the prompt, which is the published one by default, without a system prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptConfig {
    /// What the language model reads: some of the letters V (image tokens), O (object embeddings), S (sentences) and B (boxes), in this
    /// order. The paper's ablations leave some out.
    pub inputs: PromptInputs,
    /// Whether structures are written with fewer tokens.
    pub compact: bool,
    /// Image tokens are means of squares of this many times this many patches.
    pub pool: usize,
    /// Whether a system prompt precedes the context, as published: one of several in training, the first of them in the bundle.
    pub system_prompts: bool,
}

impl Default for PromptConfig {
    fn default() -> Self {
        let PromptForm { inputs, compact, pool, .. } = PromptForm::default();
        Self { inputs, compact, pool, system_prompts: false }
    }
}

#[derive(Deserialize)]
struct Texts {
    prompts: Vec<String>,
}

/// The system prompts.
static SYSTEM: LazyLock<Vec<String>> = LazyLock::new(|| {
    let texts: Result<Texts, _> = toml::from_str(include_str!("../data/system_prompts.toml"));
    texts.map(|texts| texts.prompts).unwrap_or_default()
});

impl PromptConfig {
    /// Checks the form for a perception module with this many patches.
    ///
    /// # Errors
    /// If a part of it cannot be used; the message names it.
    pub fn check(&self, patches: i64) -> Result<()> {
        ensure!(!self.system_prompts || !SYSTEM.is_empty(), "system_prompts: there are none");
        self.form().check(usize::try_from(patches)?).map_err(|problem| anyhow::anyhow!("prompt.{problem}"))
    }

    /// The form of a bundle's prompts.
    pub fn form(&self) -> PromptForm {
        self.with(self.system_prompts.then(|| SYSTEM.first()).flatten())
    }

    /// The form of a context in training. It draws from `rng` only if there are system prompts.
    pub fn draw(&self, rng: &mut impl Rng) -> PromptForm {
        self.with(self.system_prompts.then(|| SYSTEM.choose(rng)).flatten())
    }

    fn with(&self, system: Option<&String>) -> PromptForm {
        PromptForm { inputs: self.inputs, compact: self.compact, pool: self.pool, system: system.cloned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn system_prompts_are_drawn_if_there_are_any() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let plain = PromptConfig::default();
        assert_eq!((plain.form(), plain.draw(&mut rng)), (PromptForm::default(), PromptForm::default()));
        assert_eq!(rng, ChaCha8Rng::seed_from_u64(1), "nothing was drawn");
        let config = PromptConfig { system_prompts: true, ..plain };
        config.check(64).unwrap();
        let drawn: BTreeSet<_> = (0..50).filter_map(|_| config.draw(&mut rng).system).collect();
        assert_eq!(drawn.len(), 3);
        assert_eq!(config.form().system.as_ref(), SYSTEM.first());
        for system in drawn {
            PromptForm { system: Some(system), ..PromptForm::default() }.check(64).unwrap();
        }
    }

    #[test]
    fn forms_that_cannot_be_used_are_errors_of_the_recipe() {
        let read = |text: &str| toml::from_str::<PromptConfig>(text).map_err(|e| e.to_string());
        assert!(read("inputs = \"BV\"").unwrap_err().contains("in this order"));
        assert!(read("inputs = \"\"").unwrap_err().contains("at least one"));
        assert!(read("compat = true").unwrap_err().contains("compat"));
        let pooled = read("pool = 3").unwrap().check(64).unwrap_err().to_string();
        assert!(pooled.contains("prompt.pool is 3") && pooled.contains("64 patches"), "{pooled}");
    }
}
