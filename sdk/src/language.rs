//! The language model of a bundle: tokenizer, decoder, and grammars for constrained decoding.

use crate::anatomy::Structure;
use crate::bundle::{Bundle, TOKENIZER};
use crate::cause::{causes, source};
use crate::decoder::{Decoder, DecoderError, Form, Grammar, Matcher, RunCosts, Speculation};
use crate::error::Result;
use crate::parallel;
use crate::prompt::{ContextLine, ContextTokens, PromptForm, PromptTokenizer};
use crate::runtime::Runtime;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// A loaded language model, which all studies of an engine share.
pub(crate) struct LanguageModel {
    pub tokenizer: PromptTokenizer,
    pub decoder: Decoder,
    /// Chooses how many draft tokens are verified, for all answers; `None` if prompt look-up decoding is off.
    speculation: Option<Mutex<Speculation>>,
    /// The form of the prompt.
    form: PromptForm,
    /// Number of rows of visual features that an image has.
    image_features: usize,
    /// Number of tokens that no context of a study falls below.
    shortest_context: usize,
    /// If compilation failed, the error's text: only constrained questions fail then.
    grammar: Result<Grammar, String>,
}

impl LanguageModel {
    /// Loads tokenizer, projector and decoder. All KV caches together take at most `memory` bytes; `None` means no limit. `costs` says
    /// what runs of the decoder cost; `None` switches prompt look-up decoding off. `loaded` is called after each graph; an error of it ends
    /// the loading.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the provider cannot run a graph; and what `loaded` returned.
    pub fn load(
        runtime: &Runtime,
        bundle: &Bundle,
        memory: Option<u64>,
        costs: Option<RunCosts>,
        loaded: &(impl Fn() -> Result<()> + Sync),
    ) -> Result<Self> {
        let tokenizer = PromptTokenizer::open(&bundle.file(TOKENIZER))?;
        let vocabulary = bundle.manifest().decoder.vocabulary;
        // ONNX Runtime loads a graph on one thread. A second thread compiles the grammar meanwhile.
        let grammar = || catch_unwind(AssertUnwindSafe(|| Grammar::new(&tokenizer, vocabulary)));
        let (decoder, grammar) = parallel::join(|| Decoder::load(runtime, bundle, memory, loaded), grammar);
        let grammar = grammar
            .map_err(|_| "compiling it failed".to_string())
            .and_then(|made| made.map_err(|e| causes(&e).unwrap_or_else(|| e.to_string())));
        let speculation = costs.map(|costs| Mutex::new(Speculation::new(costs)));
        let (form, image_features) = (bundle.manifest().prompt.form.clone(), bundle.manifest().image_features());
        // Sentences are empty, and coordinates have one digit. In a compact context, sentences decide on the lines, of which this has none.
        let line = |structure| ContextLine { structure, grid: [0; 4], sentence: String::new() };
        let lines: Vec<ContextLine> = Structure::all().filter(|_| !form.compact).map(line).collect();
        let shortest_context = tokenizer.context(&form, &lines, image_features)?.ids.len();
        Ok(Self { decoder: decoder?, form, image_features, shortest_context, tokenizer, speculation, grammar })
    }

    /// The context of a study, of whose structures these are the lines.
    ///
    /// # Errors
    /// If a sentence cannot be tokenized.
    pub fn context(&self, lines: &[ContextLine]) -> Result<ContextTokens> {
        Ok(self.tokenizer.context(&self.form, lines, self.image_features)?)
    }

    /// Bytes that the KV cache of a study takes at most for this many tokens; see [`Engine::study_bytes`](crate::Engine::study_bytes).
    ///
    /// It assumes the shortest possible context, because layers with a sliding window then store most.
    pub fn study_bytes(&self, tokens: usize) -> u64 {
        self.decoder.cache_bytes(tokens, self.shortest_context)
    }

    /// Whether prompt look-up decoding is on.
    pub fn uses_look_up(&self) -> bool {
        self.speculation.is_some()
    }

    /// Runs `work` on what all answers have learned about drafts; `None` if prompt look-up decoding is off. Callers wait for each other
    /// while `work` runs, so it takes a microsecond and never runs the decoder.
    pub fn speculate<T>(&self, work: impl FnOnce(&mut Speculation) -> T) -> Option<T> {
        let speculation = self.speculation.as_ref()?;
        Some(work(&mut speculation.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The automaton that constrains an answer to this form; `None` for [`Form::Free`].
    ///
    /// # Errors
    /// If the form's schema cannot be used, or the grammar could not be compiled for the tokenizer's vocabulary.
    pub fn matcher(&self, form: &Form) -> Result<Option<Matcher>> {
        if *form == Form::Free { Ok(None) } else { Ok(self.grammar()?.matcher(form)?) }
    }

    fn grammar(&self) -> Result<&Grammar, DecoderError> {
        self.grammar.as_ref().map_err(|message| DecoderError::Grammar { source: source(message) })
    }

    #[cfg(test)]
    pub fn compiled_schemas(&self) -> usize {
        self.grammar().map_or(0, |grammar| grammar.compiled.load(std::sync::atomic::Ordering::Relaxed))
    }
}
