//! The answer of the language model, with groundings.

use super::evidence::{Evidence, anx_evidence};
use super::handle::{Handle, read};
use super::record::{Record, anx_box, anx_flag, anx_provenance, anx_timing, item};
use super::strings::Strings;
use crate::answer::{Answer, Finish};
use crate::radiograph::Radiograph;
use std::ffi::c_char;
use std::ptr::{from_ref, null};
use std::sync::Arc;

/// Why an answer ended. Later versions may add values.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_finish {
    /// The model ended its turn: the answer is complete.
    ANX_FINISH_END_OF_TURN = 0,
    /// The limit on tokens was reached: the answer is incomplete.
    ANX_FINISH_MAX_TOKENS = 1,
    /// anx_ask_options.piece or a cancel handle stopped the answer.
    ANX_FINISH_STOPPED = 2,
    /// A text of anx_ask_options.stop was reached; it is not part of the answer.
    ANX_FINISH_STOP_TEXT = 3,
    /// The deadline of the options passed: the answer is incomplete.
    ANX_FINISH_DEADLINE = 4,
    /// The KV cache could not grow within anx_engine_options.memory_limit: the answer is incomplete.
    ANX_FINISH_MEMORY = 5,
}

/// A phrase of an answer with its bounding boxes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct anx_grounding {
    /// The phrase, as it occurs in the answer's text; empty for boxes without a phrase.
    pub phrase: *const c_char,
    /// Its boxes, box_count of them; borrowed from the answer.
    pub boxes: *const anx_box,
    /// How many boxes there are; 0 for a phrase that the model marked without a box.
    pub box_count: usize,
}

/// An answer of the language model. It never changes, so threads may share it. It does not need its study or engine.
pub struct anx_answer {
    pub(super) result: Answer,
    /// For overlays; `None` unless the study holds it.
    pub(super) radiograph: Option<Arc<Radiograph>>,
    question: *const c_char,
    task: *const c_char,
    text: *const c_char,
    raw: *const c_char,
    tokens: usize,
    prefilled: usize,
    runs: usize,
    log_probabilities: Vec<f32>,
    finish: anx_finish,
    groundings: Vec<anx_grounding>,
    /// Owns what the groundings point to.
    _boxes: Vec<Vec<anx_box>>,
    evidence: Evidence,
    record: Record,
}

impl Handle for anx_answer {
    const NAME: &'static str = "answer";
}

impl anx_answer {
    pub(super) fn new(answer: &Answer, radiograph: Option<Arc<Radiograph>>) -> Self {
        let mut strings = Strings::default();
        let boxes: Vec<Vec<anx_box>> = answer.groundings.iter().map(|g| g.boxes.iter().copied().map(anx_box::from).collect()).collect();
        let groundings = answer.groundings.iter().zip(&boxes).map(|(grounding, boxes)| anx_grounding {
            phrase: strings.keep(&grounding.phrase),
            boxes: boxes.as_ptr(),
            box_count: boxes.len(),
        });
        let groundings = groundings.collect();
        let evidence = Evidence::new(answer, &mut strings);
        Self {
            result: answer.clone(),
            radiograph,
            question: strings.keep(&answer.question),
            task: answer.task.map_or(null(), |task| strings.keep(task.name())),
            text: strings.keep(&answer.text),
            raw: strings.keep(&answer.raw),
            tokens: answer.tokens,
            prefilled: answer.prefilled,
            runs: answer.runs,
            log_probabilities: answer.log_probabilities.clone(),
            finish: match answer.finish {
                Finish::EndOfTurn => anx_finish::ANX_FINISH_END_OF_TURN,
                Finish::MaxTokens => anx_finish::ANX_FINISH_MAX_TOKENS,
                Finish::Stopped => anx_finish::ANX_FINISH_STOPPED,
                Finish::StopText => anx_finish::ANX_FINISH_STOP_TEXT,
                Finish::Deadline => anx_finish::ANX_FINISH_DEADLINE,
                Finish::Memory => anx_finish::ANX_FINISH_MEMORY,
            },
            groundings,
            _boxes: boxes,
            evidence,
            record: Record::new(strings, &answer.flags, &answer.timing, &answer.provenance),
        }
    }
}

/// The answer as readable text, without tags and coordinates; the pieces that anx_ask_options.piece received add up to it.
/// Borrowed from the answer; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_text(answer: *const anx_answer) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| a.text) }
}

/// The answer as the model wrote it: with tags, and with boxes on a grid of 1024 over the letterboxed square, not in pixels. Borrowed from
/// the answer; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_raw(answer: *const anx_answer) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| a.raw) }
}

/// The question that was answered. Borrowed from the answer; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_question(answer: *const anx_answer) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| a.question) }
}

/// The name of the question's task, or NULL if none was given. Borrowed from the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_task(answer: *const anx_answer) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| a.task) }
}

/// How many phrases of the answer are grounded; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_grounding_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.groundings.len()) }
}

/// A phrase with its boxes, in the order of the text. Borrowed from the answer; NULL if index is not below
/// anx_answer_grounding_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_grounding(answer: *const anx_answer, index: usize) -> *const anx_grounding {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| item(&a.groundings, index)) }
}

/// How many sentences the answer has; 0 for an answer in JSON, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_evidence_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.evidence.sentences.len()) }
}

/// Where a sentence comes from, in the order of the text. Borrowed from the answer; NULL if index is not below
/// anx_answer_evidence_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_evidence(answer: *const anx_answer, index: usize) -> *const anx_evidence {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| item(&a.evidence.sentences, index)) }
}

/// How many tokens were decoded, those of tags and coordinates included; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_token_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.tokens) }
}

/// How many tokens were prefilled for this answer: those of the question, and those of the study's context if it was not in the KV cache
/// yet; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_prefilled_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.prefilled) }
}

/// How many runs of the decoder these tokens took, without prefill: fewer than tokens if draft tokens were accepted; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_run_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.runs) }
}

/// Natural logarithm of the probability of each token under the model, anx_answer_token_count values of at most 0; not calibrated. Borrowed
/// from the answer; NULL if the options did not ask for them, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_log_probabilities(answer: *const anx_answer) -> *const f32 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| if a.log_probabilities.is_empty() { null() } else { a.log_probabilities.as_ptr() }) }
}

/// Why the answer ended; ANX_FINISH_STOPPED for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_finish(answer: *const anx_answer) -> anx_finish {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, anx_finish::ANX_FINISH_STOPPED, |a| a.finish) }
}

/// How many flags there are: those of the study; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_flag_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.record.flags.len()) }
}

/// A flag. Borrowed from the answer; NULL if index is not below anx_answer_flag_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_flag(answer: *const anx_answer, index: usize) -> *const anx_flag {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| item(&a.record.flags, index)) }
}

/// How many steps were timed; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_timing_count(answer: *const anx_answer) -> usize {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, 0, |a| a.record.timing.len()) }
}

/// The time of a step. Borrowed from the answer; NULL if index is not below anx_answer_timing_count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_timing(answer: *const anx_answer, index: usize) -> *const anx_timing {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| item(&a.record.timing, index)) }
}

/// Versions, settings and hashes that the answer depends on. Borrowed from the answer; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_provenance(answer: *const anx_answer) -> *const anx_provenance {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { read(answer, null(), |a| from_ref(&a.record.provenance)) }
}

/// Frees an answer and everything borrowed from it. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_answer_free(answer: *mut anx_answer) {
    // SAFETY: NULL or a handle that nobody uses any more, as the header asks.
    unsafe { Handle::free(answer) }
}
