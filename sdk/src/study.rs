//! A study: the results of perception for one radiograph, and the questions about it.

use crate::answer::{Answer, Finish};
use crate::control::{CancelHandle, Flow, StopCondition};
use crate::conversation::{Conversation, Generated, PreparedQuestion, TextEnd};
use crate::decoder::{Form, QuestionError};
use crate::error::{AskedError, Error, Result};
use crate::evidence::Facts;
use crate::geometry::Letterbox;
use crate::grounding;
use crate::language::LanguageModel;
use crate::log::{Log, LogLevel};
use crate::perception::Perception;
use crate::perception::flags::{Flag, FlaggedError};
use crate::prompt::ContextTokens;
use crate::provenance::{Provenance, Timing};
use crate::question::Question;
use crate::radiograph::Source;
use crate::results::{LabelScore, StructureResult};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A study: one radiograph with the results of perception and retrieval, which can be asked any number of questions. The first question
/// prefills the context, which stays in the KV cache. Each further question prefills its own tokens only.
///
/// # Threads
/// A study may move between threads. Asking takes `&mut self`, so one caller asks at a time. Callers of the same engine with a study each
/// ask at the same time.
pub struct Study {
    pub(crate) model: Arc<LanguageModel>,
    pub(crate) name: String,
    pub(crate) letterbox: Letterbox,
    /// The identity of the radiograph's DICOM file, for objects that belong to the same study.
    pub(crate) source: Source,
    pub(crate) structures: Vec<StructureResult>,
    pub(crate) labels: Vec<LabelScore>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) provenance: Provenance,
    pub(crate) timing: Timing,
    pub(crate) perception: Arc<Perception>,
    pub(crate) context: ContextTokens,
    /// What the retrieved sentences state, read at the first answer.
    pub(crate) facts: OnceLock<Facts>,
    pub(crate) conversation: Option<Conversation>,
    pub(crate) cancel: CancelHandle,
    pub(crate) log: Log,
}

impl Study {
    /// The radiograph's path, or the name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Width of the original image in pixels.
    pub fn width(&self) -> u32 {
        self.letterbox.width
    }

    /// Height of the original image in pixels.
    pub fn height(&self) -> u32 {
        self.letterbox.height
    }

    /// The 36 structures in index order.
    pub fn structures(&self) -> &[StructureResult] {
        &self.structures
    }

    /// The 14 image labels in index order. Scores are not calibrated.
    pub fn labels(&self) -> &[LabelScore] {
        &self.labels
    }

    /// Reasons not to trust this study.
    pub fn flags(&self) -> &[Flag] {
        &self.flags
    }

    /// Versions, settings and hashes that the results depend on.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Milliseconds for `preprocess`, `perceive` and `retrieve`.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The outputs of the perception module, with boxes relative to the network's input.
    pub fn perception(&self) -> &Perception {
        &self.perception
    }

    /// Bytes that the KV cache of this study takes for its context and `tokens` tokens after it: those of the questions and answers of its
    /// conversation, or of all questions of one [`Study::ask_many`] with their answers. An answer counts with the most tokens that it may
    /// have ([`Question::max_tokens`], by default 512).
    ///
    /// [`Engine::study_bytes`](crate::Engine::study_bytes) is the most that any study takes for as many tokens in all, because the length
    /// of its context is not known before it is perceived. Without an [`EngineBuilder::memory_limit`](crate::EngineBuilder::memory_limit) a
    /// cache that has to grow takes up to a quarter more.
    pub fn cache_bytes(&self, tokens: usize) -> u64 {
        let context = self.context.ids.len();
        self.model.decoder.cache_bytes(context.saturating_add(tokens), context)
    }

    /// What was perceived, without the conversation: enough for documents and pictures, while another thread asks the study.
    #[cfg(feature = "capi")]
    pub(crate) fn perceived(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            name: self.name.clone(),
            letterbox: self.letterbox,
            source: self.source.clone(),
            structures: self.structures.clone(),
            labels: self.labels.clone(),
            flags: self.flags.clone(),
            provenance: self.provenance.clone(),
            timing: self.timing.clone(),
            perception: Arc::clone(&self.perception),
            context: self.context.clone(),
            facts: OnceLock::new(),
            conversation: None,
            cancel: CancelHandle::default(),
            log: self.log.clone(),
        }
    }

    /// A handle with which any thread stops one call on this study: [`Study::ask`] and its like end with [`Finish::Stopped`], and a
    /// [`Study::save`] that prefills the context with [`StoppedError`](crate::error::StoppedError). It stops the call that is running, or
    /// else the next one; see [`CancelHandle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Asks a question or sets a task. A question that is not a follow-up begins a new conversation.
    ///
    /// # Errors
    /// If the question is invalid or too long, there is no memory, the model fails, or the radiograph is flagged as not a chest, not
    /// frontal or not for display and the question does not accept that ([`Question::accept_flags`]). The conversation has the turns that
    /// it had before.
    pub fn ask(&mut self, question: impl Into<Question>) -> Result<Answer> {
        self.ask_streaming(question, |_| Flow::Continue)
    }

    /// Asks a question and passes the text to a callback piece by piece while it is decoded. The pieces add up to [`Answer::text`].
    ///
    /// # Errors
    /// As [`Study::ask`].
    pub fn ask_streaming(&mut self, question: impl Into<Question>, mut on_piece: impl FnMut(&str) -> Flow) -> Result<Answer> {
        let mut answers = self.answer_all(&[question.into()], true, &mut |_, piece| on_piece(piece))?;
        Ok(answers.remove(0))
    }

    /// Asks several questions at once. Their answers are decoded together and share the KV cache of the context. Greedy answers are those
    /// that the questions get one by one. Either all questions are follow-ups, and the conversation stays as it was, or none is, and the
    /// conversation is empty afterwards.
    ///
    /// ```no_run
    /// # use anatomix::{Engine, Radiograph, Task};
    /// # fn main() -> anatomix::Result<()> {
    /// # let engine = Engine::builder().open("examples/reference-bundle")?;
    /// let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
    /// for answer in study.ask_many(["Where is the left lung?", "Is there a pleural effusion?"])? {
    ///     println!("{}\n{}", answer.question, answer.text);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Study::ask`], if any of the questions fails: [`Error::Asked`] says which one, unless the error is of all together.
    pub fn ask_many<Q: Into<Question>>(&mut self, questions: impl IntoIterator<Item = Q>) -> Result<Vec<Answer>> {
        self.ask_many_streaming(questions, |_, _| Flow::Continue)
    }

    /// [`Study::ask_many`] that passes each answer to a callback piece by piece, with the question's index. [`Flow::Stop`] ends that answer
    /// and no other.
    ///
    /// # Errors
    /// As [`Study::ask_many`].
    pub fn ask_many_streaming<Q: Into<Question>>(
        &mut self,
        questions: impl IntoIterator<Item = Q>,
        mut on_piece: impl FnMut(usize, &str) -> Flow,
    ) -> Result<Vec<Answer>> {
        let questions: Vec<Question> = questions.into_iter().map(Into::into).collect();
        self.answer_all(&questions, false, &mut on_piece)
    }

    /// Answers questions, which are prepared before anything is computed or removed; see [`Conversation::answer`] for `as_turn`.
    fn answer_all(&mut self, questions: &[Question], as_turn: bool, on_piece: &mut impl FnMut(usize, &str) -> Flow) -> Result<Vec<Answer>> {
        let cancel = self.cancel.clone();
        let stop = StopCondition { cancel: &cancel, start: Instant::now() };
        let failed = |index: usize, error: Error| if as_turn { error } else { AskedError::new(index, error).into() };
        let prepared = questions.iter().enumerate().map(|(index, question)| self.prepare(question).map_err(|error| failed(index, error)));
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        // The cache grows if other questions need more.
        let Some(room) = prepared.iter().map(PreparedQuestion::room).min() else { return Ok(Vec::new()) };
        if questions.iter().any(|question| question.follow_up != questions[0].follow_up) {
            return Err(QuestionError::FollowUps.into());
        }
        // A question that is refused takes no request: nothing of it would have been stopped.
        let _taken = cancel.take_at_end();
        // Prefill of the context stops when every question was cancelled or has reached its deadline. So does a call that took its time to
        // prepare the questions.
        let may_continue = || questions.iter().any(|question| stop.reached(question.deadline).is_none());
        if !may_continue() {
            if !questions[0].follow_up {
                self.rewind(0);
            }
            return Ok(questions.iter().map(|question| self.unanswered(question, stop)).collect());
        }
        let Some((mut conversation, mut computed)) = self.take_conversation(room, may_continue)? else {
            return Ok(questions.iter().map(|question| self.unanswered(question, stop)).collect());
        };
        let before = stop.start.elapsed();
        let generated = conversation.answer(&self.model, prepared, as_turn, stop, on_piece);
        self.conversation = Some(conversation);
        let answers = questions.iter().zip(generated?).map(|(question, mut generated)| {
            // The tokens of the context count for the first answer.
            generated.prefilled += std::mem::take(&mut computed);
            self.answer(question, generated, before)
        });
        Ok(answers.collect())
    }

    /// Prepares a question for decoding.
    ///
    /// # Errors
    /// If a flag of the radiograph has to be accepted and is not, the question does not suit its task (`Task::check`), or as
    /// [`PreparedQuestion::new`].
    fn prepare<'a>(&self, question: &'a Question) -> Result<PreparedQuestion<'a>> {
        if let Some(flag) = self.flags.iter().find(|flag| flag.code.must_be_accepted() && !question.accept_flags) {
            return Err(FlaggedError { name: self.name.clone(), flag: flag.clone() }.into());
        }
        question.task.map_or(Ok(()), |task| task.check(&question.text))?;
        let text = grounding::question_to_grid(&question.full_text(), &self.letterbox)?;
        let context = TextEnd { length: self.context.ids.len(), pending: &[], follows_turn: false };
        let end = self.conversation.as_ref().map_or(context, |conversation| conversation.end(question.follow_up));
        PreparedQuestion::new(&self.model, question, &text, end)
    }

    /// The answer to a question that was stopped during prefill of the context.
    fn unanswered(&self, question: &Question, stop: StopCondition) -> Answer {
        let finish = stop.reached(question.deadline).unwrap_or(Finish::Stopped);
        self.answer(question, Generated::empty(finish), stop.start.elapsed())
    }

    /// Takes the conversation, or opens one and prefills the context. Also returns how many tokens were prefilled; `None` if the prefill
    /// was stopped.
    fn take_conversation(&mut self, room: usize, may_continue: impl Fn() -> bool) -> Result<Option<(Conversation, usize)>> {
        if let Some(conversation) = self.conversation.take() {
            return Ok(Some((conversation, 0)));
        }
        let opened = Conversation::open(&self.model, &self.context, &self.perception, room, may_continue)?;
        Ok(opened.map(|opened| (opened, self.context.ids.len())))
    }

    /// The answer to a question, from what was generated. `before` is the time that the call took until then.
    fn answer(&self, question: &Question, generated: Generated, before: Duration) -> Answer {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let [prefilled, decoded] = generated.timing;
        let timing = Timing {
            prefill: Some(milliseconds(before + prefilled)),
            decode: Some(milliseconds(decoded)),
            total: Some(milliseconds(before + prefilled + decoded)),
            ..Timing::default()
        };
        let groundings = grounding::parse(&generated.raw, &self.letterbox);
        let evidence = match question.form {
            Form::Json(_) => Vec::new(),
            _ => {
                let facts = self.facts.get_or_init(|| Facts::new(&self.structures));
                facts.evidence(&self.structures, &question.text, &generated.readable, &groundings, &generated.marks)
            }
        };
        let answer = Answer {
            question: question.full_text(),
            task: question.task,
            text: generated.readable,
            groundings,
            evidence,
            raw: generated.raw,
            prefilled: generated.prefilled,
            tokens: generated.tokens,
            runs: generated.runs,
            log_probabilities: generated.log_probabilities,
            finish: generated.finish,
            flags: self.flags.clone(),
            provenance: Provenance { decoding: question.settings(self.model.uses_look_up()), ..self.provenance.clone() },
            timing,
        };
        self.log.write(LogLevel::Debug, || self.describe_answer(&answer));
        answer
    }

    /// A line on this study for the log. It holds no text, name or finding.
    pub(crate) fn describe(&self) -> String {
        let flags: Vec<&str> = self.flags.iter().map(|flag| flag.code.name()).collect();
        let flags = if flags.is_empty() { "no flags".into() } else { format!("flags {}", flags.join(", ")) };
        format!("study {}: {} x {} pixels, {}, {flags}", self.log_name(), self.width(), self.height(), steps(&self.timing))
    }

    /// A line on an answer for the log.
    fn describe_answer(&self, answer: &Answer) -> String {
        let Answer { prefilled, tokens, runs, .. } = *answer;
        let (study, finish) = (self.log_name(), answer.finish.name());
        format!(
            "answer on study {study}: {prefilled} tokens prefilled, {tokens} decoded in {runs} runs, {finish}, {}",
            steps(&answer.timing)
        )
    }

    /// How the log names this study: its name could hold a patient's.
    fn log_name(&self) -> &str {
        self.provenance.input_sha256.get(..12).unwrap_or_default()
    }

    /// The number of turns in the conversation: the last question that was not a follow-up, and the follow-ups after it.
    pub fn turns(&self) -> usize {
        self.conversation.as_ref().map_or(0, Conversation::turns)
    }

    /// Removes all turns of the conversation after the first `turns`. The next follow-up continues from there. The context stays in the KV
    /// cache.
    pub fn rewind(&mut self, turns: usize) {
        if let Some(conversation) = &mut self.conversation {
            conversation.rewind(turns);
        }
    }
}

fn steps(timing: &Timing) -> String {
    timing.steps().map(|(step, milliseconds)| format!("{step} {milliseconds:.1} ms")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::radiograph::Radiograph;
    use std::path::Path;

    /// There are more schemas than the grammar keeps: if all questions were prepared twice, all schemas would be compiled twice.
    #[test]
    fn a_question_is_prepared_once() {
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let engine = Engine::builder().golden_check(false).open(file("reference-bundle")).unwrap();
        let mut study = engine.study(&Radiograph::open(file("phantom.dcm")).unwrap()).unwrap();
        let questions = (0..12).map(|i| Question::new("What is it?").json_schema(format!(r#"{{"const": {i}}}"#)));
        let answers = study.ask_many(questions).unwrap();
        assert_eq!(answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>().join(" "), "0 1 2 3 4 5 6 7 8 9 10 11");
        assert_eq!(study.model.compiled_schemas(), 12);
        study.ask(Question::new("What is it?").json_schema(r#"{"const": 0}"#).follow_up()).unwrap();
        assert_eq!(study.model.compiled_schemas(), 13);
    }

    /// Training writes conversations by the same functions of the tokenizer, which it must agree with token by token.
    #[test]
    fn turns_are_the_tokens_of_their_texts() {
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let engine = Engine::builder().golden_check(false).open(file("reference-bundle")).unwrap();
        let mut study = engine.study(&Radiograph::open(file("phantom.dcm")).unwrap()).unwrap();
        let questions = ["Where is the left lung?", "What does it show?", "Is there a pleural effusion?"];
        let mut expected = Vec::new();
        for (turn, question) in questions.into_iter().enumerate() {
            let answer = study.ask(Question::new(question).follow_up()).unwrap();
            let tokenizer = &study.model.tokenizer;
            let asked = if turn == 0 { tokenizer.question(question) } else { tokenizer.follow_up(question) };
            expected.extend([asked.unwrap(), tokenizer.answer(&answer.raw).unwrap()].concat());
            assert_eq!(study.conversation.as_ref().unwrap().turn_tokens(), expected);
        }
    }
}
