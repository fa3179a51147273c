//! The ONNX Runtime library, which a process loads once.

use super::{check_message, example, open};
use anatomix::Engine;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

#[test]
fn another_library_than_the_loaded_one_is_an_error() {
    // The environment variable names the library that is loaded.
    let loaded = PathBuf::from(std::env::var_os("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH names a library"));
    let bundle = example("reference-bundle");
    open(&bundle).unwrap();
    let with = |library: PathBuf| Engine::builder().golden_check(false).library(library).open(&bundle);
    let folder = tempfile::tempdir().unwrap();
    let [link, copy, none] = ["link.so", "copy.so", "none.so"].map(|name| folder.path().join(name));
    symlink(loaded.canonicalize().unwrap(), &link).unwrap();
    with(loaded.clone()).unwrap();
    with(link).unwrap();
    std::fs::copy(&loaded, &copy).unwrap();
    let real = loaded.canonicalize().unwrap();
    for other in [copy, none] {
        let error = with(other.clone()).err().expect("accepted").full_message();
        check_message(&error, &[other.to_str().unwrap(), real.to_str().unwrap(), "a process loads it once"]);
    }
}
