//! Saved studies.

use super::{ENGINE, check_message, example, replaced, study};
use anatomix::{Engine, Provider, Question, Radiograph};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

static SAVED: LazyLock<Vec<u8>> = LazyLock::new(|| study().save().unwrap());

/// The parts of a saved study: the file's header, the study's metadata in it, and the bytes of the tensors.
pub struct Parts {
    pub file: Value,
    pub study: Value,
    pub data: Vec<u8>,
}

impl Parts {
    pub fn of(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let file: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let study = serde_json::from_str(file["__metadata__"]["anatomix.study"].as_str().unwrap()).unwrap();
        Self { file, study, data: bytes[8 + length..].to_vec() }
    }

    /// The bytes with a correct checksum.
    pub fn sealed(mut self) -> Vec<u8> {
        self.file["__metadata__"]["anatomix.study"] = json!(self.study.to_string());
        let mut head = self.file.to_string();
        head.extend(std::iter::repeat_n(' ', head.len().next_multiple_of(8) - head.len()));
        let content = &self.data[..self.data.len() - 32];
        let mut bytes = [&(head.len() as u64).to_le_bytes(), head.as_bytes(), content].concat();
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        bytes
    }
}

fn refused(bytes: &[u8], parts: &[&str]) {
    let error = ENGINE.load_study(bytes).err().expect("accepted").full_message();
    check_message(&error, parts);
}

#[test]
fn no_flipped_bit_is_accepted() {
    let head = 8 + Parts::of(&SAVED).file.to_string().len();
    let mut bytes = SAVED.clone();
    // One bit is flipped in each byte of the header and of the checksum, and in bytes spread over the rest.
    let behind = (head..bytes.len()).step_by(bytes.len() / 200).chain(bytes.len() - 32..bytes.len());
    for (count, at) in (0..head).chain(behind).enumerate() {
        let bit = 1 << (count * 5 % 8);
        bytes[at] ^= bit;
        let error = ENGINE.load_study(&bytes).err().unwrap_or_else(|| panic!("bit {bit} of byte {at} was not missed"));
        check_message(&error.full_message(), &["the saved study", "perceive the radiograph again"]);
        bytes[at] ^= bit;
    }
    ENGINE.load_study(&bytes).unwrap();
}

#[test]
fn bytes_that_are_missing_or_too_many_are_refused() {
    for length in [0, 1, 7, 8, 100, SAVED.len() / 2, SAVED.len() - 32, SAVED.len() - 1] {
        refused(&SAVED[..length], &["the saved study is damaged or is not a saved study"]);
    }
    refused(&[&SAVED[..], &[0]].concat(), &["is damaged"]);
    refused(&u64::MAX.to_le_bytes(), &["does not begin with the header"]);
}

#[test]
fn a_changed_study_is_refused_though_its_checksum_is_right() {
    let change = |change: &dyn Fn(&mut Parts), expected: &[&str]| {
        let mut parts = Parts::of(&SAVED);
        change(&mut parts);
        refused(&parts.sealed(), expected);
    };
    ENGINE.load_study(&Parts::of(&SAVED).sealed()).unwrap();
    for version in [0, 1, 2, 3] {
        let layout = format!("layout {version}, supported 4");
        change(&|parts| parts.study["version"] = json!(version), &["older version", &layout, "perceive the radiograph again"]);
    }
    change(&|parts| parts.study["version"] = json!(5), &["newer version (layout 5, supported 4)", "update AnatomiX"]);
    change(&|parts| parts.study["bundle_sha256"] = json!("0".repeat(64)), &["with the bundle 000000000000000000", "open that bundle"]);
    // Hashes that differ in their last digit only can be told apart.
    let own = ENGINE.bundle().hash().to_owned();
    let other = own[..63].to_owned() + if own.ends_with('0') { "1" } else { "0" };
    change(&|parts| parts.study["bundle_sha256"] = json!(other), &[&format!("with the bundle {other}, but {own} is open")]);
    let long = "long\n".repeat(60_000);
    change(&|parts| parts.study["bundle_sha256"] = json!(long), &["open that bundle"]);
    change(&|parts| parts.study["input_sha256"] = json!(long), &["not 64 hexadecimal digits"]);
    change(&|parts| parts.study["flags"] = json!([{ "code": long }]), &["cannot be used by this version"]);
    change(&|parts| parts.study["source"]["Ok"]["00100020"] = json!("1\u{1b}2"), &["patient, study or image", "cannot be used"]);
    change(&|parts| parts.study["source"] = json!({ "Ok": {} }), &["patient, study or image"]);
    for side in [0, 31, 20_001, u32::MAX] {
        change(&|parts| parts.study["width"] = json!(side), &["cannot be used by this version", "its image"]);
    }
    change(
        &|parts| {
            let tensors = parts.file.as_object_mut().unwrap();
            let tensor = tensors.remove("cache.0003").unwrap();
            tensors.insert("cache.0x03".into(), tensor);
        },
        &["cache.0003"],
    );
    // Two tensors have other sizes, with the same total.
    change(
        &|parts| {
            let [from, to] = ["cache.0000", "cache.0001"].map(|name| parts.file[name]["data_offsets"].clone());
            let (from, to, end) = (from[0].as_u64().unwrap(), to[0].as_u64().unwrap() - 8, to[1].as_u64().unwrap());
            parts.file["cache.0000"] = json!({ "dtype": "F32", "shape": [(to - from) / 4], "data_offsets": [from, to] });
            parts.file["cache.0001"] = json!({ "dtype": "F32", "shape": [(end - to) / 4], "data_offsets": [to, end] });
        },
        &["cache.0000 has"],
    );
    change(
        &|parts| {
            let offsets = parts.file["boxes"]["data_offsets"].clone();
            parts.file["boxes"] = json!({ "dtype": "F16", "shape": [288], "data_offsets": offsets });
        },
        &["boxes is of F16"],
    );
    change(&|parts| parts.data[..4].copy_from_slice(&f32::NAN.to_le_bytes()), &["not numbers"]);
}

#[test]
fn a_path_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chest.study");
    std::fs::write(&path, &*SAVED).unwrap();
    assert_eq!(ENGINE.open_study(&path).unwrap().structures(), study().structures());
    let path_text = path.to_str().unwrap();
    let refused = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        check_message(&ENGINE.open_study(&path).err().expect("accepted").full_message(), &[path_text, part]);
    };
    refused(&replaced(&SAVED, "boxes", "boxen"), "is damaged");
    refused(&SAVED[..1000], "is damaged");
    let mut older = Parts::of(&SAVED);
    older.study["version"] = json!(3);
    refused(&older.sealed(), "older version");
    // At most as many bytes are read as a study of this bundle can have.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    check_message(&ENGINE.open_study(&path).err().unwrap().full_message(), &[path_text, "it has more than"]);
    check_message(&ENGINE.open_study("/dev/zero").err().unwrap().full_message(), &["/dev/zero", "not a regular file"]);
}

#[test]
fn saving_that_fails_changes_nothing() {
    let phantom = std::fs::read(example("phantom.dcm")).unwrap();
    // The budget allows the context of one study and a short answer.
    let with = |memory| {
        Engine::builder().provider(Provider::Cpu).golden_check(false).memory_limit(memory).open(example("reference-bundle")).unwrap()
    };
    let engine = with(ENGINE.study_bytes(1100));
    let perceive = |engine: &Engine, name: &str| engine.study(&Radiograph::from_bytes(&phantom, name).unwrap()).unwrap();
    // This name is too long for a saved study.
    let mut unnamable = perceive(&engine, &"n".repeat(3 << 20));
    for _ in 0..2 {
        check_message(&unnamable.save().unwrap_err().full_message(), &["the study cannot be saved", "a shorter name"]);
    }
    // After the failure, the memory of the prefilled context is free again.
    let mut other = perceive(&engine, "other");
    other.save().unwrap();
    check_message(&unnamable.save().unwrap_err().full_message(), &["the KV caches of", "free a study"]);
    drop(other);
    // A failed save keeps the study's prefilled context and its turns.
    let question = || Question::new("Where is the left lung?").max_tokens(20);
    let first = unnamable.ask(question()).unwrap();
    unnamable.save().unwrap_err();
    assert_eq!(unnamable.turns(), 1);
    let again = unnamable.ask(question()).unwrap();
    assert_eq!((again.text, again.prefilled < 30), (first.text, true));
    let mut small = perceive(&with(1000), "small");
    check_message(&small.save().unwrap_err().full_message(), &["of 1000 bytes"]);
}

#[test]
fn a_radiograph_is_no_saved_study_and_is_called_that() {
    let error = ENGINE.open_study(example("phantom.dcm")).err().expect("accepted");
    check_message(&error.full_message(), &["phantom.dcm", "is not a saved study: it is a DICOM file; perceive the radiograph"]);
}

#[test]
fn a_saved_study_is_called_that_when_it_is_opened_as_a_radiograph() {
    let bytes = study().save().unwrap();
    let error = Radiograph::from_bytes(&bytes, "chest.study").expect_err("accepted").to_string();
    assert_eq!(error, "chest.study is a saved study, not a radiograph; load it as a study, with the bundle that perceived it");
}
