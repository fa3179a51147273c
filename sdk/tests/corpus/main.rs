//! The regression corpus: damaged and odd inputs, and what fuzzing found. Nothing panics, and each error is one line that names the file.

mod radiographs;

use anatomix::Radiograph;
use std::fs;
use std::path::Path;

/// Reads an input, whose name is given for messages. Returns the message of the error where it is refused.
type Read = fn(&[u8], &str) -> Result<(), String>;

/// Folders of `tests/corpus`, and what reads their files. (All folders are replayed in `sdk/src/fuzzing.rs`, through what is public and
/// what is not.)
const TARGETS: &[(&str, Read)] = &[("radiograph", radiograph)];
/// Largest file in bytes.
const MAX_BYTES: usize = 64 << 10;

fn radiograph(bytes: &[u8], name: &str) -> Result<(), String> {
    Radiograph::from_bytes(bytes, name).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn every_input_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
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
