//! One function for each fuzz target of `fuzz/`. It feeds bytes to a parser and panics if what the parser gives breaks a promise. This
//! module is compiled by `make fuzz` and for tests only; the tests below replay the files of `tests/corpus`.

#![allow(missing_docs)]

use crate::bundle::{Bundle, MANIFEST, Manifest};
use crate::decoder::{Form, Grammar, Readable, StopTexts};
use crate::geometry::{Letterbox, PixelBox};
use crate::grounding;
use crate::hash::Digest;
use crate::perception::flags;
use crate::prompt::PromptTokenizer;
use crate::retrieval::SentenceDatabase;
use crate::{Engine, Provider, Radiograph, Structure, Task};
use dicom_dictionary_std::uids;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Longest error message in bytes.
const MAX_MESSAGE: usize = 1500;
/// Most pixels of an image whose pixels are looked at one by one, so that a run stays short.
const MAX_PIXELS: u32 = 1 << 18;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference-bundle").join(name)
}

static MANIFEST_READ: LazyLock<Manifest> = LazyLock::new(|| {
    let bytes = std::fs::read(reference(MANIFEST)).expect("the reference bundle has a manifest");
    serde_json::from_slice(&bytes).expect("the reference bundle's manifest is valid")
});
static TOKENIZER: LazyLock<PromptTokenizer> =
    LazyLock::new(|| PromptTokenizer::open(&reference("tokenizer.json")).expect("the reference bundle has a tokenizer"));
static GRAMMAR: LazyLock<Grammar> =
    LazyLock::new(|| Grammar::new(&TOKENIZER, MANIFEST_READ.decoder.vocabulary).expect("the reference tokenizer can be indexed"));
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let builder = Engine::builder().provider(Provider::Cpu).threads(1).golden_check(false);
    builder.open(reference("")).expect("the reference bundle can be opened; `make deps` fetches ONNX Runtime")
});

/// A message is one line of bounded length, whatever the input holds, and so are its causes.
fn check_error(error: &dyn std::error::Error) {
    std::iter::successors(Some(error), |&error| error.source()).for_each(|error| check_message(&error.to_string()));
}

fn check_message(message: &str) {
    assert!(message.len() <= MAX_MESSAGE && !message.contains('\n'), "{} bytes: {message}", message.len());
}

fn check_inside(bounds: &PixelBox, width: u32, height: u32) {
    let inside = |v: f32, size: u32| (0.0..=size as f32).contains(&v);
    let PixelBox { x0, y0, x1, y1 } = *bounds;
    assert!(inside(x0, width) && inside(x1, width) && inside(y0, height) && inside(y1, height), "{bounds} lies outside {width}x{height}");
}

/// What stands for the file in messages.
const NAME: &str = "the damaged file";

/// A radiograph of any format.
pub fn radiograph(bytes: &[u8]) {
    let radiograph = match Radiograph::from_bytes(bytes, NAME) {
        Ok(radiograph) => radiograph,
        Err(error) => {
            assert!(error.to_string().contains(NAME), "the file is not named: {error}");
            return check_error(&error);
        }
    };
    let pixels = radiograph.width() * radiograph.height();
    assert!(pixels as u64 <= Radiograph::MAX_PIXELS);
    assert_eq!(radiograph.sha256().len(), 64);
    if pixels > MAX_PIXELS {
        return;
    }
    let is_share = |v: &f32| (0.0..=1.0).contains(v);
    const ROOM: &str = "there is memory for a small image";
    assert!(radiograph.intensities().expect(ROOM).iter().all(is_share), "an intensity is not within 0..1");
    let (low, high) = radiograph.percentiles(0.01);
    assert!(low <= high);
    let image = radiograph.preprocess(&MANIFEST_READ.preprocess).expect(ROOM);
    assert!(image.iter().all(is_share), "an input of the network is not within 0..1");
    for flag in flags::of_radiograph(&radiograph) {
        check_message(&flag.message);
    }
    let mirrored = radiograph.mirrored().expect(ROOM);
    assert!(mirrored.width() == radiograph.width() && mirrored.sha256() != radiograph.sha256());
}

/// Transfer syntaxes of [`dicom`], by the first byte.
const SYNTAXES: [&str; 16] = [
    uids::EXPLICIT_VR_LITTLE_ENDIAN,
    uids::IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.2",
    uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::RLE_LOSSLESS,
    uids::JPEG_BASELINE8_BIT,
    uids::JPEG_EXTENDED12_BIT,
    uids::JPEG_LOSSLESS,
    uids::JPEG_LOSSLESS_SV1,
    uids::JPEG2000_LOSSLESS,
    uids::JPEG2000,
    uids::HTJ2K_LOSSLESS,
    uids::HTJ2K,
    uids::JPEGLS_LOSSLESS,
    uids::JPEGLS_NEAR_LOSSLESS,
];

/// A DICOM data set: the first byte chooses the transfer syntax, for which the file meta information is written.
pub fn dicom(bytes: &[u8]) {
    let Some((&syntax, data_set)) = bytes.split_first() else { return };
    let mut uid = SYNTAXES[usize::from(syntax) % SYNTAXES.len()].as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM\x02\x00\x10\x00UI");
    file.extend_from_slice(&(uid.len() as u16).to_le_bytes());
    file.extend_from_slice(&uid);
    file.extend_from_slice(data_set);
    radiograph(&file);
}

/// A bundle's manifest, in a folder with nothing else in it.
pub fn manifest(bytes: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(folder);
    std::fs::write(FOLDER.path().join(MANIFEST), bytes).expect("a temporary file can be written");
    let error = Bundle::open(FOLDER.path()).expect_err("the bundle has no files");
    check_error(&error);
}

/// A temporary folder, in memory if the system has such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder can be made")
}

/// A sentence database: the first byte chooses the width of its embeddings.
pub fn sentences(bytes: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(folder);
    let Some((&width, file)) = bytes.split_first() else { return };
    let width = 1 + usize::from(width) % 32;
    // A mapped file must not change, so every run has a new one.
    let path = FOLDER.path().join("sentences");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, file).expect("a temporary file can be written");
    let database = match SentenceDatabase::open(&path, width) {
        Ok(database) => database,
        Err(error) => return check_error(&error),
    };
    let queries: Vec<f32> = (0..36 * width).map(|i| (i % 7) as f32 - 3.0).collect();
    let found = database.search_all(&queries, 3);
    let verified = database.verify();
    match &found {
        Ok(all) => {
            for (structure, hits) in Structure::all().zip(all) {
                assert_eq!(hits.len(), database.len(structure).min(3));
                assert!(hits.is_sorted_by(|a, b| a.similarity >= b.similarity));
                assert!(hits.iter().all(|hit| hit.index < database.len(structure)));
            }
        }
        Err(error) => check_error(error),
    }
    let mut read = 0;
    for structure in Structure::all() {
        for index in 0..database.len(structure).min(100) + 1 {
            match database.sentence(structure, index) {
                Ok(_) => read += 1,
                Err(error) => check_error(&error),
            }
        }
    }
    match verified {
        Ok(()) => assert!(found.is_ok() && read >= 36, "a verified database can be searched and read"),
        Err(error) => check_error(&error),
    }
}

/// What stands for the reference bundle's hash in the input of [`saved_study`], so that inputs stay valid when the bundle changes.
const BUNDLE: &str = "BUNDLE";
/// Most bytes of tensors that [`saved_study`] makes.
const MAX_TENSORS: u64 = 4 << 20;

/// A saved study. If the first byte is even, the file is what follows. Else the rest is the study's metadata, the list of tensors and
/// their bytes, with a zero byte between two of them, and the file is made of these: the bytes are repeated until they have the length
/// that the list says, and the checksum is right.
pub fn saved_study(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let composed = if kind % 2 == 0 { rest.to_vec() } else { composed(rest) };
    let study = match ENGINE.load_study(&composed) {
        Ok(study) => study,
        Err(error) => return check_error(&error),
    };
    for found in study.structures() {
        check_inside(&found.bounds, study.width(), study.height());
    }
    assert!(study.labels().iter().all(|label| (0.0..=1.0).contains(&label.score)));
}

fn composed(parts: &[u8]) -> Vec<u8> {
    let mut parts = parts.splitn(3, |&byte| byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (study, tensors) = (text().replace(BUNDLE, ENGINE.bundle().hash()), text());
    let values = parts.next().filter(|values| !values.is_empty()).unwrap_or(&[0]);
    let comma = if tensors.is_empty() { "" } else { "," };
    let mut head = format!("{{\"__metadata__\":{{\"anatomix.study\":{}}}{comma}{tensors}}}", json!(study));
    head.extend(std::iter::repeat_n(' ', head.len().next_multiple_of(8) - head.len()));
    let listed: Value = serde_json::from_str(&head).unwrap_or_default();
    let ends = listed.as_object().into_iter().flat_map(|all| all.values()).filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let length = ends.max().unwrap_or(0).min(MAX_TENSORS) as usize;
    let mut file = [&(head.len() as u64).to_le_bytes(), head.as_bytes()].concat();
    file.extend(values.iter().cycle().take(length.saturating_sub(32)));
    let checksum = Digest::of(&file);
    file.extend_from_slice(&checksum.0);
    file
}

/// Texts with groundings: questions, and what a model says. The first four bytes are the image's sides, and the first line of the rest
/// is a text that ends an answer.
pub fn text(bytes: &[u8]) {
    let Some((&[a, b, c, d], rest)) = bytes.split_first_chunk() else { return };
    let side = |high, low| (u32::from(u16::from_be_bytes([high, low]))).clamp(32, 20_000);
    let letterbox = Letterbox::new(side(a, b), side(c, d));
    let text = String::from_utf8_lossy(rest);
    let check_parsed = |text: &str| {
        let found = grounding::parse(text, &letterbox);
        let boxes = found.iter().flat_map(|grounding| &grounding.boxes);
        boxes.map(|bounds| check_inside(bounds, letterbox.width, letterbox.height)).count()
    };
    check_parsed(&text);
    match grounding::question_to_grid(&text, &letterbox) {
        Ok(grid) => {
            // Each is read by itself: within an unfinished phrase a box is part of the phrase.
            let boxes: Vec<_> = grid.split_inclusive("</box>").filter_map(|part| part.rfind("<box>").map(|at| &part[at..])).collect();
            assert_eq!(boxes.len(), text.matches("<box>").count());
            assert!(boxes.iter().all(|&text| check_parsed(text) == 1), "every box of a question is on the grid");
            for encoded in [TOKENIZER.question(&grid), TOKENIZER.follow_up(&grid)] {
                match encoded {
                    Ok(ids) => assert!(ids.iter().all(|&id| (0..MANIFEST_READ.decoder.vocabulary as i64).contains(&id))),
                    Err(error) => check_error(&error),
                }
            }
        }
        Err(error) => check_error(&error),
    }
    for task in Task::ALL {
        let _ = task.question(&text);
    }
    // A text that streams in pieces gives what it gives in one piece.
    let (stop, answer) = text.split_once('\n').unwrap_or(("", &text));
    let whole = streamed(stop, [answer].into_iter());
    let ends = (1..=answer.len()).filter(|&at| answer.is_char_boundary(at));
    let pieces = ends.scan(0, |start, end| Some(&answer[std::mem::replace(start, end)..end]));
    assert_eq!(streamed(stop, pieces), whole, "a text depends on how it is cut");
}

fn streamed<'a>(stop: &str, pieces: impl Iterator<Item = &'a str>) -> String {
    let (mut readable, mut stop_texts) = (Readable::default(), StopTexts::new(&[stop.to_string()]));
    let mut out = String::new();
    for piece in pieces {
        let (certain, is_over) = stop_texts.push(&readable.push(piece));
        out.push_str(&certain);
        if is_over {
            return out;
        }
    }
    let (certain, is_over) = stop_texts.push(&readable.finish());
    out.push_str(&certain);
    if !is_over {
        out.push_str(&stop_texts.finish());
    }
    out
}

/// Most tokens that [`json_schema`] decodes.
const MAX_TOKENS: usize = 24;

/// A JSON schema, from which a grammar is compiled. Then an answer is decoded, whose tokens follow from the schema's bytes.
pub fn json_schema(bytes: &[u8]) {
    let Ok(schema) = std::str::from_utf8(bytes) else { return };
    let form = Form::Json(schema.into());
    let mut matcher = match GRAMMAR.matcher(&form) {
        Ok(matcher) => matcher.expect("a form that is not free has a matcher"),
        Err(error) => return check_error(&error),
    };
    let mut seed = bytes.iter().fold(0u64, |seed, &byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    for _ in 0..MAX_TOKENS {
        let mask = match matcher.mask() {
            Ok(mask) => mask,
            Err(error) => return check_error(&error),
        };
        let allowed: Vec<u32> = mask.iter().collect();
        assert!(!allowed.is_empty(), "at least one token may come next");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let token = i64::from(allowed[(seed >> 33) as usize % allowed.len()]);
        match matcher.allows(token) {
            Ok(is_allowed) => assert!(is_allowed, "the mask allows token {token}, which is refused"),
            Err(error) => return check_error(&error),
        }
        if let Err(error) = matcher.accept(token) {
            return check_error(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
    }

    /// Runs a target on the files of its folder in `tests/corpus`.
    fn replay(target: &str, run: fn(&[u8])) {
        let files: Vec<_> = fs::read_dir(corpus().join(target)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 5, "{target} has hardly any files");
        for path in files {
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.len() <= 64 << 10, "{} has {} bytes", path.display(), bytes.len());
            let ran = std::panic::catch_unwind(|| run(&bytes));
            assert!(ran.is_ok(), "{} breaks a promise", path.display());
        }
    }

    macro_rules! targets {
        ($($target:ident)*) => {
            const TARGETS: &[&str] = &[$(stringify!($target)),*];

            mod replayed {
                $(#[test]
                fn $target() {
                    super::replay(stringify!($target), super::super::$target);
                })*
            }
        };
    }
    targets!(radiograph dicom manifest sentences saved_study text json_schema);

    #[test]
    fn every_folder_is_replayed_and_has_a_fuzz_target() {
        let names = |folder: &Path| {
            let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let names = paths.filter(|path| path.extension().is_none_or(|end| end == "rs"));
            names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
        };
        let expected = TARGETS.iter().map(|&target| target.to_owned()).collect();
        assert_eq!(names(&corpus()), expected);
        assert_eq!(names(&corpus().join("../../fuzz/fuzz_targets")), expected);
    }

    #[test]
    fn a_study_is_loaded_from_its_parts() {
        let phantom = Radiograph::open(reference("../phantom.dcm")).unwrap();
        let saved = ENGINE.study(&phantom).unwrap().save().unwrap();
        let data = 8 + u64::from_le_bytes(*saved.first_chunk().unwrap()) as usize;
        let mut file: Value = serde_json::from_slice(&saved[8..data]).unwrap();
        let metadata = file.as_object_mut().unwrap().remove("__metadata__").unwrap();
        let study = metadata["anatomix.study"].as_str().unwrap().replace(ENGINE.bundle().hash(), BUNDLE);
        let tensors = file.to_string();
        let parts = [study.as_bytes(), &tensors.as_bytes()[1..tensors.len() - 1], &saved[data..]].join(&0);
        assert_eq!(ENGINE.load_study(&composed(&parts)).unwrap().structures(), ENGINE.load_study(&saved).unwrap().structures());
        // A change of the metadata alone gets behind the checksum.
        let parts = [&parts[1..], &[]].concat();
        let error = ENGINE.load_study(&composed(&parts)).err().expect("accepted").to_string();
        assert!(!error.contains("SHA-256"), "{error}");
    }
}
