//! The text of an answer as it grows.

use crate::answer::Finish;
use crate::cause::source;
use crate::control::Flow;
use crate::decoder::{DecoderError, Form, Readable, Stops};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::question::Question;
use tokenizers::tokenizer::DecodeStream;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// The answer's text as it grows: as the model writes it, and as people read it.
pub(crate) struct Text<'a> {
    model: &'a LanguageModel,
    stream: TokenStream<'a>,
    raw: String,
    /// JSON has none: what looks like a tag in it is its own.
    filter: Option<Readable>,
    stops: Stops,
    readable: String,
}

type TokenStream<'a> = DecodeStream<'a, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl<'a> Text<'a> {
    pub fn new(model: &'a LanguageModel, question: &Question) -> Self {
        Self {
            model,
            stream: model.tokenizer.inner().decode_stream(false),
            raw: String::new(),
            filter: (!matches!(question.form, Form::Json(_))).then(Readable::default),
            stops: Stops::new(&question.stop),
            readable: String::new(),
        }
    }

    /// Adds a token; what can be read by now is handed on. Tells if the answer ends there.
    pub fn push(&mut self, token: i64, on_piece: &mut impl FnMut(&str) -> Flow) -> Result<Option<Finish>> {
        let id = u32::try_from(token).map_err(|e| DecoderError::Text { source: source(e) })?;
        let piece = match self.stream.step(id) {
            Ok(piece) => piece,
            Err(_) => {
                // Tokens before made no character together, as drawn ones may.
                self.stream = self.model.tokenizer.inner().decode_stream(false);
                let piece = self.stream.step(id).map_err(|e| DecoderError::Text { source: source(e) })?;
                Some(format!("{}{}", char::REPLACEMENT_CHARACTER, piece.unwrap_or_default()))
            }
        };
        let Some(piece) = piece else { return Ok(None) };
        self.raw.push_str(&piece);
        let piece = self.filter.as_mut().map_or(piece.clone(), |filter| filter.push(&piece));
        let (certain, ends) = self.stops.push(&piece);
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

    /// The whole text, as the model wrote it and as people read it, and why it ended: what was held back may hold a text that ends it.
    pub fn finish(mut self, mut finish: Finish, on_piece: &mut impl FnMut(&str) -> Flow) -> (String, String, Finish) {
        if finish != Finish::StopText {
            let (mut rest, ends) = self.stops.push(&self.filter.take().map_or_else(String::new, Readable::finish));
            if ends {
                finish = Finish::StopText;
            } else {
                rest.push_str(&std::mem::take(&mut self.stops).finish());
            }
            self.hand_on(&rest, on_piece);
        }
        (self.raw, self.readable, finish)
    }
}
