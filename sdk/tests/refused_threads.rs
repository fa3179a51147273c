//! What happens if the system refuses threads (`ulimit -u`): opening an engine is an error that says so, radiographs are read on the
//! calling thread, and nothing fails for longer than threads are refused. The file has one test, because the limit is one of the process.
#![cfg(target_os = "linux")]

#[allow(dead_code)]
#[path = "radiographs/file.rs"]
mod file;

use anatomix::error::{ErrorCode, RadiographError, RuntimeError};
use anatomix::{Engine, Error, Histogram, PerceiveOptions, Preprocess, Provider, Question, Radiograph, Task};
use dicom_dictionary_std::{tags, uids};
use file::File;
use jpeg_encoder::{ColorType, Encoder};
use rustix::process::{Resource, Rlimit, Uid, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::thread::Builder;
use std::time::Duration;

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Refuses all threads of this user, or allows them again.
fn refuse(refuse: bool) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: if refuse { Some(0) } else { maximum }, maximum }).unwrap();
    assert_eq!(Builder::new().spawn(|| ()).is_err(), refuse, "the limit has no effect");
}

fn open(threads: usize) -> Result<Engine, Error> {
    Engine::builder().provider(Provider::Cpu).golden_check(false).threads(threads).open(root("examples/reference-bundle"))
}

/// A DICOM whose JPEG is large enough for several threads.
fn jpeg() -> Vec<u8> {
    let (side, mut bytes) = (200, Vec::new());
    Encoder::new(&mut bytes, 80).encode(&[77; 200 * 200], side, side, ColorType::Luma).unwrap();
    let file = File::new().word(tags::ROWS, side).word(tags::COLUMNS, side).bits(8, 8, 7, false);
    file.packed(uids::JPEG_BASELINE8_BIT, vec![bytes]).bytes()
}

fn is_refused<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(error @ Error::Runtime(RuntimeError::Threads { .. })) if error.to_string().contains("ulimit -u"))
}

#[test]
fn nothing_fails_for_longer_than_threads_are_refused() {
    // The limit does not bind root, so this thread and those that it starts become another user's.
    if rustix::process::getuid().is_root() {
        rustix::thread::set_thread_uid(Uid::from_raw(65534)).unwrap();
    }
    let preprocess = Preprocess { version: 1, size: 224, histogram: Histogram::Equalize };
    let read =
        || Radiograph::open(root("examples/phantom.dcm")).map(|radiograph| (radiograph.preprocess(&preprocess).unwrap(), radiograph));
    let (bytes, jpeg) = (jpeg(), "jpeg.dcm");

    // Before there was any thread.
    refuse(true);
    assert!(is_refused(&open(0)), "an engine was opened without threads");
    let (alone, radiograph) = read().unwrap();
    assert!(matches!(Radiograph::from_bytes(&bytes, jpeg), Err(RadiographError::Threads { .. })));

    // The same process afterwards.
    refuse(false);
    assert_eq!(read().unwrap().0, alone);
    assert!(Radiograph::from_bytes(&bytes, jpeg).is_ok());
    let engine = open(1).unwrap();

    // An engine that was opened before.
    refuse(true);
    let mut study = engine.study(&radiograph).unwrap();
    assert!(engine.studies(&vec![radiograph.clone(); 3]).iter().all(Result::is_ok));
    assert!(!study.ask(Task::Report).unwrap().text.is_empty());
    let schema = || Question::new("Which side?").json_schema(r#"{"enum": ["left", "right"]}"#);
    let error = study.ask(schema());
    assert!(is_refused(&error) && error.unwrap_err().code() == ErrorCode::RuntimeThreads, "a schema was compiled without a thread");
    assert_eq!(study.turns(), 1);
    let limited = PerceiveOptions::new().deadline(Duration::from_secs(600));
    assert!(is_refused(&engine.study_with(&radiograph, &limited)), "a deadline was kept without a thread");
    assert!(is_refused(&open(0)), "a second engine was opened without threads");
    refuse(false);
    assert!(engine.study_with(&radiograph, &limited).is_ok());
    assert!(study.ask(schema()).is_ok());
    assert!(open(0).is_ok());
}
