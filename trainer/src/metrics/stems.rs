//! Porter's stemmer as NLTK has it.

use nltk_porter::{Mode, PorterStemmer};

/// Stems words. NLTK's stemmer turns them into lower case first.
pub struct Stemmer(PorterStemmer);

impl Default for Stemmer {
    fn default() -> Self {
        Self(PorterStemmer::new(Mode::Nltk))
    }
}

impl Stemmer {
    /// The stem of a word.
    pub fn stem(&self, word: &str) -> String {
        self.0.stem(word)
    }
}
