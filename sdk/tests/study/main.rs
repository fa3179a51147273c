//! Studies with the reference bundle: the context is prefilled once, and a question does not affect the next one.

mod conversations;

use anatomix::error::StoppedError;
use anatomix::output::{OutputError, Overlay};
use anatomix::{Answer, Engine, Error, Finish, Flow, Provider, Question, Radiograph, Sampling, Study, Task};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

const QUESTIONS: [&str; 3] = ["Where is the left lung?", "Is there a pleural effusion?", "What does the left lung show?"];

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle");
    Engine::builder().provider(Provider::Cpu).open(bundle).unwrap()
});

fn study() -> Study {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm");
    ENGINE.study(&Radiograph::open(image).unwrap()).unwrap()
}

/// What must be equal in equal answers.
fn essentials(answer: Answer) -> (String, Vec<anatomix::Grounding>, usize) {
    (answer.text, answer.groundings, answer.tokens)
}

#[test]
fn a_capture_shows_its_own_study_only() {
    let radiograph = Radiograph::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm")).unwrap();
    let other = Radiograph::from_pixels_u8(256, 256, &(0..=255).cycle().take(256 * 256).collect::<Vec<u8>>()).unwrap();
    let mut study = study();
    let answer = study.ask(QUESTIONS[0]).unwrap();
    let own = [Overlay::of_study(&study, &radiograph), Overlay::of_answer(&answer, &radiograph), Overlay::new(&radiograph, vec![])];
    for overlay in own {
        assert_eq!(&study.secondary_capture(&overlay.unwrap()).to_bytes().unwrap()[128..132], b"DICM");
    }
    // A picture of another radiograph, and boxes of another one.
    let other_answer = ENGINE.study(&other).unwrap().ask(Question::new(QUESTIONS[0]).accept_flags()).unwrap();
    for overlay in [Overlay::of_answer(&answer, &other), Overlay::of_answer(&other_answer, &radiograph), Overlay::new(&other, vec![])] {
        let refused = study.secondary_capture(&overlay.unwrap()).to_bytes().unwrap_err();
        assert!(matches!(refused, OutputError::ForeignOverlay { .. }), "{refused}");
    }
}

#[test]
fn answers_do_not_depend_on_earlier_questions() {
    let mut kept = study();
    let report = essentials(kept.ask(Task::Report).unwrap());
    for question in QUESTIONS {
        assert_eq!(essentials(kept.ask(question).unwrap()), essentials(study().ask(question).unwrap()), "{question}");
    }
    assert_eq!(essentials(kept.ask(Task::Report).unwrap()), report);
}

#[test]
fn the_context_is_computed_with_the_first_question() {
    let mut study = study();
    let mut prefilled = |question| study.ask(question).unwrap().prefilled;
    let (first, second) = (prefilled(QUESTIONS[0]), prefilled(QUESTIONS[0]));
    assert!(first > 900 && second < 30, "{first} tokens, then {second}");
    assert_eq!(prefilled(QUESTIONS[1]) + first - second, self::study().ask(QUESTIONS[1]).unwrap().prefilled);
}

#[test]
fn a_question_that_needs_more_room_gets_it() {
    let mut small = study();
    small.ask(QUESTIONS[1]).unwrap();
    let long = Question::new(QUESTIONS[0]).max_tokens(700);
    assert_eq!(essentials(small.ask(long.clone()).unwrap()), essentials(study().ask(long).unwrap()));
    let error = small.ask("very ".repeat(1200)).unwrap_err().to_string();
    assert!(error.contains("shorten the question"), "{error}");
    // The refused question changed nothing.
    assert_eq!(essentials(small.ask(QUESTIONS[1]).unwrap()), essentials(study().ask(QUESTIONS[1]).unwrap()));
}

#[test]
fn an_engine_notes_that_its_bundle_was_checked_on_other_processors() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(reference).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut notes = |checked_on: &[&str]| {
        manifest["checked_on"] = checked_on.into();
        std::fs::write(&path, manifest.to_string()).unwrap();
        Engine::builder().provider(Provider::Cpu).golden_check(false).open(folder.path()).unwrap().notes().to_vec()
    };
    let own = anatomix::parts::runtime::processor();
    let others: Vec<&str> = anatomix::parts::runtime::PROCESSORS.into_iter().filter(|name| *name != own).collect();
    assert_eq!(notes(&[]), Vec::<String>::new());
    assert_eq!(notes(&[others[0], own]), Vec::<String>::new());
    let notes = notes(&others);
    assert!(notes.len() == 1 && notes[0].contains(&format!("not on {own}, ")), "{notes:?}");
}

#[test]
fn pieces_add_up_and_a_callback_may_stop() {
    let mut study = study();
    let mut pieces = String::new();
    let whole = study
        .ask_streaming(Task::Report, |piece| {
            pieces.push_str(piece);
            Flow::Continue
        })
        .unwrap();
    assert_eq!((pieces, whole.finish), (whole.text.clone(), Finish::EndOfTurn));
    let stopped = study.ask_streaming(Task::Report, |_| Flow::Stop).unwrap();
    assert_eq!(stopped.finish, Finish::Stopped);
    assert!(whole.text.starts_with(&stopped.text) && stopped.text.len() < whole.text.len());
    let cut = study.ask(Question::from(Task::Report).max_tokens(3)).unwrap();
    assert_eq!((cut.finish, cut.tokens), (Finish::MaxTokens, 3));
}

/// Crops of the phantom, each of another size.
fn views(count: u32) -> Vec<Radiograph> {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/phantom.dcm");
    let whole = Radiograph::open(image).unwrap();
    let view = |cut: u32| {
        let intensities = whole.intensities().unwrap();
        let rows = intensities.outer_iter().skip(cut as usize);
        let pixels: Vec<u16> =
            rows.flat_map(|row| row.iter().skip(2 * cut as usize).map(|v| (v * 65535.0) as u16).collect::<Vec<_>>()).collect();
        Radiograph::from_pixels_u16(whole.width() - 2 * cut, whole.height() - cut, &pixels).unwrap()
    };
    (0..count).map(|index| view(5 * index)).collect()
}

#[test]
fn several_radiographs_give_the_studies_that_each_gives_alone() {
    // The radiographs take two batches, the second of which is not full.
    let radiographs = views(ENGINE.batch_size() as u32 + 3);
    let together: Vec<Study> = ENGINE.studies(&radiographs).into_iter().map(Result::unwrap).collect();
    assert_eq!(together.len(), radiographs.len());
    let near = |a: f32, b: f32, what: &str| assert!((a - b).abs() <= 1e-4, "{what}: {a} alone, {b} together");
    for (radiograph, together) in radiographs.iter().zip(&together) {
        let alone = ENGINE.study(radiograph).unwrap();
        assert_eq!((alone.width(), alone.height()), (together.width(), together.height()));
        assert_eq!(alone.provenance(), together.provenance());
        let steps = |study: &Study| study.timing().steps().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(&alone), steps(together));
        let codes = |study: &Study| study.flags().iter().map(|flag| flag.code).collect::<Vec<_>>();
        assert_eq!(codes(&alone), codes(together));
        for (a, b) in alone.structures().iter().zip(together.structures()) {
            assert_eq!((a.structure, &a.sentence.text), (b.structure, &b.sentence.text));
            near(a.sentence.similarity, b.sentence.similarity, "a similarity");
            for (a, b) in [(a.bounds.x0, b.bounds.x0), (a.bounds.y0, b.bounds.y0), (a.bounds.x1, b.bounds.x1), (a.bounds.y1, b.bounds.y1)] {
                assert!((a - b).abs() <= 0.05, "a side: {a} alone, {b} together");
            }
        }
        alone.labels().iter().zip(together.labels()).for_each(|(a, b)| near(a.score, b.score, "a score"));
    }
    assert_ne!(together[0].structures(), together[9].structures());
    assert!(ENGINE.studies(&[]).is_empty());
    // Studies that were perceived together can be asked.
    let mut last = together.into_iter().next_back().unwrap();
    let alone = ENGINE.study(&radiographs[radiographs.len() - 1]).unwrap().ask(QUESTIONS[0]).unwrap();
    assert_eq!(essentials(last.ask(QUESTIONS[0]).unwrap()), essentials(alone));
}

/// Perceiving, single questions, a conversation and several at once: what each caller gets is what it gets alone.
#[test]
fn callers_side_by_side_get_what_each_gets_alone() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let engine = Engine::builder().provider(Provider::Cpu).threads(1).open(image.join("reference-bundle")).unwrap();
    let radiographs = views(4);
    let work = |caller: usize| {
        let mut study = engine.study(&radiographs[caller % radiographs.len()]).unwrap();
        let mut answers = match caller % 3 {
            0 => vec![study.ask(Task::Report).unwrap()],
            1 => vec![study.ask(QUESTIONS[0]).unwrap(), study.ask(Question::new("What does it show?").follow_up()).unwrap()],
            _ => study.ask_many(QUESTIONS).unwrap(),
        };
        answers.push(study.ask(QUESTIONS[caller % QUESTIONS.len()]).unwrap());
        (study.structures().to_vec(), study.labels().to_vec(), answers.into_iter().map(essentials).collect::<Vec<_>>())
    };
    let alone: Vec<_> = (0..8).map(work).collect();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|caller| scope.spawn(move || work(caller))).collect();
        for (caller, alone) in callers.into_iter().zip(alone) {
            assert_eq!(caller.join().unwrap(), alone);
        }
    });
}

/// A slow streaming callback does not block other callers.
#[test]
fn a_slow_callback_does_not_block_other_callers() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (mut slow, mut quick) = (study(), study());
    std::thread::scope(|scope| {
        let mut waited = false;
        let slow = scope.spawn(move || {
            slow.ask_streaming(QUESTIONS[0], |_| {
                // The callback waits for the other answer's first piece, which comes only if the other caller can compute meanwhile.
                if !std::mem::replace(&mut waited, true) {
                    receiver.recv_timeout(Duration::from_secs(600)).expect("the other caller has answered meanwhile");
                }
                Flow::Continue
            })
        });
        let quick = quick.ask_streaming(QUESTIONS[1], |_| {
            let _ = sender.send(());
            Flow::Continue
        });
        assert_eq!((quick.unwrap().finish, slow.join().unwrap().unwrap().finish), (Finish::EndOfTurn, Finish::EndOfTurn));
    });
}

#[test]
fn more_threads_than_cores_are_refused() {
    let cores = anatomix::parts::runtime::cores();
    let open = |threads| Engine::builder().threads(threads).open("/no/such/bundle").map(|_| ()).unwrap_err().to_string();
    for threads in [cores + 1, 64 * cores, usize::MAX] {
        let told = open(threads);
        assert!(told.starts_with(&format!("{threads} threads")) && told.contains(&format!("ask for 1 to {cores},")), "{told}");
    }
    for threads in [0, 1, cores] {
        assert!(open(threads).contains("/no/such/bundle"));
    }
}

#[test]
fn a_text_ends_an_answer() {
    let mut study = study();
    let whole = study.ask(Task::Report).unwrap();
    let (before, _) = whole.text.split_once("Impression").expect("a report has an impression");
    let mut pieces = String::new();
    let cut = study.ask_streaming(Question::from(Task::Report).stop("not in the answer").stop("Impression"), |piece| {
        pieces.push_str(piece);
        Flow::Continue
    });
    let cut = cut.unwrap();
    assert_eq!((cut.text.as_str(), cut.finish), (before, Finish::StopText));
    assert_eq!(pieces, before);
    let other = study.ask(Question::from(Task::Report).stop("not in the answer")).unwrap();
    assert_eq!(essentials(other), essentials(whole));
}

#[test]
fn an_answer_ends_at_its_deadline() {
    let mut study = study();
    // The deadline passes during prefill of the context, which is then discarded.
    let answer = study.ask(Question::from(Task::Report).deadline(Duration::ZERO)).unwrap();
    assert_eq!((answer.finish, answer.tokens, answer.text.as_str()), (Finish::Deadline, 0, ""));
    let late = study.ask_many([Question::from(Task::Report).deadline(Duration::ZERO), QUESTIONS[0].into()]).unwrap();
    assert_eq!((late[0].finish, late[0].tokens, late[1].finish), (Finish::Deadline, 0, Finish::EndOfTurn));
    assert!(late[0].prefilled > 300, "{}", late[0].prefilled);
    // The context is in the KV cache.
    let answer = study.ask(Question::from(Task::Report).deadline(Duration::ZERO)).unwrap();
    assert_eq!((answer.finish, answer.tokens), (Finish::Deadline, 0));
    let answer = study.ask(Question::from(Task::Report).deadline(Duration::from_secs(3600))).unwrap();
    assert_eq!(answer.finish, Finish::EndOfTurn);
}

#[test]
fn a_request_to_stop_before_a_call_ends_that_call_and_no_other() {
    let mut study = study();
    let cancel = study.cancel_handle();
    let is_stopped = |answer: &Answer| (answer.finish, answer.tokens, answer.prefilled, answer.raw.as_str()) == (Finish::Stopped, 0, 0, "");
    cancel.cancel();
    assert!(matches!(study.save(), Err(Error::Stopped(StoppedError::Cancelled))));
    cancel.cancel();
    assert!(is_stopped(&study.ask(QUESTIONS[0]).unwrap()));
    assert_eq!(study.ask(QUESTIONS[0]).unwrap().finish, Finish::EndOfTurn);
    // A question that is refused does not take the request. The conversation stays as it was.
    cancel.cancel();
    assert!(study.ask("").is_err() && study.ask_many([""]).is_err());
    assert_eq!(study.turns(), 1);
    // Questions that begin a new conversation end the old one, also if they are stopped at once.
    assert!(study.ask_many([QUESTIONS[0], QUESTIONS[1]]).unwrap().iter().all(is_stopped));
    assert_eq!(study.turns(), 0);
    // A request that comes too late for an answer does not stop the next one.
    let limited = Question::from(Task::Report).max_tokens(3);
    let answer = study.ask_streaming(limited, |_| {
        cancel.cancel();
        Flow::Continue
    });
    assert!(answer.unwrap().tokens > 0);
    assert_eq!(study.ask(QUESTIONS[0]).unwrap().finish, Finish::EndOfTurn);
    // What does not compute anything is not stopped, but takes the request.
    cancel.cancel();
    assert!(study.save().is_ok());
    assert_eq!(study.ask(QUESTIONS[0]).unwrap().finish, Finish::EndOfTurn);
}

#[test]
fn cancelling_ends_answers_that_wait_too() {
    let mut study = study();
    let cancel = study.cancel_handle();
    let answers = study.ask_many_streaming(std::iter::repeat_n(Question::from(Task::Report), 40), |_, _| {
        cancel.cancel();
        Flow::Continue
    });
    let answers = answers.unwrap();
    assert!(answers.iter().all(|answer| answer.finish == Finish::Stopped));
    // Some answers were being decoded when the cancellation came; the others were waiting.
    assert!((1..=16).contains(&answers.iter().filter(|answer| answer.tokens > 0).count()));
    assert_eq!(study.ask(Task::Report).unwrap().finish, Finish::EndOfTurn);
}

#[test]
fn a_long_question_can_be_stopped() {
    let mut study = study();
    study.ask(QUESTIONS[0]).unwrap();
    // The question is prefilled in several runs, and its deadline passes in the first of them.
    let long = Question::new("Where is the left lung? ".repeat(80)).deadline(Duration::ZERO);
    let answer = study.ask(long.clone()).unwrap();
    assert_eq!((answer.finish, answer.tokens, answer.prefilled), (Finish::Deadline, 0, 0));
    assert!(answer.timing.prefill > Some(0.0) && answer.timing.decode == Some(0.0));
    // It is not a turn of the conversation, so that the next question does not include it.
    assert_eq!(study.turns(), 0);
    let again = study.ask(Question::new(QUESTIONS[0]).follow_up()).unwrap();
    assert!(again.prefilled < 40, "{}", again.prefilled);
    let stopped = study.ask(long.clone().follow_up()).unwrap();
    assert_eq!((stopped.finish, study.turns()), (Finish::Deadline, 1));
    let late = study.ask_many([long, QUESTIONS[0].into()]).unwrap();
    assert_eq!((late[0].finish, late[1].finish), (Finish::Deadline, Finish::EndOfTurn));
    assert_eq!(essentials(late[1].clone()), essentials(self::study().ask(QUESTIONS[0]).unwrap()));
}

#[test]
fn a_refused_question_changes_nothing() {
    let [mut study, mut other] = [(); 2].map(|()| {
        let mut study = self::study();
        study.ask(QUESTIONS[0]).unwrap();
        study.ask(Question::new(QUESTIONS[0]).follow_up()).unwrap();
        study
    });
    let refused = [
        Question::new("Where?").sampling(Sampling { top_p: 2.0, ..Sampling::default() }),
        Question::new("where ".repeat(10_000)),
        Question::new("What is in <box>(1,2)</box>?"),
        Question::new("Where?").json_schema("{"),
    ];
    for refused in refused {
        for (valid, refused) in
            [(Question::new(QUESTIONS[0]), refused.clone()), (Question::new(QUESTIONS[0]).follow_up(), refused.follow_up())]
        {
            assert!(study.ask(refused.clone()).is_err());
            assert!(study.ask_many([valid, refused]).is_err());
            assert_eq!(study.turns(), 2);
        }
    }
    let follow_up = || Question::new(QUESTIONS[1]).follow_up();
    assert_eq!(essentials(study.ask(follow_up()).unwrap()), essentials(other.ask(follow_up()).unwrap()));
}

#[test]
fn log_probabilities_are_those_of_the_tokens() {
    let mut study = study();
    assert!(study.ask(QUESTIONS[0]).unwrap().log_probabilities.is_empty());
    let answer = study.ask(Question::new(QUESTIONS[0]).log_probabilities()).unwrap();
    assert_eq!(answer.log_probabilities.len(), answer.tokens);
    assert!(answer.log_probabilities.iter().all(|&p| p <= 0.0 && p.is_finite()), "{:?}", answer.log_probabilities);
    // The first token of a greedy answer is likely.
    assert!(answer.log_probabilities[0] > 0.5f32.ln(), "{:?}", answer.log_probabilities);
}

#[test]
fn sampling_follows_its_settings() {
    let mut study = study();
    let mut draw = |temperature, seed| {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        study.ask(Question::from(Task::Report).sampling(sampling).max_tokens(40)).unwrap()
    };
    let greedy = draw(0.0, 1);
    assert_eq!(greedy.provenance.decoding, "greedy, grounded, max_tokens 40, look_up on");
    assert_eq!(essentials(draw(1e-3, 1)), essentials(greedy.clone()), "almost no freedom");
    let (a, b, again) = (draw(3.0, 1), draw(3.0, 2), draw(3.0, 1));
    assert_eq!(a.provenance.decoding, "sampled, temperature 3, top_k 0, top_p 1, seed 1, grounded, max_tokens 40, look_up on");
    assert_eq!(essentials(a.clone()), essentials(again));
    assert_ne!(a.text, b.text);
    let one = Sampling { temperature: 3.0, top_k: 1, ..Sampling::default() };
    let only = study.ask(Question::from(Task::Report).sampling(one).max_tokens(40)).unwrap();
    assert_eq!(essentials(only), essentials(greedy), "one candidate");
    let error = study.ask(Question::from(Task::Report).sampling(Sampling { top_p: 2.0, ..one })).unwrap_err().to_string();
    assert_eq!(error, "top_p is 2, but must be above 0 to 1");
}
