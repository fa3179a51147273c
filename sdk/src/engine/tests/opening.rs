//! Opening and verifying a bundle tell how far they have come, and are stopped between two of their parts.

use crate::bundle::BundleError;
use crate::control::{CancelHandle, StoppedError};
use crate::engine::{Engine, EngineBuilder};
use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};
use crate::radiograph::Radiograph;
use crate::{PerceiveOptions, Provider};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn builder() -> EngineBuilder {
    Engine::builder().provider(Provider::Cpu)
}

type Seen = Arc<Mutex<Vec<Progress>>>;

/// A list, and a callback that writes into it.
fn kept() -> (Seen, impl Fn(Progress) + Send + Sync + 'static) {
    let seen = Seen::default();
    let keeps = Arc::clone(&seen);
    (seen, move |progress| keeps.lock().unwrap().push(progress))
}

/// Each phase counts from 0 to its total, which is returned with it.
fn phases(seen: &Seen) -> Vec<(Phase, u64)> {
    let seen = seen.lock().unwrap();
    let mut phases = Vec::new();
    for phase in seen.chunk_by(|a, b| a.phase == b.phase) {
        let done: Vec<u64> = phase.iter().map(|one| one.done).collect();
        let total = phase[0].total;
        assert!(done[0] == 0 && done.is_sorted() && done.last() == Some(&total), "{done:?} of {total}");
        assert!(phase.iter().all(|one| one.total == total));
        phases.push((phase[0].phase, total));
    }
    phases
}

fn stopped<T>(outcome: Result<T>) -> Option<StoppedError> {
    match outcome {
        Err(Error::Stopped(error)) => Some(error),
        Err(error) => panic!("{}", error.full_message()),
        Ok(_) => None,
    }
}

/// Cancels opening or verifying where it has come this far.
fn cancelled_at<T>(at: (Phase, u64), call: impl Fn(EngineBuilder) -> Result<T>) {
    let cancel = CancelHandle::new();
    let (handle, (seen, progress)) = (cancel.clone(), kept());
    let stop = move |one: Progress| {
        progress(one);
        if (one.phase, one.done) == at {
            handle.cancel();
        }
    };
    assert_eq!(stopped(call(builder().cancel(&cancel).progress(stop))), Some(StoppedError::Cancelled), "{at:?}");
    assert_eq!(seen.lock().unwrap().last().map(|last| last.phase), Some(at.0), "another phase was begun after the stop");
}

#[test]
fn opening_tells_how_far_it_is_and_stops_between_its_parts() {
    let open = |builder: EngineBuilder| builder.open(example("reference-bundle"));
    let (seen, progress) = kept();
    let engine = open(builder().progress(progress).deadline(Duration::from_secs(600)).cancel(&CancelHandle::new())).unwrap();
    let bytes = engine.bundle().bytes();
    assert_eq!(phases(&seen), [(Phase::Hashes, bytes), (Phase::Graphs, 3), (Phase::GoldenCheck, 3)]);
    for at in [
        (Phase::Hashes, 0),
        (Phase::Hashes, bytes),
        (Phase::Graphs, 0),
        (Phase::Graphs, 1),
        (Phase::Graphs, 3),
        (Phase::GoldenCheck, 0),
        (Phase::GoldenCheck, 1),
        (Phase::GoldenCheck, 2),
        (Phase::GoldenCheck, 3),
    ] {
        cancelled_at(at, open);
    }
    assert_eq!(stopped(open(builder().deadline(Duration::ZERO))), Some(StoppedError::Deadline));
    // A deadline within a phase: each callback takes longer than the call may.
    let slow = |_| std::thread::sleep(Duration::from_millis(50));
    assert_eq!(stopped(open(builder().deadline(Duration::from_millis(20)).progress(slow))), Some(StoppedError::Deadline));
    // A request that was withdrawn stops nothing.
    let cancel = CancelHandle::new();
    cancel.cancel();
    assert_eq!(stopped(open(builder().cancel(&cancel))), Some(StoppedError::Cancelled));
    cancel.reset();
    assert_eq!(stopped(open(builder().cancel(&cancel))), None);
}

#[test]
fn verifying_tells_how_far_it_is_and_stops() {
    let verify = |builder: EngineBuilder| builder.verify_bundle(example("reference-bundle"));
    let (seen, progress) = kept();
    let bundle = verify(builder().progress(progress)).unwrap();
    assert_eq!(phases(&seen), [(Phase::Hashes, bundle.bytes), (Phase::Sentences, 1)]);
    assert_eq!((bundle.sha256.len(), bundle.files), (64, 9));
    for at in [(Phase::Hashes, 0), (Phase::Hashes, bundle.bytes), (Phase::Sentences, 0), (Phase::Sentences, 1)] {
        cancelled_at(at, verify);
    }
    assert_eq!(stopped(verify(builder().deadline(Duration::ZERO))), Some(StoppedError::Deadline));
}

/// A copy of the reference bundle.
fn copied() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(example("reference-bundle")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

/// A change of a bundle, given its folder: when the first graph is about to be loaded, and when the golden input is about to be run.
type Change = fn(&Path);

#[test]
fn a_bundle_that_changes_between_comparing_and_loading_is_refused() {
    let nothing: Change = |_| ();
    let write: Change = |folder| {
        let path = folder.join("tokenizer.json");
        std::fs::write(&path, std::fs::read(&path).unwrap()).unwrap();
    };
    // Another file is loaded in the place of the one that was compared, which is put back afterwards.
    let swap: Change = |folder| {
        std::fs::rename(folder.join("apm.onnx"), folder.join("kept")).unwrap();
        std::fs::copy(folder.join("kept"), folder.join("apm.onnx")).unwrap();
    };
    let restore: Change = |folder| std::fs::rename(folder.join("kept"), folder.join("apm.onnx")).unwrap();
    let away: Change = |folder| {
        std::fs::rename(folder, folder.with_extension("kept")).unwrap();
        std::fs::create_dir(folder).unwrap();
        for file in std::fs::read_dir(folder.with_extension("kept")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    };
    let back: Change = |folder| {
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::rename(folder.with_extension("kept"), folder).unwrap();
    };
    for (name, before, after, changed) in [
        ("nothing", nothing, nothing, None),
        ("the same bytes", write, nothing, Some("tokenizer.json")),
        ("a file", swap, restore, Some("/apm.onnx")),
        ("the folder", away, back, Some(" was changed")),
        ("late", nothing, write, Some("tokenizer.json")),
    ] {
        let bundle = copied();
        let folder = bundle.path().to_path_buf();
        let opened = builder().progress(move |one| match (one.phase, one.done) {
            (Phase::Graphs, 0) => before(&folder),
            (Phase::GoldenCheck, 0) => after(&folder),
            _ => {}
        });
        match (opened.open(bundle.path()), changed) {
            (Ok(_), None) => {}
            (Err(Error::Bundle(error @ BundleError::Changed { .. })), Some(file)) => {
                let message = error.to_string();
                let [folder, advice] = [bundle.path().display().to_string(), "open it again".into()];
                assert!([&folder, &advice, file].iter().all(|part| message.contains(*part)), "{name}: {message}");
            }
            (other, _) => panic!("{name}: {:?}", other.map(|_| "opened").map_err(|error| error.full_message())),
        }
    }
}

/// Opening does not look into the sentences; verifying does.
#[test]
fn verifying_reads_the_whole_sentence_database() {
    let folder = copied();
    let [database, manifest] = ["sentences.safetensors", "manifest.json"].map(|name| folder.path().join(name));
    let mut bytes = std::fs::read(&database).unwrap();
    // Everything agrees with the manifest, but what is at the end of the file is no longer an embedding.
    let end = bytes.len();
    bytes[end - 64..].fill(0xff);
    std::fs::write(&database, &bytes).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    value["files"]["sentences.safetensors"]["sha256"] = crate::hash::Digest::of(&bytes).to_string().into();
    std::fs::write(manifest, value.to_string()).unwrap();
    assert!(matches!(builder().verify_bundle(folder.path()), Err(Error::Retrieval(_))));
    assert!(builder().golden_check(false).open(folder.path()).is_ok());
}

#[test]
fn perceiving_tells_how_many_are_done() {
    let engine = builder().golden_check(false).open(example("reference-bundle")).unwrap();
    let radiographs = vec![Radiograph::open(example("phantom.dcm")).unwrap(); engine.batch_size() + 1];
    let total = radiographs.len() as u64;
    let done = |seen: &Seen| seen.lock().unwrap().iter().map(|one| (one.phase, one.done, one.total)).collect::<Vec<_>>();
    let expected = [0, total - 1, total].map(|done| (Phase::Perceive, done, total));

    let (seen, progress) = kept();
    engine.studies_with(&radiographs, &PerceiveOptions::new().progress(progress)).unwrap();
    assert_eq!(done(&seen), expected);
    let (seen, progress) = kept();
    engine.study_with(&radiographs[0], &PerceiveOptions::new().progress(progress)).unwrap();
    assert_eq!(done(&seen), [(Phase::Perceive, 0, 1), (Phase::Perceive, 1, 1)]);

    // What was not reached before a stop does not count.
    let cancel = CancelHandle::new();
    let (handle, (seen, progress)) = (cancel.clone(), kept());
    let stop = move |one: Progress| {
        progress(one);
        if one.done > 0 {
            handle.cancel();
        }
    };
    let studies = engine.studies_with(&radiographs, &PerceiveOptions::new().cancel(&cancel).progress(stop)).unwrap();
    assert_eq!(studies.iter().filter(|study| study.is_ok()).count() as u64, total - 1);
    assert_eq!(done(&seen), expected[..2]);
}
