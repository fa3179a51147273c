//! What a study reserves in the memory budget is what its KV cache has allocated, and what it says that it takes.

use crate::engine::Engine;
use crate::error::Error;
use crate::radiograph::Radiograph;
use crate::study::Study;
use crate::{Finish, Provider, Question};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// The reference bundle with another sliding window and another longest context. Its answers mean nothing.
fn shaped(window: usize, max_context: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(example("reference-bundle")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["decoder"]["sliding_window"] = window.into();
    manifest["decoder"]["max_context"] = max_context.into();
    fs::write(path, manifest.to_string()).unwrap();
    folder
}

fn study(bundle: &Path, memory: Option<u64>) -> Study {
    let builder = Engine::builder().provider(Provider::Cpu).golden_check(false).look_up(false);
    let engine = memory.into_iter().fold(builder, crate::EngineBuilder::memory_limit).open(bundle).unwrap();
    engine.study(&Radiograph::open(example("phantom.dcm")).unwrap()).unwrap()
}

/// A question whose answer ends at its most tokens.
fn question(max_tokens: usize) -> Question {
    let schema = r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2000}"#;
    Question::new("What does the heart show?").json_schema(schema).max_tokens(max_tokens)
}

/// Bytes that are reserved and allocated for the only study of an engine.
fn held(study: &Study) -> u64 {
    let [reserved, allocated] = study.model.decoder.memory_of(study.conversation.as_ref().unwrap().cache());
    assert_eq!(reserved, allocated);
    reserved
}

#[test]
fn a_study_takes_what_it_says() {
    for (window, max_context) in [(1, 2048), (130, 1999), (700, 1777), (5000, 2048)] {
        let bundle = shaped(window, max_context);
        let mut free = study(bundle.path(), None);
        let context = free.context.ids.len();
        let asked = free.ask(question(1)).unwrap().prefilled - context;
        for most in [77, 513] {
            let tokens = asked + most;
            let told = free.cache_bytes(tokens);
            // Exactly as much is enough.
            let mut study = study(bundle.path(), Some(told));
            let answer = study.ask(question(most)).unwrap();
            assert_eq!((answer.finish, answer.tokens, held(&study)), (Finish::MaxTokens, most, told), "{window} {max_context}");
            assert!(study.model.study_bytes(context + tokens) >= told);
            // A byte less is not.
            let mut study = self::study(bundle.path(), Some(told - 1));
            match study.ask(question(most)) {
                Ok(answer) => assert_eq!(answer.finish, Finish::Memory, "{window} {max_context} {most}"),
                Err(error) => assert!(matches!(error, Error::Memory(_)), "{error}"),
            }
        }
        // The cache grows by quarters, through an answer and through several.
        free.ask(question(900)).unwrap();
        held(&free);
        assert!(free.ask_many([question(40), question(300), question(2)]).unwrap().iter().all(|one| one.finish == Finish::MaxTokens));
        held(&free);
        // Several answers count together.
        let mut several = study(bundle.path(), Some(free.cache_bytes(3 * asked + 240)));
        let answers = several.ask_many([question(40), question(190), question(10)]).unwrap();
        assert!(answers.iter().all(|one| one.finish == Finish::MaxTokens));
        assert!(held(&several) <= several.cache_bytes(3 * asked + 240));
        // Nothing is beyond the longest context.
        let most = free.cache_bytes(max_context - context);
        assert_eq!([free.cache_bytes(usize::MAX), free.model.study_bytes(usize::MAX)], [most, free.model.study_bytes(max_context)]);
    }
}
