//! `decoder.onnx` against libtorch: prefill in one run, in several chunks, and token by token. Past and present share their buffers.

use crate::{difference, floats, graph, integers, random, shake};
use anatomix::parts::runtime::{Graph, Tensor as Input};
use anatomix_trainer::export::write_decoder;
use anatomix_trainer::graph::onnx::{Operators, Precision};
use anatomix_trainer::graph::{CausalBatch, Params, Torch, causal_bias};
use anatomix_trainer::models::gemma::{GemmaConfig, gemma};
use anatomix_trainer::models::lora::Lora;
use anatomix_trainer::run::ModelConfig;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const LENGTH: i64 = 23;
const FEATURES: i64 = 11;
/// Capacity of the KV cache. It is larger than needed, and the unused part is not initialised.
const CAPACITY: usize = 40;

/// Models with a sliding window that is shorter than the prompt; layers 2 and 5 are full layers, the others sliding ones.
fn models(tie_word_embeddings: bool) -> ModelConfig {
    let language = GemmaConfig {
        vocab_size: 131,
        hidden_size: 40,
        intermediate_size: 72,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        query_pre_attn_scalar: 20.0,
        sliding_window: 7,
        sliding_window_pattern: 3,
        rope_factor: 4.0,
        tie_word_embeddings,
        max_position_embeddings: 64,
        ..Default::default()
    };
    ModelConfig { language, lora: Lora { rank: 3, alpha: 6.0, dropout: 0.0 }, ..Default::default() }
}

/// Two sequences with visual features at different positions.
fn batch() -> CausalBatch {
    let ids = Tensor::randint(131, [2, LENGTH], (Kind::Int64, Device::Cpu));
    let visual_index = Tensor::full([2, LENGTH], -1, (Kind::Int64, Device::Cpu));
    for (row, at, feature) in [(0, 2, 0), (0, 3, 1), (0, 4, 2), (0, 17, 9), (1, 0, 10), (1, 9, 3), (1, 10, 3), (1, 22, 5)] {
        let _ = visual_index.get(row).get(at).fill_(feature);
    }
    CausalBatch {
        ids,
        visual: Some(random(&[FEATURES, 40]) * 3.0),
        visual_index,
        positions: Tensor::arange(LENGTH, (Kind::Int64, Device::Cpu)).unsqueeze(0).expand([2, LENGTH], false),
        mask: Tensor::ones([1, 1, LENGTH, LENGTH], (Kind::Bool, Device::Cpu)).tril(0),
        selected: Tensor::arange(2 * LENGTH, (Kind::Int64, Device::Cpu)),
    }
}

struct Decoder {
    graph: Graph,
    caches: Vec<Input>,
    rows: i64,
    past: i64,
}

impl Decoder {
    fn new(path: &Path, rows: i64) -> Self {
        let shape = [rows as usize, 2, CAPACITY, 16];
        let caches = (0..12).map(|_| Input::uninitialised(&shape).unwrap()).collect();
        Self { graph: graph(path), caches, rows, past: 0 }
    }

    /// Runs the next `count` tokens. Returns the logits `[rows, K, vocabulary]` of `positions`, which are relative to the first of them.
    fn run(&mut self, batch: &CausalBatch, count: i64, positions: &[i64]) -> Tensor {
        let part = |x: &Tensor| integers(&x.narrow(0, 0, self.rows).narrow(1, self.past, count));
        let total = (self.past + count) as i32;
        let mut binding = self.graph.binding().unwrap();
        binding.set_input("input_ids", &part(&batch.ids)).unwrap();
        binding.set_input("visual_index", &part(&batch.visual_index)).unwrap();
        binding.set_input("visual_features", &floats(batch.visual.as_ref().unwrap())).unwrap();
        let rows = self.rows as usize;
        binding.set_input("seqlens_k", &Input::of_i32(&[rows], vec![total - 1; rows]).unwrap()).unwrap();
        binding.set_input("total_sequence_length", &Input::of_i32(&[], vec![total]).unwrap()).unwrap();
        binding.set_input("position_ids", &part(&batch.positions)).unwrap();
        for (name, window) in models(true).language.biases() {
            binding.set_input(name, &floats(&causal_bias(self.past, count, window))).unwrap();
        }
        binding.set_input("logit_positions", &integers(&Tensor::from_slice(positions))).unwrap();
        for (i, cache) in self.caches.iter_mut().enumerate() {
            let name = |what: &str| format!("{what}.{}.{}", i / 2, ["key", "value"][i % 2]);
            binding.set_input(&name("past_key_values"), cache).unwrap();
            binding.set_output(&name("present"), cache).unwrap();
        }
        let shape = [rows, positions.len(), models(true).language.vocab_size as usize];
        let logits = binding.run("logits", &shape).unwrap();
        self.past += count;
        Tensor::from_slice(&logits).reshape(shape.map(|size| size as i64))
    }

    /// Runs the prompt in chunks of these lengths. Returns the logits of all positions.
    fn chunks(&mut self, batch: &CausalBatch, lengths: &[i64]) -> Tensor {
        let parts: Vec<Tensor> = lengths.iter().map(|&n| self.run(batch, n, &(0..n).collect::<Vec<_>>())).collect();
        Tensor::cat(&parts, 1)
    }
}

#[test]
fn language_model() {
    tch::manual_seed(3);
    let _guard = tch::no_grad_guard();
    let folder = tempfile::tempdir().unwrap();
    for (tied, precision, operators) in [
        (true, Precision::Fp32, Operators::Fused),
        (false, Precision::Fp32, Operators::Fused),
        (true, Precision::Fp16Weights, Operators::Fused),
        (true, Precision::Fp32, Operators::Portable),
        (false, Precision::Fp16Weights, Operators::Portable),
        (true, Precision::Int4, Operators::Fused),
        (false, Precision::Int4, Operators::Fused),
        (true, Precision::Int8, Operators::Fused),
    ] {
        let models = models(tied);
        let params = Params::create(Device::Cpu);
        let batch = batch();
        let logits_of = |params: &Params, lora, language: &GemmaConfig| {
            let ops = Torch { lora, batch: Some(&batch), ..Torch::new(params) };
            gemma(&ops, language).0.reshape([2, LENGTH, -1])
        };
        let logits = |params: &Params, lora| logits_of(params, lora, &models.language);
        let _ = logits(&params, Some(&models.lora));
        shake(&params);
        let path = folder.path().join(format!("{precision}-{tied}-{operators:?}.onnx"));
        let stored = write_decoder(&path, &models, &params, precision, operators).unwrap();
        params.check(&path).unwrap();
        let expected = if precision == Precision::Fp32 { logits(&params, Some(&models.lora)) } else { logits(&stored, None) };
        let largest = expected.abs().max().double_value(&[]);
        // Matrix products with quantised weights also round activations to 8 bits.
        let quantized = matches!(precision, Precision::Int4 | Precision::Int8);
        let allowed = if quantized { 0.1 * largest } else { 1e-3 };
        if precision == Precision::Int4 {
            let moved = difference(&expected, &logits(&params, Some(&models.lora)));
            println!("decoder {precision}, 4 bits move logits by {moved:.1e}");
            assert!(moved > allowed, "the weights are rounded, and the expected logits are of the rounded ones");
        }
        // The tolerance would reveal missing adapters and a window that is one token too wide, which change the logits far more.
        let wider = GemmaConfig { sliding_window: 8, ..models.language.clone() };
        for other in [logits(&params, None), logits_of(&params, Some(&models.lora), &wider)] {
            let moved = difference(&other, &logits(&params, Some(&models.lora)));
            println!("decoder, a mistake would move logits by {moved:.1e}");
            assert!(moved > 1e-2, "{moved}");
        }
        let close = |what: &str, found: &Tensor, expected: &Tensor| {
            let found = difference(found, expected);
            println!("decoder {precision}, {operators:?}, tied {tied}, {what}: {found:.1e} of {largest:.1}");
            assert!(found < allowed, "{what} differs by {found}");
        };
        close("prefill in one run, batch 2", &Decoder::new(&path, 2).chunks(&batch, &[LENGTH]), &expected);
        close("token by token, batch 2", &Decoder::new(&path, 2).chunks(&batch, &[1; LENGTH as usize]), &expected);
        let first = expected.narrow(0, 0, 1);
        close("prefill in chunks, batch 1", &Decoder::new(&path, 1).chunks(&batch, &[9, 1, 6, 7]), &first);
        close("prefill and decode, batch 1", &Decoder::new(&path, 1).chunks(&batch, &[20, 1, 1, 1]), &first);

        // Logits come in the order of the requested positions. After a rewind, later tokens overwrite the cache.
        let mut decoder = Decoder::new(&path, 1);
        let chosen = Tensor::from_slice(&[22i64, 3]);
        close("chosen positions", &decoder.run(&batch, LENGTH, &[22, 3]), &first.index_select(1, &chosen));
        decoder.past = 12;
        close("after a rewind", &decoder.chunks(&batch, &[4, 7]), &first.narrow(1, 12, 11));
    }
}

#[test]
fn refused() {
    let folder = tempfile::tempdir().unwrap();
    let params = Params::create(Device::Cpu);
    let write = |precision, operators| {
        let written = write_decoder(&folder.path().join("decoder.onnx"), &models(true), &params, precision, operators);
        written.map(|_| ()).unwrap_err().to_string()
    };
    let error = write(Precision::Fp16, Operators::Fused);
    assert!(error.contains("65504") && error.contains("bf16"), "{error}");
    let error = write(Precision::Int4, Operators::Portable);
    assert!(error.contains("--operators fused"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

/// Parameters that are read from their file at each request give the same graph, byte by byte, for each type.
#[test]
fn lazy_parameters() {
    tch::manual_seed(9);
    let _guard = tch::no_grad_guard();
    let folder = tempfile::tempdir().unwrap();
    let models = models(true);
    let params = Params::create(Device::Cpu);
    let batch = batch();
    let _ = gemma(&Torch { lora: Some(&models.lora), batch: Some(&batch), ..Torch::new(&params) }, &models.language);
    shake(&params);
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let tensors: Vec<(String, Tensor)> = params.named().into_iter().map(|(n, t)| (n, t.to_kind(kind))).collect();
        let path = folder.path().join(format!("{kind:?}.safetensors"));
        Tensor::write_safetensors(&tensors, &path).unwrap();
        let (whole, lazy) = (Params::load(&path, Device::Cpu).unwrap(), Params::lazy(&[&path]).unwrap());
        for precision in [Precision::Fp32, Precision::Fp16Weights, Precision::Bf16, Precision::Int8, Precision::Int4] {
            let written = [("whole", &whole), ("lazy", &lazy)].map(|(name, params)| {
                let graph = folder.path().join(name).join("decoder.onnx");
                std::fs::create_dir_all(graph.parent().unwrap()).unwrap();
                let stored = write_decoder(&graph, &models, params, precision, Operators::Fused).unwrap();
                params.check(&path).unwrap();
                let logits = gemma(&Torch { batch: Some(&batch), ..Torch::new(&stored) }, &models.language).0;
                stored.check(&graph).unwrap();
                (std::fs::read(&graph).unwrap(), std::fs::read(graph.with_extension("onnx.data")).unwrap(), logits)
            });
            let [(graph, data, logits), (lazy_graph, lazy_data, lazy_logits)] = written;
            assert!(graph == lazy_graph && data == lazy_data, "{kind:?} in {precision} differs");
            assert!(logits.equal(&lazy_logits) && logits.isfinite().all().int64_value(&[]) == 1);
        }
    }
    // A damaged file is an error when it is opened; missing parameters are an error of `check`.
    let path = folder.path().join("Float.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(Params::lazy(&[&path]).is_err());
    Tensor::write_safetensors(&[("model.norm.weight", Tensor::ones([3], (Kind::Float, Device::Cpu)))], &path).unwrap();
    let lazy = Params::lazy(&[&path]).unwrap();
    let _ = write_decoder(&folder.path().join("bad.onnx"), &models, &lazy, Precision::Int4, Operators::Fused).unwrap();
    let error = lazy.check(&path).unwrap_err().to_string();
    assert!(
        error.contains("model.norm.weight is [3] instead of [40]") && error.contains("model.embed_tokens.weight is missing"),
        "{error}"
    );
}
