//! `apm.onnx` and `projector.onnx` against libtorch.

use crate::{difference, graph, input, output, random, shake};
use anatomix_trainer::export::{write_apm, write_projector};
use anatomix_trainer::graph::onnx::Precision;
use anatomix_trainer::graph::{Params, Torch, TorchTensor};
use anatomix_trainer::models::apm::{ApmConfig, apm};
use anatomix_trainer::models::dino::DinoConfig;
use anatomix_trainer::models::projector::projector;
use anatomix_trainer::run::ModelConfig;
use tch::Device;

/// A small configuration with all parts and unusual sizes.
fn config() -> ApmConfig {
    ApmConfig {
        image_size: 96,
        blocks: [1, 2, 1, 1],
        planes: 6,
        width: 24,
        heads: 3,
        feed_forward: 44,
        encoder_layers: 2,
        decoder_layers: 3,
        embedding: 5,
        ..Default::default()
    }
}

#[test]
fn perception_module() {
    tch::manual_seed(1);
    let _guard = tch::no_grad_guard();
    let folder = tempfile::tempdir().unwrap();
    // DINOv3 has registers in one case, and gated layers in the other.
    let dino = |registers, gated| {
        Some(DinoConfig { patch: 12, width: 40, layers: 2, heads: 2, feed_forward: 52, registers, gated, biases: [true, gated, true] })
    };
    for (feature_extractor, precision, dino) in [
        (true, Precision::Fp32, None),
        (true, Precision::Fp16Weights, None),
        (false, Precision::Fp32, None),
        (true, Precision::Fp32, dino(3, false)),
        (true, Precision::Fp16Weights, dino(0, true)),
    ] {
        let encoder = if dino.is_some() { "DINOv3" } else { "ResNet" };
        let config = ApmConfig { feature_extractor, dino, ..config() };
        let params = Params::create(Device::Cpu);
        let _ = apm(&Torch::new(&params), &config, &TorchTensor(random(&[1, 1, 96, 96])));
        shake(&params);
        let path = folder.path().join(format!("{encoder}-{precision:?}-{feature_extractor}.onnx"));
        let stored = write_apm(&path, &config, &params, precision, None).unwrap();
        params.check(&path).unwrap();
        let graph = graph(&path);
        for batch in [1, 2, 3] {
            let image = random(&[batch, 1, 96, 96]).sigmoid();
            let outputs = graph.compute(&[input("image", &image)]).unwrap();
            // An fp32 graph must agree with the trained parameters, other graphs with the rounded ones.
            let reference = if precision == Precision::Fp32 { &params } else { &stored };
            let expected = apm(&Torch::new(reference), &config, &TorchTensor(image.shallow_clone()));
            for (name, expected, allowed) in [
                ("boxes", &expected.boxes, 1e-4),
                ("object_embeddings", &expected.object_embeddings, 1e-4),
                ("image_tokens", &expected.image_tokens, 1e-3),
                ("image_logits", &expected.image_logits, 1e-4),
            ] {
                let found = difference(&output(&outputs, name), &expected.0);
                println!("apm {encoder} {precision:?}, extractor {feature_extractor}, batch {batch}: {name} {found:.1e}");
                assert!(found < allowed, "{name} differs by {found}");
            }
        }
        let rounded = apm(&Torch::new(&stored), &config, &TorchTensor(random(&[1, 1, 96, 96])));
        assert!(rounded.boxes.0.isfinite().all().int64_value(&[]) == 1);
    }
}

#[test]
fn projectors() {
    tch::manual_seed(2);
    let _guard = tch::no_grad_guard();
    let folder = tempfile::tempdir().unwrap();
    let mut models = ModelConfig { apm: ApmConfig { image_size: 128, ..config() }, ..Default::default() };
    models.language.hidden_size = 40;
    for (precision, pool) in [(Precision::Fp32, 1), (Precision::Fp16Weights, 1), (Precision::Fp32, 2)] {
        models.prompt.pool = pool as usize;
        let params = Params::create(Device::Cpu);
        let (tokens, objects) = (random(&[2, 16, 24]), random(&[2, 36, 5]));
        let squares = tokens.transpose(1, 2).reshape([2, 24, 4, 4]).avg_pool2d([pool; 2], [pool; 2], [0; 2], false, true, None::<i64>);
        let squares = squares.flatten(2, -1).transpose(1, 2);
        let run = |params: &Params| {
            projector(&Torch::new(params), (24, 5, 40), &TorchTensor(squares.shallow_clone()), &TorchTensor(objects.shallow_clone())).0
        };
        let _ = run(&params);
        shake(&params);
        let path = folder.path().join(format!("{precision:?}.onnx"));
        let stored = write_projector(&path, &models, &params, precision).unwrap();
        let graph = graph(&path);
        let outputs = graph.compute(&[input("image_tokens", &tokens), input("object_embeddings", &objects)]).unwrap();
        let expected = run(if precision == Precision::Fp32 { &params } else { &stored });
        let found = difference(&output(&outputs, "visual_features"), &expected);
        println!("projector {precision:?}, pooled by {pool}: {found:.1e}");
        assert!(found < 1e-4, "{found}");
    }
}
