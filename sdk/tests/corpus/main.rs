//! The regression corpus: damaged and odd inputs, and what fuzzing found. Nothing panics, and each error is one line that names the file.

mod radiographs;

use anatomix::Radiograph;
use std::fs;
use std::path::Path;

/// Reads an input, whose name is given for messages. Returns the message of the error where it is refused.
type Read = fn(&[u8], &str) -> Result<(), String>;

/// The folders of `tests/corpus`, and what reads their files.
const TARGETS: &[(&str, Read)] = &[("radiograph", radiograph)];
/// Largest file in bytes.
const MAX_BYTES: usize = 64 << 10;

fn radiograph(bytes: &[u8], name: &str) -> Result<(), String> {
    Radiograph::from_bytes(bytes, name).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn every_input_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    let folders = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let mut folders: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    folders.sort();
    let mut targets: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
    targets.sort();
    assert_eq!(folders, targets, "each folder of {} needs an entry in TARGETS, and each entry a folder", corpus.display());
    for (target, read) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            // A panic is only useful with the name of its input.
            println!("{name}");
            let bytes = fs::read(&path).unwrap();
            assert!(bytes.len() <= MAX_BYTES, "{name} has {} bytes", bytes.len());
            if let Err(message) = read(&bytes, &name) {
                assert!(message.contains(&name) && !message.trim().contains('\n'), "{name}: {message}");
            }
            inputs += 1;
        }
        assert!(inputs > 0, "{target} has no inputs");
    }
}
