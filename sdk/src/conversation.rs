//! What the language model keeps of a study, and how an answer continues it token by token.

use crate::anatomy::Structure;
use crate::decoder::{Cache, Choice, DecoderError, LookUp, Readable, Sampler, Step, Stops};
use crate::engine::Inner;
use crate::error::Result;
use crate::geometry::NormalizedBox;
use crate::prompt::{self, ContextTokens};
use crate::study::{Finish, Flow};
use ort::value::Tensor;
use tokenizers::tokenizer::DecodeStream;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// How many tokens of a question an answer is remembered with: what a next answer's beginning is matched to.
const QUESTION_END: usize = 4;

/// Visual features and the cache of a study, and what its answers are likely to repeat.
pub(crate) struct Conversation {
    pub visual: Tensor<f32>,
    pub cache: Cache,
    pub look_up: LookUp,
}

impl Conversation {
    /// What a study's answers repeat: the context's lines, and the boxes of structures under their names.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn look_up(engine: &Inner, context: &ContextTokens, boxes: &[NormalizedBox]) -> Result<LookUp> {
        let grounded = Structure::all().zip(boxes);
        let grounded =
            grounded.map(|(structure, bounds)| engine.tokenizer.answer(&prompt::grounded_text(structure.name(), &bounds.to_grid())));
        let grounded = grounded.collect::<Result<Vec<_>, _>>()?;
        Ok(LookUp::new(std::iter::once(context.ids.as_slice()).chain(grounded.iter().map(Vec::as_slice))))
    }

    /// Appends tokens and chooses the next one.
    pub fn append(&mut self, engine: &Inner, sampler: &mut Sampler, ids: &[i64]) -> Result<Choice> {
        let logits = self.run(engine, ids, &[ids.len() as i64 - 1])?;
        let choice = sampler.choose(&logits);
        sampler.accept(choice.token);
        Ok(choice)
    }

    /// Appends an answer's last token and chooses those that follow it: one, and as many more as the proposal foresaw.
    pub fn follow(&mut self, engine: &Inner, sampler: &mut Sampler, last: i64, proposal: &[i64]) -> Result<Vec<Choice>> {
        let before = self.cache.length();
        let ids = [&[last], proposal].concat();
        let positions: Vec<i64> = (0..ids.len() as i64).collect();
        let logits = self.run(engine, &ids, &positions)?;
        let mut next = Vec::with_capacity(ids.len());
        for (row, logits) in logits.chunks_exact(engine.decoder.sizes().vocabulary).enumerate() {
            let choice = sampler.choose(logits);
            if !proposal.is_empty() && choice.margin <= engine.decoder.noise() {
                // Several rows at once are computed a little differently from one. Too close a call is made by one row.
                self.cache.rewind(before + row);
                next.push(self.append(engine, sampler, &ids[row..=row])?);
                return Ok(next);
            }
            sampler.accept(choice.token);
            next.push(choice);
            if proposal.get(row) != Some(&choice.token) {
                break;
            }
        }
        self.cache.rewind(before + next.len());
        Ok(next)
    }

    /// Forgets a question and its answer but for what the answer said; the context stays.
    pub fn end(&mut self, context: usize, question: &[i64], answer: &[i64]) {
        self.cache.rewind(context);
        self.look_up.add(&[&question[question.len().saturating_sub(QUESTION_END)..], answer].concat());
    }

    fn run(&mut self, engine: &Inner, ids: &[i64], positions: &[i64]) -> Result<Vec<f32>> {
        let step = Step { ids, visual_index: &vec![-1; ids.len()], positions };
        engine.decoder.run(&mut self.cache, &self.visual, step)
    }
}

/// The answer's text as it grows: as the model writes it, and as people read it.
pub(crate) struct Text<'a> {
    engine: &'a Inner,
    stream: TokenStream<'a>,
    raw: String,
    filter: Readable,
    stops: Stops,
    readable: String,
}

type TokenStream<'a> = DecodeStream<'a, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl<'a> Text<'a> {
    pub fn new(engine: &'a Inner, stop: &[String]) -> Self {
        Self {
            engine,
            stream: engine.tokenizer.inner().decode_stream(false),
            raw: String::new(),
            filter: Readable::default(),
            stops: Stops::new(stop),
            readable: String::new(),
        }
    }

    /// Adds a token; what can be read by now is handed on. Tells if the answer ends there.
    pub fn push(&mut self, token: i64, on_piece: &mut impl FnMut(&str) -> Flow) -> Result<Option<Finish>> {
        let failed = |message: String| DecoderError::Text { message };
        let id = u32::try_from(token).map_err(|e| failed(e.to_string()))?;
        let piece = match self.stream.step(id) {
            Ok(piece) => piece,
            Err(_) => {
                // Tokens before made no character together, as drawn ones may.
                self.stream = self.engine.tokenizer.inner().decode_stream(false);
                let piece = self.stream.step(id).map_err(|e| failed(e.to_string()))?;
                Some(format!("{}{}", char::REPLACEMENT_CHARACTER, piece.unwrap_or_default()))
            }
        };
        let Some(piece) = piece else { return Ok(None) };
        self.raw.push_str(&piece);
        let (certain, ends) = self.stops.push(&self.filter.push(&piece));
        let flow = self.hand_on(&certain, on_piece);
        Ok(match flow {
            _ if ends => Some(Finish::StopText),
            Flow::Stop => Some(Finish::Stopped),
            Flow::Continue => None,
        })
    }

    fn hand_on(&mut self, piece: &str, on_piece: &mut impl FnMut(&str) -> Flow) -> Flow {
        self.readable.push_str(piece);
        if piece.is_empty() { Flow::Continue } else { on_piece(piece) }
    }

    /// The whole text, as the model wrote it and as people read it.
    pub fn finish(mut self, finish: Finish, on_piece: &mut impl FnMut(&str) -> Flow) -> (String, String) {
        if finish != Finish::StopText {
            let (mut rest, ends) = self.stops.push(&std::mem::take(&mut self.filter).finish());
            if !ends {
                rest.push_str(&std::mem::take(&mut self.stops).finish());
            }
            self.hand_on(&rest, on_piece);
        }
        (self.raw, self.readable)
    }
}
