//! Questions to a study.

use super::answer::anx_answer;
use super::call::make;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::on;
use super::options::{Options, read_options, switch};
use super::status::anx_status;
use super::strings::{c_string, needed_text, optional_text};
use super::study::anx_study;
use crate::control::Flow;
use crate::decoder::Sampling;
use crate::question::Question;
use crate::task::Task;
use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

/// What anx_ask_options.piece returns.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_flow {
    /// Decoding continues.
    ANX_FLOW_CONTINUE = 0,
    /// The answer ends.
    ANX_FLOW_STOP = 1,
}

/// Receives a streamed answer piece by piece. piece: UTF-8, NUL-terminated, whole characters, valid during this call only. length: its
/// bytes without the NUL. user_data: anx_ask_options.piece_user_data. Returns ANX_FLOW_CONTINUE (0) to continue; ANX_FLOW_STOP, and
/// any other number, ends the answer. It is called by the thread that asks. It must return normally: no exception, no longjmp. Of the
/// library's functions it may call anx_cancel_request; asking the same study from it fails with ANX_BUSY.
pub type anx_piece_callback = Option<unsafe extern "C" fn(piece: *const c_char, length: usize, user_data: *mut c_void) -> c_int>;

/// Options of anx_study_ask. Set struct_size to sizeof(anx_ask_options) and everything else to zero but what you want to
/// change.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_ask_options {
    /// sizeof(anx_ask_options).
    pub struct_size: usize,
    /// The question's task, or NULL for a question in free words. With a task, a text that is only a phrase or box is put into the
    /// task's wording. Tasks: "report",
    /// "classification", "abnormality_detection", "phrase_grounding", "anatomy_grounding", "grounded_diagnosis",
    /// "grounded_captioning", "open_question", "closed_question".
    pub task: *const c_char,
    /// Largest number of tokens of the answer, or 0 for the default, 512.
    pub max_tokens: usize,
    /// Receives the answer piece by piece as it is decoded, or NULL.
    pub piece: anx_piece_callback,
    /// Handed to piece as it is.
    pub piece_user_data: *mut c_void,
    /// Sampling temperature: 0 for greedy decoding, which takes the most likely token; 1 samples by the model's probabilities; at most
    /// 100.
    pub temperature: f64,
    /// Samples among this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Samples among the smallest set of most likely tokens whose probabilities sum to at least this; greater than 0, at most 1; 0 for all.
    pub top_p: f64,
    /// Divides the positive logits of tokens that occur in the answer, and multiplies their negative ones, 0.01 to
    /// 100; 0 or 1 for none.
    pub repetition_penalty: f64,
    /// Seed of sampling: equal seeds give equal answers.
    pub seed: u64,
    /// Stop texts, UTF-8, stop_count of them and none of them NULL, or NULL: the answer ends before the first occurrence of any of them.
    /// Empty ones are ignored.
    pub stop: *const *const c_char,
    /// How many stop texts there are.
    pub stop_count: usize,
    /// The answer ends with the tokens decoded so far after this many milliseconds, prefill included. 0 means no
    /// deadline. If you compute a remaining time, pass at least 1.
    pub deadline_ms: usize,
    /// An anx_switch, by default off: the answer holds the log probability of each of its tokens, see
    /// anx_answer_log_probabilities.
    pub log_probabilities: usize,
    /// An anx_switch, by default off: the question continues the study's conversation, so that the model sees the questions and
    /// answers before it; see anx_study_turn_count. Off: it is asked of the radiograph alone.
    pub follow_up: usize,
    /// A JSON schema, UTF-8, of at most 65,536 bytes, or NULL: decoding is constrained to JSON that conforms to it, complete unless a
    /// limit ends the answer; see anx_answer_finish. Bound strings (maxLength, pattern), arrays (maxItems) and numbers (maximum) in
    /// the schema, or an unsure model may not stop. Numbers of the schema are at most 2^53 - 1 in magnitude, values of multipleOf have a
    /// common multiple of at most 65,535 in units of their last decimal place, and few patterns apply to one text at once (allOf and the
    /// like); another schema is refused. Properties come in the schema's order, with a space after each ',' and ':' and no other white
    /// space between values. Boxes in the JSON are on a grid of 1024 over the letterboxed square, not in pixels. The model does not see
    /// the schema: the question must say what the answer should contain.
    pub json_schema: *const c_char,
    /// An anx_switch, by default off: decoding is not constrained, so that groundings may be malformed. Off: groundings are well
    /// formed, or the answer is JSON. It cannot be on together with json_schema.
    pub unconstrained: usize,
    /// An anx_switch, by default off: the study is asked even if it is flagged "not_chest", "not_frontal" or "for_processing". Off:
    /// asking such a study fails with ANX_RADIOGRAPH_FLAGGED, because the model was not made for such images.
    pub accept_flags: usize,
}

// SAFETY: repr(C), words of 64 bits (checked below), all zero means every default; an absent function is the null pointer.
unsafe impl Options for anx_ask_options {
    const NAME: &'static str = "anx_ask_options";
}

const _: () = assert!(size_of::<anx_ask_options>() == 18 * size_of::<usize>(), "libanatomix needs a machine of 64 bits");

impl anx_ask_options {
    /// Makes the question with these options, which messages call `argument`.
    ///
    /// # Safety
    /// Pointers are NULL or valid.
    pub(super) unsafe fn question(&self, text: &str, argument: &str) -> Result<Question, Failure> {
        let field = |name: &str| format!("{argument}.{name}");
        let mut asked = Question::new(text);
        // SAFETY: NULL or valid, by the caller's promise.
        if let Some(name) = unsafe { optional_text(self.task, &field("task")) }? {
            asked = asked.task(task(name, &field("task"))?);
        }
        if self.max_tokens > 0 {
            asked = asked.max_tokens(self.max_tokens);
        }
        // A positive number that single precision rounds to 0 stays positive.
        let narrowed = |value: f64| if value > 0.0 { (value as f32).max(f32::MIN_POSITIVE) } else { value as f32 };
        let or_one = |value: f64| if value == 0.0 { 1.0 } else { narrowed(value) };
        asked.sampling = Sampling {
            temperature: self.temperature as f32,
            top_k: self.top_k,
            top_p: or_one(self.top_p),
            repetition_penalty: or_one(self.repetition_penalty),
            seed: self.seed,
        };
        if self.stop.is_null() && self.stop_count > 0 {
            return Err(Failure::argument(&field("stop"), format!("is NULL, but {} is not 0", field("stop_count"))));
        }
        for index in 0..self.stop_count {
            // SAFETY: stop_count pointers are readable, each NULL or valid, by the caller's promise.
            let text = unsafe { needed_text(*self.stop.add(index), &format!("{}[{index}]", field("stop"))) }?;
            asked.stop.push(text.to_owned());
        }
        asked.deadline = (self.deadline_ms > 0).then(|| Duration::from_millis(self.deadline_ms as u64));
        asked.log_probabilities = switch(self.log_probabilities, false, &field("log_probabilities"))?;
        asked.follow_up = switch(self.follow_up, false, &field("follow_up"))?;
        asked.accept_flags = switch(self.accept_flags, false, &field("accept_flags"))?;
        // SAFETY: NULL or valid, by the caller's promise.
        let schema = unsafe { optional_text(self.json_schema, &field("json_schema")) }?;
        Ok(match (schema, switch(self.unconstrained, false, &field("unconstrained"))?) {
            (None, false) => asked,
            (None, true) => asked.unconstrained(),
            (Some(schema), false) => asked.json_schema(schema),
            (Some(_), true) => {
                let problem = format!("is on, but {} is not NULL; choose one of them", field("json_schema"));
                return Err(Failure::argument(&field("unconstrained"), problem));
            }
        })
    }

    /// Passes a piece of the answer to the callback, if there is one.
    ///
    /// # Safety
    /// The callback is NULL or valid.
    pub(super) unsafe fn hand_on(&self, piece: &str) -> Flow {
        let Some(callback) = self.piece else { return Flow::Continue };
        let text = c_string(piece);
        // SAFETY: a valid function, by the caller's promise; the text is NUL-terminated and outlives the call.
        match unsafe { callback(text.as_ptr(), text.count_bytes(), self.piece_user_data) } {
            flow if flow == anx_flow::ANX_FLOW_CONTINUE as c_int => Flow::Continue,
            _ => Flow::Stop,
        }
    }
}

/// Asks the study a question and waits for the answer. The first ask prefills the study's context, which stays in the KV cache. The model
/// does not see earlier questions and answers, unless options.follow_up is on.
///
/// question: UTF-8; a region is written <box>(x0,y0),(x1,y1)</box> in pixels of the original image. NULL or empty for the tasks
/// "report", "classification" and "abnormality_detection", which have an instruction of their own and take no question.
/// options: NULL for the defaults. answer: takes the answer, which the caller frees with
/// anx_answer_free; NULL on failure. An answer that was stopped or is incomplete is a success; see anx_answer_finish.
/// Fails with ANX_INVALID_ARGUMENT, ANX_BUSY, ANX_RADIOGRAPH_FLAGGED, or in the hundreds of ANX_RUNTIME, ANX_PROMPT, ANX_DECODER.
/// Does not guarantee that the answer is true, complete or grounded; research use, not a medical device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_ask(
    study: *mut anx_study,
    question: *const c_char,
    options: *const anx_ask_options,
    answer: *mut *mut anx_answer,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make(answer, error, || {
            on(study, |study| {
                let options = read_options(options)?;
                let asked = options.question(optional_text(question, "question")?.unwrap_or_default(), "options")?;
                let given = study.lock()?.ask_streaming(asked, |piece| options.hand_on(piece))?;
                Ok(anx_answer::new(&given, study.radiograph.clone()))
            })
        })
    }
}

fn task(name: &str, argument: &str) -> Result<Task, Failure> {
    Task::from_name(name).ok_or_else(|| {
        let known = Task::ALL.map(Task::name).join(", ");
        Failure::argument(argument, format!("is {name:?}, which is not a task; choose one of {known}"))
    })
}
