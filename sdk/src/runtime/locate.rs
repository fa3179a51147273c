//! Finds ONNX Runtime's library: the caller's choice, else `ORT_DYLIB_PATH`, else beside this library, beside the program or in `lib`
//! beside the program's folder (where it is installed), else the system's.

use super::error::RuntimeError;
use crate::cause::{causes, refuses_files, source};
use std::path::{Path, PathBuf};

const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

pub(super) fn find(chosen: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    // A library that is named is not replaced by another one.
    if let Some(path) =
        chosen.map(Path::to_path_buf).or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()).map(PathBuf::from))
    {
        // Opening a pipe would wait for its writer.
        return match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => Ok(path),
            Ok(_) => Err(RuntimeError::NotFound { tried: vec![path], source: Some(source("it is not a regular file")) }),
            Err(_) => Err(RuntimeError::NotFound { tried: vec![path], source: None }),
        };
    }
    let mut tried = Vec::new();
    let program = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let installed = program.as_deref().and_then(Path::parent).map(|prefix| prefix.join("lib"));
    for path in [own_folder(), program, installed].into_iter().flatten().flat_map(|folder| NAMES.map(|name| folder.join(name))) {
        if path.exists() {
            return Ok(path);
        }
        if !tried.contains(&path) {
            tried.push(path);
        }
    }
    let mut refusal = None;
    for name in NAMES {
        let Some(problem) = refused(Path::new(name)) else { return Ok(name.into()) };
        if refuses_files(&problem) {
            return Err(RuntimeError::Files { path: name.into(), source: source(problem) });
        }
        // That there is no such file is what the message says. Another reason, such as a library that it needs, is the cause.
        refusal = refusal.or_else(|| (!problem.starts_with(name)).then(|| source(problem)));
        tried.push(name.into());
    }
    Err(RuntimeError::NotFound { tried, source: refusal })
}

/// Why the system's loader refuses a library; `None` if it loads it.
pub(super) fn refused(library: &Path) -> Option<String> {
    // SAFETY: opening ONNX Runtime runs its initialisers only, and the caller asked for it.
    #[allow(unsafe_code)]
    let error = unsafe { libloading::Library::new(library) }.err()?;
    // The loader's own words are the source of the error.
    Some(causes(&error).unwrap_or_else(|| error.to_string()))
}

/// The folder of the library or program that contains this code.
fn own_folder() -> Option<PathBuf> {
    let here = own_folder as fn() -> Option<PathBuf> as usize;
    mapped_file(here)?.parent().map(Path::to_path_buf)
}

/// The path of the loaded ONNX Runtime with links resolved, if `chosen` is another file; else `None`.
pub(super) fn other(chosen: &Path, found: &Path) -> Option<PathBuf> {
    // A name without a folder was found by the system's loader, not in the current folder.
    let loaded = mapped_file(ort::api().CreateEnv as usize).or_else(|| found.canonicalize().ok()).unwrap_or_else(|| found.into());
    (chosen.canonicalize().ok().as_ref() != Some(&loaded)).then_some(loaded)
}

/// The file that is mapped at this address of the process.
fn mapped_file(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { return false };
        let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        (parse(from)..parse(to)).contains(&address)
    })?;
    line.get(line.find('/')?..).map(PathBuf::from)
}
