//! The language model of a bundle: tokenizer, decoder, and grammars for constrained decoding.

use crate::bundle::{Bundle, TOKENIZER};
use crate::decoder::{Decoder, DecoderError, Form, Grammar, Matcher};
use crate::error::Result;
use crate::prompt::PromptTokenizer;
use crate::runtime::Runtime;

/// A loaded language model, which all studies of an engine share.
pub(crate) struct LanguageModel {
    pub tokenizer: PromptTokenizer,
    pub decoder: Decoder,
    /// Whether prompt look-up decoding is on.
    pub look_up: bool,
    /// If compilation failed, the error's text: only constrained questions fail then.
    grammar: Result<Grammar, String>,
}

impl LanguageModel {
    /// Loads tokenizer, projector and decoder. All KV caches together take at most `memory` bytes; `None` means no limit.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the provider cannot run a graph.
    pub fn load(runtime: &Runtime, bundle: &Bundle, memory: Option<u64>, look_up: bool) -> Result<Self> {
        let tokenizer = PromptTokenizer::open(&bundle.file(TOKENIZER))?;
        let vocabulary = bundle.manifest().decoder.vocabulary;
        // ONNX Runtime loads a graph on one thread. A second thread compiles the grammar meanwhile.
        let (decoder, grammar) = std::thread::scope(|scope| {
            let grammar = scope.spawn(|| Grammar::new(&tokenizer, vocabulary));
            (Decoder::load(runtime, bundle, memory), grammar.join())
        });
        let grammar = grammar.map_err(|_| "compiling it failed".to_string()).and_then(|made| made.map_err(|e| e.to_string()));
        Ok(Self { decoder: decoder?, tokenizer, look_up, grammar })
    }

    /// The automaton that constrains an answer to this form; `None` for [`Form::Free`].
    ///
    /// # Errors
    /// If the form's schema cannot be used, or the grammar could not be compiled for the tokenizer's vocabulary.
    pub fn matcher(&self, form: &Form) -> Result<Option<Matcher>, DecoderError> {
        if *form == Form::Free { Ok(None) } else { self.grammar()?.matcher(form) }
    }

    /// Checks that an answer can be constrained to this form.
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
