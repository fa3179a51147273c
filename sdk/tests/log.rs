//! Messages that an engine passes to its program.

use anatomix::{Engine, LogLevel, Provider, Radiograph};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

#[test]
fn an_engine_tells_what_it_does_and_nothing_of_the_patient() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let log = move |level, line: &str| kept.lock().unwrap().push((level, line.to_string()));
    let engine = Engine::builder().provider(Provider::Cpu).log(log).open(example("reference-bundle")).unwrap();
    let opening = std::mem::take(&mut *lines.lock().unwrap());
    let name = &engine.bundle().manifest().name;
    assert!(
        opening[0].0 == LogLevel::Info && opening[0].1.contains(&format!("{name} computes on cpu, with ONNX Runtime 1.")),
        "{opening:?}"
    );
    assert!(opening.iter().any(|(_, line)| line.contains("graphs 0.") && line.contains("golden check 0.")), "{opening:?}");

    let bytes = std::fs::read(example("phantom.dcm")).unwrap();
    let radiographs = ["Doe^Jane", "Doe^John"].map(|name| Radiograph::from_bytes(&bytes, name).unwrap());
    for study in engine.studies(&radiographs) {
        let mut study = study.unwrap();
        study.ask("Where is the heart?").unwrap();
        study.ask_many(["Where is the left lung?", "Is there an effusion?"]).unwrap();
    }
    let done = std::mem::take(&mut *lines.lock().unwrap());
    let hash = &radiographs[0].sha256()[..12];
    let begin = |start: &str| done.iter().filter(|(level, line)| *level == LogLevel::Debug && line.starts_with(start)).count();
    assert_eq!((begin(&format!("study {hash}: ")), begin(&format!("answer on study {hash}: ")), done.len()), (2, 6, 8), "{done:?}");
    let told = ["Doe", "heart", "lung", "effusion"].map(|word| done.iter().any(|(_, line)| line.contains(word)));
    assert_eq!(told, [false; 4], "{done:?}");
}

#[test]
fn a_panic_in_the_callback_stops_nothing() {
    let log = |_, _: &str| panic!("provoked by a test");
    let engine = Engine::builder().provider(Provider::Cpu).golden_check(false).log(log).open(example("reference-bundle")).unwrap();
    let mut study = engine.study(&Radiograph::open(example("phantom.dcm")).unwrap()).unwrap();
    assert!(!study.ask("Where is the heart?").unwrap().text.is_empty());
}
