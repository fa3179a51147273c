//! The language model of a bundle: the tokenizer that writes its prompt, the decoder, and the grammars of its answers.

use crate::bundle::{Bundle, TOKENIZER};
use crate::decoder::{Decoder, DecoderError, Form, Grammar, Matcher};
use crate::error::Result;
use crate::prompt::PromptTokenizer;
use crate::runtime::Runtime;

/// What conversations are decoded with. It is loaded once and shared by all studies of an engine.
pub(crate) struct LanguageModel {
    pub tokenizer: PromptTokenizer,
    pub decoder: Decoder,
    /// Whether draft tokens are looked up in the prompt and in earlier answers.
    pub look_up: bool,
    /// The error is kept as text: only questions that need a grammar fail by it.
    grammar: Result<Grammar, String>,
}

impl LanguageModel {
    /// Loads tokenizer, projector and decoder. All caches together may take `memory` bytes; any number for `None`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the provider cannot compute a graph.
    pub fn load(runtime: &Runtime, bundle: &Bundle, memory: Option<u64>, look_up: bool) -> Result<Self> {
        let tokenizer = PromptTokenizer::open(&bundle.file(TOKENIZER))?;
        let vocabulary = bundle.manifest().decoder.vocabulary;
        // A graph is loaded by one thread; the grammar, which is small beside it, is compiled meanwhile.
        let (decoder, grammar) = std::thread::scope(|scope| {
            let grammar = scope.spawn(|| Grammar::new(&tokenizer, vocabulary));
            (Decoder::load(runtime, bundle, memory), grammar.join())
        });
        let grammar = grammar.map_err(|_| "compiling it failed".to_string()).and_then(|made| made.map_err(|e| e.to_string()));
        Ok(Self { decoder: decoder?, tokenizer, look_up, grammar })
    }

    /// The automaton that keeps an answer in this form; `None` where the form allows everything.
    ///
    /// # Errors
    /// If its schema cannot be used, or no grammar can be compiled over the tokenizer's vocabulary.
    pub fn matcher(&self, form: &Form) -> Result<Option<Matcher>, DecoderError> {
        if *form == Form::Free { Ok(None) } else { self.grammar()?.matcher(form) }
    }

    /// Checks that an answer can be kept in this form.
    ///
    /// # Errors
    /// As [`LanguageModel::matcher`].
    pub fn check_form(&self, form: &Form) -> Result<(), DecoderError> {
        if *form == Form::Free { Ok(()) } else { self.grammar()?.check(form) }
    }

    fn grammar(&self) -> Result<&Grammar, DecoderError> {
        self.grammar.as_ref().map_err(|message| DecoderError::Grammar { message: message.clone() })
    }
}
