//! Exported graphs, run by ONNX Runtime, against libtorch, with the same random parameters.

mod bundle;
mod decoder;
mod perception;
mod prompts;

use anatomix::Provider;
use anatomix::parts::runtime::{Graph, Options, Outputs, Runtime, Tensor as Input};
use anatomix_trainer::graph::Params;
use std::path::Path;
use std::sync::OnceLock;
use tch::{Kind, Tensor};

/// A graph on the SDK's runtime on one thread, because libtorch computes in the same process.
fn graph(path: &Path) -> Graph {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tch::set_num_threads(1);
        Runtime::load(Options { provider: Provider::Cpu, threads: Some(1), ..Default::default() }).unwrap()
    });
    runtime.graph(path).unwrap()
}

fn input<'a>(name: &'a str, tensor: &Tensor) -> (&'a str, Input) {
    (name, floats(tensor))
}

fn floats(tensor: &Tensor) -> Input {
    Input::of_f32(&shape(tensor), tensor.flatten(0, -1).try_into().unwrap()).unwrap()
}

fn integers(tensor: &Tensor) -> Input {
    Input::of_i64(&shape(tensor), tensor.flatten(0, -1).try_into().unwrap()).unwrap()
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|d| d as usize).collect()
}

fn output(outputs: &Outputs, name: &str) -> Tensor {
    let (shape, values) = outputs.get(name).unwrap();
    Tensor::from_slice(&values).reshape(shape.into_iter().map(|size| size as i64).collect::<Vec<_>>())
}

/// Largest absolute difference; the shapes must be equal.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Adds noise to parameters that are initialised with zeros or ones, which would hide mistakes.
fn shake(params: &Params) {
    for (name, tensor) in params.named() {
        let noise = tensor.randn_like();
        let shaken = match name.rsplit('.').next() {
            Some("running_var") => tensor.rand_like() + 0.5,
            Some("running_mean" | "bias") => noise * 0.2,
            _ if tensor.dim() == 1 || name.contains("lora_B") => tensor + noise * 0.1,
            _ => tensor,
        };
        params.insert(&name, shaken);
    }
}

/// A random tensor. Tests set the seed.
fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, tch::Device::Cpu))
}
