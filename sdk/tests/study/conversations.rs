//! Follow-ups, several questions at once, and saved studies.

use super::*;
use anatomix::error::{DecoderError, ErrorCode};

#[test]
fn a_follow_up_continues_the_conversation() {
    let mut study = study();
    let first = study.ask(QUESTIONS[0]).unwrap();
    assert_eq!(study.turns(), 1);
    let follow_up = Question::new(QUESTIONS[1]).follow_up();
    let second = study.ask(follow_up.clone()).unwrap();
    // Its prefill consists of its own tokens, those that open a turn, and the previous answer's last one.
    let alone = self::study().ask(QUESTIONS[1]).unwrap().prefilled - self::study().ask(QUESTIONS[0]).unwrap().prefilled;
    assert_eq!(study.turns(), 2);
    assert!(second.prefilled < 40 && alone < 40, "{}", second.prefilled);

    // After a rewind to the first answer, the same follow-up has the same answer. A question that is not a follow-up sees no earlier turn.
    study.rewind(1);
    assert_eq!(study.turns(), 1);
    assert_eq!(essentials(study.ask(follow_up.clone()).unwrap()), essentials(second));
    assert_eq!(essentials(study.ask(QUESTIONS[0]).unwrap()), essentials(first));
    assert_eq!(study.turns(), 1);
    // A follow-up without an earlier turn is a first question.
    study.rewind(0);
    assert_eq!(essentials(study.ask(follow_up).unwrap()), essentials(self::study().ask(QUESTIONS[1]).unwrap()));
}

#[test]
fn earlier_turns_change_the_probabilities_of_a_follow_up() {
    let follow_up = |first: Option<&str>| {
        let mut study = study();
        first.into_iter().for_each(|first| drop(study.ask(first).unwrap()));
        study.ask(Question::new(QUESTIONS[1]).follow_up().log_probabilities()).unwrap().log_probabilities[0]
    };
    let [alone, one, other, again] = [None, Some(QUESTIONS[0]), Some(QUESTIONS[2]), Some(QUESTIONS[0])].map(follow_up);
    // Runs of several rows, whose number depends on time, leave keys and values that differ by rounding.
    assert!((one - again).abs() < 1e-3, "{one} and {again} after the same question");
    for (a, b) in [(alone, one), (alone, other), (one, other)] {
        assert!((a - b).abs() > 1e-3, "{alone} alone, {one} and {other} after others");
    }
}

#[test]
fn questions_are_asked_together() {
    let mut study = study();
    let alone = QUESTIONS.map(|question| essentials(self::study().ask(question).unwrap()));
    let mut pieces = vec![String::new(); 3];
    let answers = study.ask_many_streaming(QUESTIONS, |number, piece| {
        pieces[number].push_str(piece);
        Flow::Continue
    });
    let answers = answers.unwrap();
    assert_eq!(pieces, answers.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>());
    // The context was prefilled once and counts for the first answer.
    assert!(answers[0].prefilled > 900 && answers[1].prefilled < 40 && answers[2].prefilled < 40);
    assert_eq!(answers.into_iter().map(essentials).collect::<Vec<_>>(), alone);
    assert_eq!(study.turns(), 0);
    assert!(study.ask_many(Vec::<Question>::new()).unwrap().is_empty());

    // Each question has its own limits, and each can be stopped by itself.
    let mut limited = QUESTIONS.map(Question::new);
    limited[1] = Question::from(Task::Report).max_tokens(3);
    let answers = study.ask_many_streaming(limited, |number, _| if number == 0 { Flow::Stop } else { Flow::Continue }).unwrap();
    let finishes: Vec<_> = answers.iter().map(|answer| answer.finish).collect();
    assert_eq!(finishes, [Finish::Stopped, Finish::MaxTokens, Finish::EndOfTurn]);
    assert_eq!(essentials(answers[2].clone()), alone[2]);

    // One invalid question is an error for all of them, before anything is computed.
    let error = study.ask_many(["Where is the heart?", " "]).unwrap_err();
    assert!(error.to_string().starts_with("questions[1]: the question is empty; "), "{error}");
    assert_eq!(error.code(), ErrorCode::PromptQuestion);
    assert!(matches!(error, Error::Asked(asked) if asked.index == 1 && matches!(*asked.error, Error::Prompt(_))));
    let mixed = [Question::new(QUESTIONS[0]), Question::new(QUESTIONS[1]).follow_up()];
    assert!(study.ask_many(mixed).unwrap_err().to_string().contains("follow-ups"));
}

#[test]
fn follow_ups_are_asked_together() {
    let mut study = study();
    study.ask(QUESTIONS[0]).unwrap();
    let follow_ups = || [QUESTIONS[1], QUESTIONS[2]].map(|question| Question::new(question).follow_up());
    let together: Vec<_> = study.ask_many(follow_ups()).unwrap().into_iter().map(essentials).collect();
    assert_eq!(study.turns(), 1, "the conversation stays as it was");
    for (question, expected) in follow_ups().into_iter().zip(together) {
        assert_eq!(essentials(study.ask(question).unwrap()), expected);
        study.rewind(1);
    }
}

#[test]
fn questions_that_do_not_fit_together_wait_for_each_other() {
    // The conversation leaves little of the model's context: one answer fits, but not all of them together.
    let mut study = study();
    let most = ENGINE.bundle().manifest().decoder.max_context;
    let report = || Question::from(Task::Report).follow_up();
    let mut used = study.ask(report()).unwrap().prefilled;
    while used + 400 < most {
        let answer = study.ask(report()).unwrap();
        used += answer.prefilled + answer.tokens;
    }
    let turns = study.turns();
    let alone = essentials(study.ask(report()).unwrap());
    study.rewind(turns);
    for answer in study.ask_many((0..12).map(|_| report())).unwrap() {
        assert_eq!(essentials(answer), alone);
    }
}

#[test]
fn a_conversation_is_what_one_prompt_would_be() {
    // With look-up decoding the KV cache is filled by other runs than without. The follow-up's probabilities must be the same.
    let follow_up = Question::new(QUESTIONS[2]).follow_up().log_probabilities();
    let run = |engine: &Engine| {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm");
        let mut study = engine.study(&Radiograph::open(image).unwrap()).unwrap();
        study.ask(QUESTIONS[1]).unwrap();
        study.ask(Question::new(QUESTIONS[0]).follow_up()).unwrap();
        study.ask(follow_up.clone()).unwrap()
    };
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle");
    let (looked_up, plain) = (run(&ENGINE), run(&Engine::builder().provider(Provider::Cpu).look_up(false).open(bundle).unwrap()));
    assert_eq!((&looked_up.text, &looked_up.groundings, looked_up.tokens), (&plain.text, &plain.groundings, plain.tokens));
    for (a, b) in looked_up.log_probabilities.iter().zip(&plain.log_probabilities) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn a_cache_grows_while_an_answer_does() {
    let mut grown = study();
    // This study's KV cache starts with the smallest capacity and grows with the answers.
    grown.ask(Question::new(QUESTIONS[1]).max_tokens(1)).unwrap();
    let report = || Question::from(Task::Report).follow_up();
    // This study's KV cache has its final capacity before the questions that are compared.
    let mut whole = study();
    (0..5).for_each(|_| drop(whole.ask(report()).unwrap()));
    whole.ask(Question::new(QUESTIONS[1]).max_tokens(1)).unwrap();
    for _ in 0..4 {
        assert_eq!(essentials(grown.ask(report()).unwrap()), essentials(whole.ask(report()).unwrap()));
    }
    // A question beyond the model's context is refused and changes nothing.
    let error = (0..100).find_map(|_| grown.ask(report()).err()).expect("a conversation has an end").to_string();
    assert!(error.contains("leaves no room"), "{error}");
    let turns = grown.turns();
    assert!(grown.ask(report()).is_err() && grown.ask_many([report(), report()]).is_err());
    assert_eq!(grown.turns(), turns);
    assert_eq!(essentials(grown.ask(QUESTIONS[1]).unwrap()), essentials(study().ask(QUESTIONS[1]).unwrap()));
}

#[test]
fn a_saved_study_goes_on_where_it_was() {
    let mut first = study();
    let answers: Vec<_> = QUESTIONS.map(|q| essentials(first.ask(q).unwrap())).into();
    let bytes = first.save().unwrap();
    assert!(anatomix::is_saved_study(&bytes) && bytes.len() as u64 > ENGINE.study_bytes(300));
    assert_eq!(first.turns(), 1, "saving changes nothing");
    let mut loaded = ENGINE.load_study(&bytes).unwrap();
    assert_eq!((loaded.structures(), loaded.labels(), loaded.flags()), (first.structures(), first.labels(), first.flags()));
    assert_eq!((loaded.provenance(), loaded.name(), loaded.width()), (first.provenance(), first.name(), first.width()));
    for (question, expected) in QUESTIONS.into_iter().zip(answers) {
        let answer = loaded.ask(question).unwrap();
        assert!(answer.prefilled < 30, "{} tokens were computed again", answer.prefilled);
        assert_eq!(essentials(answer), expected);
    }
    // A study without questions saves the same bytes, with the context prefilled.
    assert_eq!(study().save().unwrap(), bytes);
}

/// A schema that can be compiled, but has more choices in an answer than are followed.
fn too_complex(choices: usize) -> String {
    let properties: Vec<String> = (0..choices).map(|i| format!(r#""{i}":{{"type":"number"}}"#)).collect();
    format!(r#"{{"type":"object","properties":{{{}}}}}"#, properties.join(","))
}

#[test]
fn a_deadline_covers_the_compilation_of_a_schema() {
    let mut study = study();
    for turn in 0..2 {
        // Schemas that were compiled before are kept.
        let question = |choices| Question::new(QUESTIONS[0]).json_schema(too_complex(choices)).deadline(Duration::from_millis(1));
        let answer = study.ask(question(600 + turn)).unwrap();
        assert_eq!((answer.finish, answer.tokens, answer.prefilled, study.turns()), (Finish::Deadline, 0, 0, 0), "{turn}");
        study.ask(QUESTIONS[0]).unwrap();
        // One of several is late, and the others are answered.
        let answers = study.ask_many([question(700 + turn), Question::new(QUESTIONS[0])]).unwrap();
        assert_eq!([0, 1].map(|i| answers[i].finish), [Finish::Deadline, Finish::EndOfTurn]);
        assert_eq!(answers[0].tokens, 0);
    }
}

#[test]
fn a_question_that_fails_leaves_the_conversation_as_it_was() {
    let (mut study, mut other) = (study(), study());
    let follow_up = |text: &str| Question::new(text).follow_up().log_probabilities();
    for study in [&mut study, &mut other] {
        study.ask(QUESTIONS[0]).unwrap();
        study.ask(follow_up(QUESTIONS[1])).unwrap();
    }
    let failing = || Question::new(QUESTIONS[2]).json_schema(too_complex(600));
    let check = |study: &mut Study, other: &mut Study, turns: usize| {
        assert_eq!(study.turns(), turns);
        let [after, before] = [&mut *study, &mut *other].map(|study| study.ask(follow_up(QUESTIONS[2])).unwrap());
        assert!(after.prefilled >= before.prefilled);
        for (a, b) in after.log_probabilities.iter().zip(&before.log_probabilities) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        assert_eq!(essentials(after), essentials(before));
        [study, other].into_iter().for_each(|study| study.rewind(turns));
    };
    // A new question, a follow-up, and several.
    for question in [failing(), failing().follow_up()] {
        let error = study.ask(question).unwrap_err();
        assert!(matches!(error, Error::Decoder(DecoderError::Schema { .. })), "{error}");
        assert!(error.code() == ErrorCode::DecoderSchema && error.to_string().contains("simplify"), "{error}");
        check(&mut study, &mut other, 2);
    }
    let error = study.ask_many([Question::new(QUESTIONS[0]), failing()]).unwrap_err();
    assert!(matches!(&error, Error::Asked(asked) if asked.index == 1) && error.code() == ErrorCode::DecoderSchema, "{error}");
    check(&mut study, &mut other, 2);
    // The turns can be removed one by one, before they are computed again or after.
    study.ask(failing()).unwrap_err();
    [&mut study, &mut other].into_iter().for_each(|study| study.rewind(1));
    check(&mut study, &mut other, 1);
    study.ask(failing()).unwrap_err();
    study.ask(failing()).unwrap_err();
    check(&mut study, &mut other, 1);
    [&mut study, &mut other].into_iter().for_each(|study| study.rewind(0));
    check(&mut study, &mut other, 0);
}
