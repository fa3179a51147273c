//! The command line with names and flags that would give a terminal orders, and files that have no end.

use super::saved::Parts;
use super::{Copy, ENGINE, example, study};
use assert_cmd::Command;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Colours, clears the screen, rings, goes back to the line's beginning, turns the text around, and begins a new line.
const ORDERS: &str = "red\u{1b}[31m\u{9b}2J\u{7}\r\u{202e}\nerror: forged";

fn anatomix(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("anatomix"));
    command.args(arguments).arg("--no-golden").env("ANATOMIX_BUNDLE", example("reference-bundle")).timeout(Duration::from_secs(120));
    command
}

/// Runs the program and returns its exit code and what it printed, in which there are no orders.
fn run(command: &mut Command) -> (i32, String, String) {
    let done = command.output().unwrap();
    let [out, error] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    for text in [&out, &error] {
        let order = text.chars().find(|&c| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}'));
        assert_eq!(order, None, "{text:?}");
        assert!(text.lines().all(|line| line != "error: forged"), "{text:?}");
    }
    (done.status.code().unwrap(), out, error)
}

#[test]
fn names_of_bundles_give_no_orders() {
    let copy = Copy::new();
    copy.describe(|manifest| {
        manifest["name"] = json!(ORDERS);
        manifest["created_by"] = json!(ORDERS);
    });
    copy.replace(&format!("{}.data", ORDERS.replace('/', "")), b"listed");
    let (folder, phantom) = (copy.0.path().to_str().unwrap().to_string(), example("phantom.dcm"));
    let (code, out, _) = run(&mut anatomix(&["bundle", "info", &folder]));
    assert!(code == 0 && out.contains(r"red\u{1b}[31m\u{9b}2J\u{7}\r\u{202e}\nerror: forged"), "{out}");
    let (code, out, _) = run(&mut anatomix(&["bundle", "info", &folder, "--json"]));
    let info: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, info["manifest"]["name"].as_str()), (0, Some(ORDERS)));
    assert_eq!(run(&mut anatomix(&["bundle", "verify", &folder])).0, 0);
    let phantom = phantom.to_str().unwrap();
    for command in [["perceive", phantom].as_slice(), &["report", phantom], &["ask", phantom, "Where is the heart?", "--json"]] {
        assert_eq!(run(anatomix(command).args(["--bundle", &folder])).0, 0);
    }
    copy.describe(|manifest| manifest["files"]["../\u{1b}[31m"] = json!({ "bytes": 0, "sha256": "" }));
    let (code, _, error) = run(&mut anatomix(&["bundle", "info", &folder]));
    assert!(code == 1 && error.contains("plain file name"), "{error}");
}

#[test]
fn names_of_files_give_no_orders() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join(ORDERS);
    let name = image.to_str().unwrap();
    let (code, _, error) = run(&mut anatomix(&["perceive", name]));
    assert!(code == 1 && error.contains(r"red\u{1b}[31m"), "{error}");
    std::fs::copy(example("phantom.dcm"), &image).unwrap();
    for (command, expected) in [
        (["perceive", name].as_slice(), 0),
        (&["perceive", name, "--json"], 0),
        (&["ask", name, "Where is the heart?"], 0),
        (&["ask", name, "Where is the heart?", "--save", name], 2),
        (&["report", name, "--json-schema", folder.path().to_str().unwrap()], 1),
        (&["perceive", name, "--provider", "cpu:3\u{1b}[31m"], 2),
        (&["\u{1b}[31m"], 2),
    ] {
        let (code, _, error) = run(&mut anatomix(command));
        assert_eq!(code, expected, "{command:?}: {error}");
    }
}

#[test]
fn flags_of_saved_studies_give_no_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chest.study");
    let mut parts = Parts::of(&study().save().unwrap());
    parts.study["flags"] = json!([{ "code": "mirrored", "severity": "warning", "message": ORDERS }]);
    parts.study["name"] = json!(ORDERS);
    std::fs::write(&path, parts.sealed()).unwrap();
    let path = path.to_str().unwrap();
    let (code, _, error) = run(&mut anatomix(&["ask", path, "Where is the heart?"]));
    assert!(code == 0 && error.contains(r"warning: mirrored: red\u{1b}[31m"), "{error}");
    let (code, out, _) = run(&mut anatomix(&["ask", path, "Where is the heart?", "--json"]));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["flags"][0]["message"].as_str()), (0, Some(ORDERS)));
    // What the damaged file is called is said.
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (code, out, error) = run(&mut anatomix(&["ask", path, "Where is the heart?"]));
    assert!(code == 1 && out.is_empty() && error.contains(path) && error.contains("is damaged"), "{error}");
}

#[test]
fn files_without_an_end_are_read_up_to_the_limit() {
    let phantom = example("phantom.dcm");
    let phantom = phantom.to_str().unwrap();
    let (code, _, error) = run(&mut anatomix(&["report", phantom, "--json-schema", "/dev/zero"]));
    assert!(code == 1 && error.contains("/dev/zero has more than 65536 bytes; shorten it"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, [b' '; 65_537]).unwrap();
    let (code, _, error) = run(&mut anatomix(&["report", phantom, "--json-schema", schema.to_str().unwrap()]));
    assert!(code == 1 && error.contains("more than 65536 bytes"), "{error}");
    // Begins like a saved study and goes on for a terabyte, of which nothing is stored.
    let study = folder.path().join("endless.study");
    std::fs::write(&study, b"\0\0\0\0\0\0\0\0{\"__metadata__\":{\"anatomix.study\":").unwrap();
    std::fs::File::options().write(true).open(&study).unwrap().set_len(1 << 40).unwrap();
    let (code, _, error) = run(&mut anatomix(&["report", study.to_str().unwrap()]));
    assert!(code == 1 && error.contains("endless.study") && error.contains("it has more than"), "{error}");
}

#[test]
fn nothing_is_saved_into_the_bundle() {
    let copy = Copy::new();
    let before = copy.read("decoder.onnx.data");
    let (phantom, folder) = (example("phantom.dcm"), copy.0.path().to_str().unwrap().to_string());
    let phantom = phantom.to_str().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.study");
    symlink(copy.path("decoder.onnx.data"), &link).unwrap();
    for out in [copy.path("decoder.onnx.data"), copy.path("manifest.json"), copy.path("new.study"), link] {
        for option in ["--save", "--overlay"] {
            let out = out.to_str().unwrap();
            let (code, _, error) = run(anatomix(&["ask", phantom, "Where is the heart?", option, out]).args(["--bundle", &folder]));
            assert!(code == 2 && error.contains("would write into the bundle"), "{error}");
        }
        let (code, _, error) = run(anatomix(&["perceive", phantom, "--overlay", out.to_str().unwrap()]).args(["--bundle", &folder]));
        assert!(code == 2 && error.contains("would write into the bundle"), "{error}");
    }
    let (code, _, error) = run(anatomix(&["perceive", phantom, phantom, "--overlay", &folder]).args(["--bundle", &folder]));
    assert!(code == 2, "{error}");
    assert_eq!(copy.read("decoder.onnx.data"), before);
    assert!(super::open(copy.0.path()).is_ok() && !copy.path("new.study").exists());
}

#[test]
fn a_study_that_cannot_be_saved_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chest.study");
    std::fs::write(&path, b"before").unwrap();
    let phantom = example("phantom.dcm");
    let price = ENGINE.study_bytes(1100) >> 20;
    assert!(price > 1);
    let (code, _, error) =
        run(&mut anatomix(&["ask", phantom.to_str().unwrap(), "Where is the heart?", "--memory", "1", "--save", path.to_str().unwrap()]));
    assert!(code == 1 && error.contains("bytes for computed tokens"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn providers_without_such_a_device_are_named() {
    for (provider, why) in [("cpu:3", "cpu has no devices"), ("cuda:-1", "not the number of a GPU"), ("auto:1", "auto has no devices")] {
        let (code, _, error) = run(&mut anatomix(&["perceive", "chest.png", "--provider", provider]));
        assert!(code == 2 && error.contains(why) && error.contains("choose auto, cpu, cuda[:N] or tensorrt[:N]"), "{error}");
    }
}
