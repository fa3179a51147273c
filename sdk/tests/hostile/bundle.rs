//! Bundles.

use super::{Copy, check_message, example, open, replaced};
use anatomix::error::DecoderError;
use anatomix::{Engine, Error, Question, Radiograph, Sampling};
use safetensors::SafeTensors;
use serde_json::json;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

#[test]
fn weights_that_the_manifest_does_not_list_are_refused() {
    let copy = Copy::new();
    copy.describe(|manifest| _ = manifest["files"].as_object_mut().unwrap().remove("decoder.onnx.data"));
    copy.refused(&["decoder.onnx ", "\"decoder.onnx.data\", which manifest.json does not list"]);

    let copy = Copy::new();
    let (graph, weights) = (copy.read("apm.onnx"), copy.read("apm.onnx.data"));
    // Each name is as long as the one that it replaces.
    for elsewhere in ["other.weights", "../etc/passwd", "//etc/passwd/", "./apm.weights", "*/_ORT_MEM_AD"] {
        copy.replace("apm.onnx", &replaced(&graph, "apm.onnx.data", elsewhere));
        if !elsewhere.contains('/') {
            std::fs::write(copy.path(elsewhere), &weights).unwrap();
        }
        copy.refused(&["apm.onnx ", &format!("{elsewhere:?}"), "manifest.json does not list"]);
    }
    copy.replace("apm.onnx", &replaced(&graph, "apm.onnx.data", "other.weights"));
    copy.replace("other.weights", &weights);
    open(copy.0.path()).unwrap();
    // A file in the manifest's list is hashed.
    let mut altered = weights.clone();
    altered[weights.len() / 2] ^= 1;
    std::fs::write(copy.path("other.weights"), altered).unwrap();
    copy.refused(&["other.weights was altered"]);
}

#[test]
fn a_graph_that_is_none_is_refused() {
    let copy = Copy::new();
    copy.replace("projector.onnx", &b"not what it should be".repeat(50));
    copy.refused(&["projector.onnx cannot be used as a graph", "not an ONNX graph"]);
}

/// The library that reads it panics on these.
#[test]
fn a_tokenizer_that_makes_its_library_panic_is_refused() {
    let tokenizer = Copy::new().read("tokenizer.json");
    let copy = Copy::new();
    for (from, to) in [
        (r#""type": "ByteFallback""#, r#""type": [yteFallback""#),
        (r#""continuing_subword_prefix": null"#, r#""continuing_subword_prefix": "<start_of_turn>""#),
    ] {
        let text = String::from_utf8_lossy(&tokenizer);
        assert!(text.contains(from), "{from}");
        copy.replace("tokenizer.json", text.replacen(from, to, 1).as_bytes());
        copy.refused(&["tokenizer.json cannot be used as a tokenizer; restore it from the bundle's source"]);
        let error = open(copy.0.path()).err().expect("accepted");
        assert_eq!(error.code(), anatomix::error::ErrorCode::PromptTokenizer);
        assert!(std::error::Error::source(&error).is_some_and(|cause| !cause.to_string().is_empty()));
    }
}

/// Opens a bundle on another thread, so that the test fails if opening blocks.
fn refused_soon(copy: Copy, parts: &'static [&'static str], name: &str) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let opened = std::thread::spawn(move || {
        copy.refused(parts);
        drop(sender);
    });
    let waited = receiver.recv_timeout(Duration::from_secs(600));
    assert_eq!(waited, Err::<(), _>(std::sync::mpsc::RecvTimeoutError::Disconnected), "{name} was still being opened");
    opened.join().unwrap_or_else(|_| panic!("{name}"));
}

#[test]
fn only_regular_files_are_opened() {
    let names = ["manifest.json", "apm.onnx", "decoder.onnx.data", "sentences.safetensors", "tokenizer.json", "golden.safetensors"];
    for name in names {
        let copy = Copy::new();
        let pipe = copy.path(name);
        std::fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        refused_soon(copy, &["a pipe or a device", "regular files only"], name);
        for target in ["/dev/zero", "moved"] {
            let copy = Copy::new();
            std::fs::rename(copy.path(name), copy.path("moved")).unwrap();
            symlink(target, copy.path(name)).unwrap();
            refused_soon(copy, &["a symbolic link", "regular files only"], name);
        }
        let copy = Copy::new();
        std::fs::remove_file(copy.path(name)).unwrap();
        std::fs::create_dir(copy.path(name)).unwrap();
        refused_soon(copy, &["a folder", "regular files only"], name);
    }
    // The folder of the bundle may be a symbolic link.
    let copy = Copy::new();
    let folder = tempfile::tempdir().unwrap();
    symlink(copy.0.path(), folder.path().join("link")).unwrap();
    open(&folder.path().join("link")).unwrap();
}

#[test]
fn messages_stay_short_whatever_the_manifest_holds() {
    let long = "long\n".repeat(60_000);
    for key in ["name", "created_by", "schema", "preprocess", "apm", "decoder", "prompt", "files", "graphs"] {
        let copy = Copy::new();
        copy.describe(|manifest| manifest[key] = json!(long));
        copy.refused(&["manifest.json"]);
    }
    for (outer, inner) in [("preprocess", "histogram"), ("preprocess", "size"), ("decoder", "precision"), ("decoder", "layers")] {
        let copy = Copy::new();
        copy.describe(|manifest| manifest[outer][inner] = json!(long));
        copy.refused(&["manifest.json"]);
    }
    let copy = Copy::new();
    copy.describe(|manifest| manifest["files"][&long] = json!({ "bytes": 1, "sha256": "0".repeat(64) }));
    copy.refused(&["manifest.json", "plain file name"]);
    let copy = Copy::new();
    copy.describe(|manifest| manifest["files"]["apm.onnx"]["sha256"] = json!(long));
    copy.refused(&["manifest.json", "the SHA-256 of apm.onnx is not 64 hexadecimal digits"]);
    let copy = Copy::new();
    std::fs::write(copy.path("manifest.json"), format!("{{\"schema\": 1, \"name\": {long}")).unwrap();
    copy.refused(&["manifest.json"]);
}

#[test]
fn settings_that_are_not_known_are_refused_with_those_that_are() {
    type Change = fn(&mut serde_json::Value);
    let graphs = |manifest: &mut serde_json::Value| {
        let known = json!({ "apm_precision": "fp32", "decoder_operators": "fused", "apm_tolerance": 0.01, "decoder_tolerance": 0.01 });
        manifest["graphs"] = known;
    };
    let cases: [(Change, &[&str]); 5] = [
        (|manifest| manifest["decoder"]["precision"] = json!("fp99"), &["decoder.precision is \"fp99\"", "fp32, fp16, bf16, int8, int4"]),
        (|manifest| manifest["graphs"]["apm_precision"] = json!(""), &["graphs.apm_precision is \"\"", "fp32, fp16, bf16, int8, int4"]),
        (|manifest| manifest["graphs"]["decoder_operators"] = json!("x"), &["graphs.decoder_operators is \"x\"", "knows fused, portable"]),
        (|manifest| manifest["name"] = json!(""), &["name is empty"]),
        (|manifest| manifest["name"] = json!(" \n"), &["name is empty"]),
    ];
    for (change, parts) in cases {
        let copy = Copy::new();
        copy.describe(graphs);
        open(copy.0.path()).unwrap();
        copy.describe(change);
        copy.refused(parts);
        copy.refused(&["manifest.json", "restore the bundle"]);
    }
}

#[test]
fn schemas_and_versions_of_other_times_are_refused_with_what_to_do() {
    let message = |change: &dyn Fn(&mut serde_json::Value)| {
        let copy = Copy::new();
        copy.describe(change);
        open(copy.0.path()).err().expect("accepted").full_message()
    };
    let schema = |found: serde_json::Value| message(&move |manifest| manifest["schema"] = found.clone());
    check_message(&schema(json!(0)), &["has schema 0", "reads schema 1", "export the bundle again"]);
    check_message(&schema(json!(2)), &["has schema 2", "reads schema 1", "update the SDK"]);
    check_message(&schema(json!(u64::MAX)), &["has schema 18446744073709551615", "update the SDK"]);
    for wrong in [json!(-1), json!(1.5), json!("1"), json!(null)] {
        check_message(&schema(wrong), &["manifest.json", "no schema number"]);
    }
    for (key, what, newest) in [("preprocess", "the preprocessing", 1), ("prompt", "the prompt", 2)] {
        let version = |found: u32| message(&move |manifest| manifest[key]["version"] = json!(found));
        check_message(&version(0), &["version 0 of", what, "supports version 1", "export the bundle again"]);
        let parts = [format!("version {} of", newest + 1), format!("supports version {newest}")];
        check_message(&version(newest + 1), &[&parts[0], what, &parts[1], "update the SDK"]);
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_read() {
    for name in ["decoder.onnx", "tokenizer.json", "golden.safetensors"] {
        let copy = Copy::new();
        // The file is sparse. Its size is the one in the manifest.
        let size = 1u64 << 40;
        std::fs::File::options().write(true).open(copy.path(name)).unwrap().set_len(size).unwrap();
        copy.describe(|manifest| manifest["files"][name]["bytes"] = json!(size));
        refused_soon(copy, &["but may have at most"], name);
    }
    let copy = Copy::new();
    std::fs::File::options().write(true).open(copy.path("manifest.json")).unwrap().set_len(1 << 40).unwrap();
    refused_soon(copy, &["manifest.json", "more than 1048576 bytes"], "manifest.json");
}

#[test]
fn sizes_are_those_of_the_graphs_before_memory_is_allocated_by_them() {
    for (part, key, value, graph) in [
        ("decoder", "kv_heads", 1024, "decoder.onnx has the size 2 where"),
        ("decoder", "head_dim", 1024, "decoder.onnx has the size 48 where"),
        ("decoder", "hidden", 65_536, "projector.onnx has the size 192 where"),
        ("decoder", "vocabulary", 1 << 24, "decoder.onnx has the size 2229 where"),
        ("apm", "patches", 65_536, "apm.onnx has the size 64 where"),
        ("apm", "token_width", 65_536, "apm.onnx has the size 128 where"),
        ("preprocess", "size", 4096, "apm.onnx has the size 256 where"),
    ] {
        let copy = Copy::new();
        copy.describe(|manifest| manifest[part][key] = json!(value));
        let folder = copy.0.path().display().to_string();
        copy.refused(&[&format!("{folder}/{graph}"), &format!("{part}.{key} in the manifest is {value}; export the bundle again")]);
    }
}

#[test]
fn a_golden_token_that_the_model_lacks_is_a_fault_of_the_golden_input() {
    for token in [1i64 << 40, -1, 2229] {
        let copy = Copy::new();
        let mut golden = copy.read("golden.safetensors");
        let (head, metadata) = SafeTensors::read_metadata(&golden).unwrap();
        let at = 8 + head + metadata.info("input_ids").unwrap().data_offsets.0;
        golden[at..at + 8].copy_from_slice(&token.to_le_bytes());
        copy.replace("golden.safetensors", &golden);
        let error = Engine::builder().open(copy.0.path()).err().expect("accepted").full_message();
        check_message(&error, &["golden.safetensors", &format!("input_ids has the token {token}, but the language model has 2229")]);
    }
}

/// Weights of ones in all bits, which are NaN in every type of a float.
fn without_numbers(weights: &str, told: &str) -> Engine {
    let copy = Copy::new();
    copy.replace(weights, &vec![0xFF; copy.read(weights).len()]);
    check_message(&Engine::builder().open(copy.0.path()).err().expect("accepted").full_message(), &[told]);
    open(copy.0.path()).unwrap()
}

#[test]
fn what_is_not_a_number_is_an_error_and_no_answer() {
    let radiograph = Radiograph::open(example("phantom.dcm")).unwrap();
    let error = without_numbers("apm.onnx.data", "not finite").study(&radiograph).err().expect("a study");
    check_message(&error.full_message(), &["apm.onnx returned values that are not finite"]);
    for weights in ["projector.onnx.data", "decoder.onnx.data"] {
        let mut study = without_numbers(weights, "or restore the bundle if it is damaged").study(&radiograph).unwrap();
        let question = || Question::new("Where is the left lung?");
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let schema = r#"{"enum": ["left", "right"]}"#;
        for question in [question(), question().unconstrained(), question().sampling(sampling), question().json_schema(schema)] {
            let error = study.ask(question.clone()).expect_err("an answer");
            assert!(matches!(error, Error::Decoder(DecoderError::NotFinite)), "{error}");
            let error = study.ask_many([question]).expect_err("an answer").to_string();
            assert!(error.starts_with("questions[0]: the language model computes logits that are not finite"), "{error}");
            assert_eq!(study.turns(), 0);
        }
    }
}
