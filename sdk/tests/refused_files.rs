//! What happens if the system refuses to open more files (`ulimit -n`): each step that needs one says so, and none blames the bundle or the
//! radiograph. The file has one test, because the limit is one of the process.
#![cfg(target_os = "linux")]

use anatomix::{Engine, Error, Provider, Radiograph, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// Calls `work` with this many files left to open.
fn with_files<T>(left: u64, work: impl FnOnce() -> T) -> T {
    let whole = getrlimit(Resource::Nofile);
    let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + left), ..whole }).unwrap();
    let done = work();
    setrlimit(Resource::Nofile, whole).unwrap();
    done
}

/// Works with more and more files until they are enough. Returns how often they were too few.
fn until_enough<T>(work: impl Fn() -> Result<T>) -> (u64, T) {
    for left in 0..50 {
        match with_files(left, &work) {
            Ok(done) => return (left, done),
            Err(error) => check(&error, left),
        }
    }
    panic!("50 files are not enough");
}

fn check(error: &Error, left: u64) {
    let message = error.full_message();
    println!("{left} files: {message}");
    let (advice, cause) = message.split_once("; caused by: ").unwrap_or_else(|| panic!("{left}: {message}"));
    assert!(advice.ends_with("; too many files are open; close some, or raise the limit of open files (ulimit -n)"), "{left}: {message}");
    assert!(!cause.is_empty());
}

#[test]
fn what_cannot_be_opened_is_said_to_be_refused_by_the_system() {
    let (refused, radiograph) = until_enough(|| Radiograph::open(example("phantom.dcm")).map_err(Error::from));
    assert_eq!(refused, 1);
    let open = || Engine::builder().provider(Provider::Cpu).golden_check(false).open(example("reference-bundle"));
    let (refused, engine) = until_enough(open);
    assert!(refused > 0, "{refused}");
    // Nothing is left open by an engine that could not be opened, and an engine needs no more files.
    let mut study = with_files(0, || engine.study(&radiograph)).unwrap();
    assert!(!with_files(0, || study.ask("Where is the left lung?")).unwrap().text.is_empty());
}
