//! Several questions to a study at once.

use super::answer::anx_answer;
use super::ask::anx_ask_options;
use super::call::make_several;
use super::error::anx_error;
use super::failure::Failure;
use super::handle::on;
use super::options::read_sized;
use super::status::anx_status;
use super::strings::needed_text;
use super::study::anx_study;
use std::ffi::c_char;
use std::ptr::null;

/// Largest number of questions of one call.
const MAX_QUESTIONS: usize = 1024;

/// Asks the study several questions at once and waits for all answers. They are decoded together and share the KV cache of the context, so
/// that each costs little more than its own tokens. Greedy answers are those of anx_study_ask. Either all questions are follow-ups or none
/// is. If none is, the study has no conversation afterwards: the questions are not turns of it, and earlier turns are removed.
///
/// questions: at most 1024, each as for anx_study_ask; NULL is not allowed, so pass an empty text for a task that has its own instruction.
/// With a count of 0 nothing happens. options: NULL for the defaults of all, or count pointers,
/// each NULL or the options of that question, whose piece receives the pieces of that answer and can end that answer only.
/// answers: room for count answers, which the caller frees with anx_answer_free; all NULL on failure, also if count is too large.
/// Fails as anx_study_ask does, with the first question that fails, whose index the message names; then there are no answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn anx_study_ask_many(
    study: *mut anx_study,
    questions: *const *const c_char,
    options: *const *const anx_ask_options,
    count: usize,
    answers: *mut *mut anx_answer,
    error: *mut *mut anx_error,
) -> anx_status {
    // SAFETY: NULL or valid pointers throughout, as the header asks; every helper looks for NULL.
    unsafe {
        make_several("answers", answers, count, error, || {
            on(study, |study| {
                if count > MAX_QUESTIONS {
                    return Err(Failure::argument(
                        "count",
                        format!("is {count}, but at most {MAX_QUESTIONS} questions can be asked at once"),
                    ));
                }
                if count > 0 && questions.is_null() {
                    return Err(Failure::argument("questions", "is NULL; pass count pointers to texts"));
                }
                let argument = |index| format!("options[{index}]");
                let given = |index| read_sized(if options.is_null() { null() } else { *options.add(index) }, &argument(index));
                let settings = (0..count).map(given).collect::<Result<Vec<anx_ask_options>, _>>()?;
                let asked = settings.iter().enumerate().map(|(index, settings)| {
                    let text = needed_text(*questions.add(index), &format!("questions[{index}]"))?;
                    settings.question(text, &argument(index))
                });
                let asked = asked.collect::<Result<Vec<_>, _>>()?;
                let said = study.lock()?.ask_many_streaming(asked, |index, piece| settings[index].hand_on(piece))?;
                Ok(said.iter().map(|answer| anx_answer::new(answer, study.radiograph.clone())).collect())
            })
        })
    }
}
