//! Errors of ONNX Runtime and of graphs.

use super::provider::Provider;
use crate::cause::{CLOSE_FILES, Source};
use std::path::PathBuf;

/// What can be wrong with ONNX Runtime or a graph. Sources are what ONNX Runtime or the operating system said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum RuntimeError {
    #[error("ONNX Runtime was not found; tried {}; install it or set ORT_DYLIB_PATH to libonnxruntime.so", list(.tried))]
    NotFound { tried: Vec<PathBuf>, source: Option<Source> },
    #[error("{path} cannot be used as ONNX Runtime; set ORT_DYLIB_PATH to the library of version 1.24 or newer")]
    Library { path: PathBuf, source: Source },
    #[error("{asked} cannot be used: ONNX Runtime was loaded from {loaded}, and a process loads it once; name that file, or none")]
    OtherLibrary { asked: PathBuf, loaded: PathBuf },
    #[error("the provider {provider} cannot run here: {message}; install what is missing or choose the provider auto")]
    Provider { provider: Provider, message: String, source: Option<Source> },
    #[error(
        "{threads} threads were asked for, but the machine runs {most} at a time; ask for 1 to {most}, or leave the number out to use all \
         of them"
    )]
    TooManyThreads { threads: usize, most: usize },
    #[error(
        "the system refuses to start {threads} threads; ask for fewer, end other programs, or raise the limit of processes (ulimit -u)"
    )]
    Threads { threads: usize, source: Source },
    #[error("{path} cannot be loaded; {CLOSE_FILES}")]
    Files { path: PathBuf, source: Source },
    #[error("{path} cannot be loaded; restore the bundle from its source")]
    Graph { path: PathBuf, source: Source },
    #[error(
        "{graph} computes in {precision}, for which the provider {provider} has no operators; choose the provider cuda, or a bundle \
         whose decoder was exported in fp32, int8 or int4"
    )]
    Precision { graph: String, precision: String, provider: Provider },
    #[error("{graph} lacks the {what} {name:?}; export the bundle again with a matching trainer")]
    Missing { graph: String, what: &'static str, name: String },
    #[error("{graph} has {} where {field} in the manifest is {expected}; export the bundle again", size(*.found))]
    Size { graph: String, field: &'static str, expected: usize, found: i64 },
    #[error("{graph} cannot be computed; check that enough memory is free and that the bundle is intact (anatomix bundle verify)")]
    Run { graph: String, source: Source },
    #[error("{graph} returned values that are not finite; use another precision or provider, or export the bundle again")]
    NotFinite { graph: String },
    #[error("a tensor of shape {shape:?} cannot be made; give as many values as the shape says, or a smaller one")]
    Tensor { shape: Vec<usize>, source: Source },
    #[error("{graph} returned {tensor} with the shape {found:?} instead of {expected:?}; export the bundle again")]
    Shape { graph: String, tensor: String, found: Vec<i64>, expected: Vec<i64> },
    #[error(
        "on this provider {tensor} differs from the bundle's golden output by {difference:e} (allowed {allowed:e}); \
         choose another provider, or restore the bundle if it is damaged (anatomix bundle verify)"
    )]
    Golden { tensor: String, difference: f32, allowed: f32 },
}

/// A dimension of a tensor, which is negative if the graph leaves it open.
fn size(dimension: i64) -> String {
    usize::try_from(dimension).map_or_else(|_| "no fixed size".into(), |size| format!("the size {size}"))
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
