//! The command line with control characters in names and flags, and with files that have no end.

use super::saved::Parts;
use super::{Copy, ENGINE, example, study};
use assert_cmd::Command;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Text that sets a colour, clears the screen, rings the bell, returns to the line's start, reverses the text direction, and starts a new
/// line.
const CONTROLS: &str = "red\u{1b}[31m\u{9b}2J\u{7}\r\u{202e}\nerror: forged";

fn anatomix(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("anatomix"));
    command.args(arguments).arg("--no-golden-check").env("ANATOMIX_BUNDLE", example("reference-bundle")).timeout(Duration::from_secs(120));
    command
}

/// Runs the program. Returns its exit code, standard output and standard error, which must not contain control characters.
fn run(command: &mut Command) -> (i32, String, String) {
    let done = command.output().unwrap();
    let [out, error] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    for text in [&out, &error] {
        let control = text.chars().find(|&c| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}'));
        assert_eq!(control, None, "{text:?}");
        assert!(text.lines().all(|line| line != "error: forged"), "{text:?}");
    }
    (done.status.code().unwrap(), out, error)
}

#[test]
fn control_characters_in_bundles_are_escaped() {
    let copy = Copy::new();
    copy.describe(|manifest| {
        manifest["name"] = json!(CONTROLS);
        manifest["created_by"] = json!(CONTROLS);
    });
    copy.replace(&format!("{}.data", CONTROLS.replace('/', "")), b"listed");
    let (folder, phantom) = (copy.0.path().to_str().unwrap().to_string(), example("phantom.dcm"));
    let (code, out, _) = run(&mut anatomix(&["bundle", "info", &folder]));
    assert!(code == 0 && out.contains(r"red\u{1b}[31m\u{9b}2J\u{7}\r\u{202e}\nerror: forged"), "{out}");
    let (code, out, _) = run(&mut anatomix(&["bundle", "info", &folder, "--json"]));
    let info: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, info["manifest"]["name"].as_str()), (0, Some(CONTROLS)));
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
fn control_characters_in_file_names_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join(CONTROLS);
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
fn control_characters_in_saved_flags_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chest.study");
    let mut parts = Parts::of(&study().save().unwrap());
    parts.study["flags"] = json!([{ "code": "mirrored", "severity": "warning", "message": CONTROLS }]);
    parts.study["name"] = json!(CONTROLS);
    std::fs::write(&path, parts.sealed()).unwrap();
    let path = path.to_str().unwrap();
    let (code, _, error) = run(&mut anatomix(&["ask", path, "Where is the heart?"]));
    assert!(code == 0 && error.contains(r"warning: mirrored: red\u{1b}[31m"), "{error}");
    let (code, out, _) = run(&mut anatomix(&["ask", path, "Where is the heart?", "--json"]));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["flags"][0]["message"].as_str()), (0, Some(CONTROLS)));
    // The error names the damaged file.
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
    assert!(code == 1 && error.contains("/dev/zero cannot be read: it is not a regular file"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, [b' '; 65_537]).unwrap();
    let (code, _, error) = run(&mut anatomix(&["report", phantom, "--json-schema", schema.to_str().unwrap()]));
    assert!(code == 1 && error.contains("more than 65536 bytes"), "{error}");
    // The file starts like a saved study, and is a sparse file of a terabyte.
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
    let (code, _, error) = run(&mut anatomix(&[
        "ask",
        phantom.to_str().unwrap(),
        "Where is the heart?",
        "--memory-limit",
        "1",
        "--save",
        path.to_str().unwrap(),
    ]));
    assert!(code == 1 && error.contains("the KV caches of"), "{error}");
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
