//! Where ONNX Runtime is: the caller's choice, the environment, beside this library or the program, the system.

use super::error::RuntimeError;
use std::path::{Path, PathBuf};

const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

pub(super) fn find(chosen: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    // Whoever names a library means that one: no silent substitute.
    if let Some(path) =
        chosen.map(Path::to_path_buf).or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()).map(PathBuf::from))
    {
        return if path.exists() { Ok(path) } else { Err(RuntimeError::NotFound { tried: vec![path] }) };
    }
    let mut tried = Vec::new();
    let folders = [own_folder(), std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_path_buf))];
    for path in folders.into_iter().flatten().flat_map(|folder| NAMES.map(|name| folder.join(name))) {
        if path.exists() {
            return Ok(path);
        }
        if !tried.contains(&path) {
            tried.push(path);
        }
    }
    for name in NAMES {
        // SAFETY: opening ONNX Runtime runs its initialisers only, and it is what the caller asked to be loaded.
        #[allow(unsafe_code)]
        if unsafe { libloading::Library::new(name) }.is_ok() {
            return Ok(name.into());
        }
        tried.push(name.into());
    }
    Err(RuntimeError::NotFound { tried })
}

/// The folder of the library or program that this code is part of.
fn own_folder() -> Option<PathBuf> {
    let here = own_folder as fn() -> Option<PathBuf> as usize;
    mapped_file(here)?.parent().map(Path::to_path_buf)
}

/// The library that ONNX Runtime was loaded from, without links, if `chosen` names another one.
pub(super) fn other(chosen: &Path, found: &Path) -> Option<PathBuf> {
    // A name without a folder was found by the system, not in the current folder.
    let loaded = mapped_file(ort::api().CreateEnv as usize).or_else(|| found.canonicalize().ok()).unwrap_or_else(|| found.into());
    (chosen.canonicalize().ok().as_ref() != Some(&loaded)).then_some(loaded)
}

/// The file that is mapped at an address of this process.
fn mapped_file(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { return false };
        let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        (parse(from)..parse(to)).contains(&address)
    })?;
    line.get(line.find('/')?..).map(PathBuf::from)
}
