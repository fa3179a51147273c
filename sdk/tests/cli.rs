//! The command line without a bundle: wrong usage exits with 2, a missing bundle or file with 1.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use rstest::rstest;

fn anatomix(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("anatomix"));
    command.args(arguments).env_remove("ANATOMIX_BUNDLE");
    command
}

#[rstest]
#[case::no_command(&[])]
#[case::unknown_command(&["look"])]
#[case::no_image(&["perceive"])]
#[case::no_question(&["ask", "chest.png"])]
#[case::empty_question(&["ask", "chest.png", " ", "--task", "phrase_grounding"])]
#[case::unknown_task(&["ask", "chest.png", "Why?", "--task", "poetry"])]
#[case::unknown_provider(&["perceive", "chest.png", "--provider", "abacus"])]
#[case::no_threads(&["perceive", "chest.png", "--threads", "0"])]
#[case::threads_of_no_machine(&["perceive", "chest.png", "--threads", "18446744073709551615"])]
#[case::more_threads_than_a_number_holds(&["perceive", "chest.png", "--threads", "99999999999999999999999"])]
#[case::no_tokens(&["report", "chest.png", "--max-tokens", "0"])]
#[case::no_time(&["report", "chest.png", "--deadline", "-1"])]
#[case::no_number(&["report", "chest.png", "--temperature", "warm"])]
#[case::probabilities_for_people(&["report", "chest.png", "--log-probabilities"])]
#[case::several_images_into_one_overlay(&["perceive", "a.png", "b.png", "--overlay", "no/such/folder"])]
fn wrong_usage_exits_with_2(#[case] arguments: &[&str]) {
    anatomix(arguments).assert().code(2).stdout(is_empty()).stderr(contains("--help"));
}

#[test]
fn more_threads_than_cores_are_wrong_usage() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let with =
        |threads: usize| anatomix(&["perceive", "chest.png", "--bundle", "/no/such/bundle", "--threads", &threads.to_string()]).assert();
    for threads in [cores + 1, 100_000] {
        with(threads).code(2).stdout(is_empty()).stderr(contains(format!("the machine runs {cores} at a time; ask for 1 to {cores},")));
    }
    with(cores).code(1).stderr(contains("/no/such/bundle"));
}

#[rstest]
#[case::perceive(&["perceive", "../examples/phantom.dcm"])]
#[case::ask(&["ask", "../examples/phantom.dcm", "Why?"])]
#[case::report(&["report", "../examples/phantom.dcm"])]
#[case::info(&["bundle", "info"])]
fn a_missing_bundle_is_named(#[case] arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let one_line = |text: &str| text.contains(missing.to_str().unwrap()) && text.lines().count() == 1;
    let named = |command: &mut Command| command.assert().code(1).stdout(is_empty()).stderr(predicate::function(one_line));
    named(anatomix(arguments).arg("--bundle").arg(&missing));
    named(anatomix(arguments).env("ANATOMIX_BUNDLE", &missing));
}

#[test]
fn places_without_a_bundle_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("anatomix");
    // Copied by another process: if this one had it open for writing, a program that another test starts meanwhile would inherit that,
    // and the copy could not be run ("Text file busy").
    Command::new("cp").arg(assert_cmd::cargo::cargo_bin!("anatomix")).arg(&program).assert().success();
    let places = contains("tried examples/reference-bundle, ").and(contains("--bundle DIR or ANATOMIX_BUNDLE"));
    Command::new(&program)
        .args(["bundle", "info"])
        .env_remove("ANATOMIX_BUNDLE")
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stderr(places.and(contains(folder.path().join("reference-bundle").to_str().unwrap())));
}

#[test]
fn a_missing_library_is_named() {
    let missing = "/no/such/libonnxruntime.so";
    anatomix(&["providers", "--library", missing]).assert().code(1).stderr(contains(missing));
}
