//! The text of an answer while it is decoded.

use crate::answer::Finish;
use crate::cause::{caught, source};
use crate::control::Flow;
use crate::decoder::{DecoderError, Form, Readable, StopTexts};
use crate::error::Result;
use crate::language::LanguageModel;
use crate::question::Question;
use tokenizers::tokenizer::DecodeStream;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// The text of an answer: as the model writes it, and without tags and coordinates.
pub(super) struct AnswerText<'a> {
    model: &'a LanguageModel,
    stream: TokenStream<'a>,
    raw: String,
    /// Removes tags and coordinates. JSON is not filtered, because a tag in it is part of a string.
    filter: Option<Readable>,
    stop_texts: StopTexts,
    readable: String,
}

type TokenStream<'a> = DecodeStream<'a, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl<'a> AnswerText<'a> {
    pub fn new(model: &'a LanguageModel, question: &Question) -> Self {
        Self {
            model,
            stream: model.tokenizer.inner().decode_stream(false),
            raw: String::new(),
            filter: (!matches!(question.form, Form::Json(_))).then(Readable::default),
            stop_texts: StopTexts::new(&question.stop),
            readable: String::new(),
        }
    }

    /// Appends a token and passes the text that is certain by now to the callback. Returns why the answer ends there, if it does.
    ///
    /// # Errors
    /// If the tokenizer cannot decode the token.
    pub fn push(&mut self, token: i64, on_piece: &mut impl FnMut(&str) -> Flow) -> Result<Option<Finish>> {
        let id = u32::try_from(token).map_err(|e| DecoderError::Text { source: source(e) })?;
        let piece = match caught(|| self.stream.step(id)) {
            Ok(piece) => piece,
            Err(_) => {
                // Sampled byte tokens may not add up to a character. A replacement character stands for them.
                self.stream = self.model.tokenizer.inner().decode_stream(false);
                let piece = caught(|| self.stream.step(id)).map_err(|source| DecoderError::Text { source })?;
                Some(format!("{}{}", char::REPLACEMENT_CHARACTER, piece.unwrap_or_default()))
            }
        };
        let Some(piece) = piece else { return Ok(None) };
        self.raw.push_str(&piece);
        let piece = self.filter.as_mut().map_or(piece.clone(), |filter| filter.push(&piece));
        let (certain, ends) = self.stop_texts.push(&piece);
        let flow = self.emit(&certain, on_piece);
        Ok(match flow {
            _ if ends => Some(Finish::StopText),
            Flow::Stop => Some(Finish::Stopped),
            Flow::Continue => None,
        })
    }

    /// Length of the text without tags that was passed on so far, in bytes.
    pub fn length(&self) -> usize {
        self.readable.len()
    }

    fn emit(&mut self, piece: &str, on_piece: &mut impl FnMut(&str) -> Flow) -> Flow {
        self.readable.push_str(piece);
        if piece.is_empty() { Flow::Continue } else { on_piece(piece) }
    }

    /// The whole text as the model wrote it, the text without tags and coordinates, and why the answer ended: the text that was held back
    /// may contain a stop text.
    pub fn finish(mut self, mut finish: Finish, on_piece: &mut impl FnMut(&str) -> Flow) -> (String, String, Finish) {
        if finish != Finish::StopText {
            let (mut rest, ends) = self.stop_texts.push(&self.filter.take().map_or_else(String::new, Readable::finish));
            if ends {
                finish = Finish::StopText;
            } else {
                rest.push_str(&std::mem::take(&mut self.stop_texts).finish());
            }
            self.emit(&rest, on_piece);
        }
        (self.raw, self.readable, finish)
    }
}
