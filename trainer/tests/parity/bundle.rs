//! Export of a complete run: two exports have the same bytes, the SDK opens the bundle, and ONNX Runtime reproduces the golden outputs.

use crate::{difference, graph, input, output, random, shake};
use anatomix::parts::bundle::{APM, GOLDEN, MANIFEST, PROJECTOR, SENTENCES};
use anatomix::{Bundle, Engine, Provider, Structure};
use anatomix_phantom::Scene;
use anatomix_trainer::export::{Check, Measure, Settings, export};
use anatomix_trainer::graph::onnx::{Operators, Precision};
use anatomix_trainer::graph::{CausalBatch, Params, Torch, TorchTensor};
use anatomix_trainer::models::apm::{ApmConfig, apm};
use anatomix_trainer::models::gemma::{GemmaConfig, gemma};
use anatomix_trainer::models::lora::Lora;
use anatomix_trainer::models::projector::projector;
use anatomix_trainer::models::text::{TextConfig, project};
use anatomix_trainer::run::{self, ModelConfig, Run};
use anatomix_trainer::training::{text, tokenizer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn models(vocabulary: i64) -> ModelConfig {
    ModelConfig {
        apm: ApmConfig {
            image_size: 64,
            blocks: [1, 1, 1, 1],
            planes: 8,
            width: 32,
            heads: 2,
            feed_forward: 48,
            encoder_layers: 1,
            decoder_layers: 2,
            embedding: 6,
            ..Default::default()
        },
        text: TextConfig {
            vocabulary,
            width: 32,
            layers: 1,
            heads: 2,
            feed_forward: 48,
            positions: 256,
            projection: 24,
            ..Default::default()
        },
        language: GemmaConfig {
            vocab_size: vocabulary,
            hidden_size: 48,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 16,
            sliding_window: 32,
            sliding_window_pattern: 2,
            max_position_embeddings: 4096,
            ..Default::default()
        },
        lora: Lora { rank: 2, ..Default::default() },
        ..Default::default()
    }
}

/// Makes a complete run with random parameters.
pub fn make_run(folder: &Path) -> Run {
    let scenes: Vec<Scene> = (0..6).map(Scene::sample).collect();
    let sentences: Vec<BTreeSet<String>> = Structure::all().map(|s| scenes.iter().map(|scene| scene.sentence(s)).collect()).collect();
    let mut texts: Vec<String> = sentences.iter().flatten().cloned().collect();
    texts.push("Likely findings:\nemb: box: \nTask: Where is the heart?".into());
    let tokenizer = tokenizer::train(&texts, 300).unwrap();
    let run = Run::create(folder).unwrap();
    tokenizer.save(run.file(run::TOKENIZER), true).unwrap();
    let models = models(tokenizer.get_vocab_size(true) as i64);
    run.keep_models(&models).unwrap();
    std::fs::write(run.file(run::SENTENCES), serde_json::to_vec(&sentences).unwrap()).unwrap();

    let params = Params::create(Device::Cpu);
    let _ = text::embed(&Torch::new(&params), &models.text, &text::encode(&tokenizer, &models.text, &["Left lung is healthy."]).unwrap());
    params.save(&run.file(run::TEXT), |_| true).unwrap();

    let params = Params::create(Device::Cpu);
    let seen = apm(&Torch::new(&params), &models.apm, &TorchTensor(random(&[1, 1, 64, 64])));
    let _ = project(&Torch::new(&params), &models.text, 6, &TorchTensor(random(&[1, 32])));
    shake(&params);
    params.save(&run.file(run::APM), |_| true).unwrap();

    let params = Params::create(Device::Cpu);
    let visual = projector(&Torch::new(&params), (32, 6, 48), &seen.image_tokens, &seen.object_embeddings).0;
    let zeros = || Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu));
    let batch = CausalBatch {
        ids: zeros(),
        visual: Some(visual.flatten(0, 1)),
        visual_index: zeros() - 1,
        positions: zeros(),
        mask: Tensor::ones([1, 1, 1, 1], (Kind::Bool, Device::Cpu)),
        selected: zeros().flatten(0, 1),
    };
    let _ = gemma(&Torch { lora: Some(&models.lora), batch: Some(&batch), ..Torch::new(&params) }, &models.language);
    shake(&params);
    let adapted = |name: &str| name.contains("lora_") || name.contains("projectionhead");
    params.save(&run.file(run::LANGUAGE), |name| !adapted(name)).unwrap();
    // As after instruction tuning, the embedding table was trained in full and overrides the base model's.
    params.insert("model.embed_tokens.weight", random(&[models.language.vocab_size, 48]) * 0.05);
    params.save(&run.file(run::ADAPTER), |name| adapted(name) || name == "model.embed_tokens.weight").unwrap();
    run
}

fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    files.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap())).collect()
}

#[test]
fn whole_run() {
    tch::manual_seed(4);
    let _guard = tch::no_grad_guard();
    let folder = tempfile::tempdir().unwrap();
    let run = make_run(&folder.path().join("tiny"));
    let out = |name: &str| folder.path().join(name);
    let settings = |name: &str| Settings::new(out(name));
    let first = export(&run, &settings("a")).unwrap();
    let second = export(&run, &settings("b")).unwrap();
    assert_eq!((first.name.as_str(), &first.sha256), ("tiny", &second.sha256));
    assert!(first.sha256.is_some() && first.missing.is_empty());
    assert_eq!(first.check, Check::Passed(anatomix::parts::runtime::processor().into()));
    let made = bytes(&out("a"));
    for (name, bytes) in bytes(&out("b")) {
        assert!(made[&name] == bytes, "{name} differs between two exports");
    }
    println!("{:?}", made.iter().map(|(name, bytes)| format!("{name} {}", bytes.len())).collect::<Vec<_>>());

    // ONNX Runtime reproduces the golden outputs of perception and projectors.
    let bundle = Bundle::open(out("a")).unwrap();
    assert_eq!(bundle.manifest().files.len() + 1, made.len());
    assert!(anatomix::parts::retrieval::SentenceDatabase::open(&bundle.file(SENTENCES), 6).is_ok());
    let golden: BTreeMap<String, Tensor> = Tensor::read_safetensors(bundle.file(GOLDEN)).unwrap().into_iter().collect();
    let close = |name: &str, found: &Tensor| {
        let found = difference(found, &golden[name]) / golden[name].abs().max().double_value(&[]);
        println!("golden {name}: {found:.1e} of the largest");
        assert!(found < 1e-3, "{name} differs by {found}");
    };
    let perception = graph(&bundle.file(APM));
    let outputs = perception.compute(&[input("image", &golden["image"])]).unwrap();
    for name in ["boxes", "object_embeddings", "image_tokens", "image_logits"] {
        close(name, &output(&outputs, name));
    }
    let projectors = graph(&bundle.file(PROJECTOR));
    let inputs = ["image_tokens", "object_embeddings"].map(|name| input(name, &golden[name]));
    let outputs = projectors.compute(&inputs).unwrap();
    close("visual_features", &output(&outputs, "visual_features"));

    // Opening an engine compares all golden outputs, including the language model's.
    Engine::builder().provider(Provider::Cpu).threads(1).open(out("a")).unwrap();

    // An export replaces an earlier one and nothing else; a failed export leaves nothing behind.
    export(&run, &settings("b")).unwrap();
    std::fs::write(out("b").join("notes.txt"), "mine").unwrap();
    let error = export(&run, &settings("b")).unwrap_err().to_string();
    assert!(error.contains("notes.txt"), "{error}");
    std::fs::create_dir(out("c")).unwrap();
    std::fs::write(out("c").join(MANIFEST), "{}").unwrap();
    let error = export(&run, &settings("c")).unwrap_err().to_string();
    assert!(error.contains("not a bundle"), "{error}");

    // Bundles in other precisions can be opened, and their deviations from fp32 are measured.
    for (apm, decoder, operators) in [
        (Precision::Fp32, Precision::Int4, Operators::Fused),
        (Precision::Fp16, Precision::Int8, Operators::Fused),
        (Precision::Fp16Weights, Precision::Fp32, Operators::Portable),
        (Precision::Int8, Precision::Int4, Operators::Fused),
    ] {
        let settings = Settings { apm, decoder, operators, measure: Measure::Always, ..settings("p") };
        let made = export(&run, &settings).unwrap();
        println!("{apm}, {decoder}, {operators:?}: {:?}", made.deviations);
        assert_eq!(made.sha256, export(&run, &settings).unwrap().sha256, "{decoder} differs between two exports");
        assert_eq!(made.deviations.apm.is_some(), apm != Precision::Fp32);
        let least = if apm == Precision::Int8 { 0.9 } else { 0.98 };
        assert!(made.deviations.apm.is_none_or(|d| d.box_iou[0] > least && d.embedding_cosine[0] > 0.999));
        // In int8, activations of convolutions are quantised, and no calibration node is left in the graph.
        let graph = std::fs::read(out("p").join(APM)).unwrap();
        let rounds = graph.windows(14).any(|w| w == b"QuantizeLinear");
        assert!(rounds == (apm == Precision::Int8) && !graph.windows(9).any(|w| w == b"calibrate"));
        let found = made.deviations.decoder.unwrap();
        assert!(found.positions > 100 && found.top1_agreement > 0.3 && found.kl[0].is_finite());
        assert_eq!(found.kl[1] < 1e-6, decoder == Precision::Fp32, "{found:?}");
        Engine::builder().provider(Provider::Cpu).threads(1).open(out("p")).unwrap();
    }
    // A bf16 decoder cannot run on a CPU; the error names the reason.
    let published = export(&run, &Settings { decoder: Precision::Bf16, ..settings("p") }).unwrap();
    assert!(matches!(&published.check, Check::LeftOut(reason) if reason.contains("bf16")), "{:?}", published.check);
    let error = Engine::builder().provider(Provider::Cpu).open(out("p")).err().unwrap().to_string();
    assert!(error.contains("bf16") && error.contains("cuda"), "{error}");
    // An implausible tolerance in the manifest is refused.
    let manifest = std::fs::read_to_string(out("p").join(MANIFEST)).unwrap();
    assert!(manifest.contains("\"decoder_tolerance\": 0.1"), "{manifest}");
    for value in ["0.9", "-1.0", "1e39"] {
        std::fs::write(out("p").join(MANIFEST), manifest.replace("\"decoder_tolerance\": 0.1", &format!("\"decoder_tolerance\": {value}")))
            .unwrap();
        assert!(Bundle::open(out("p")).is_err(), "{value}");
    }
    std::fs::write(out("p").join(MANIFEST), manifest).unwrap();

    // The parts of an incomplete run are exported, and the export names the missing ones. A partial export is replaced by the next.
    std::fs::remove_file(run.file(run::ADAPTER)).unwrap();
    let part = export(&run, &settings("d")).unwrap();
    assert_eq!(part.files, ["apm.onnx", "apm.onnx.data", "decoder.onnx", "decoder.onnx.data"]);
    assert!(part.sha256.is_none() && part.missing.len() == 1, "{part:?}");
    assert!(matches!(&part.check, Check::LeftOut(reason) if reason.contains("graphs alone")), "{part:?}");
    assert!(part.missing[0].contains("train instruct") && part.missing[0].contains("adapter.safetensors"), "{:?}", part.missing);
    std::fs::remove_file(run.file(run::LANGUAGE)).unwrap();
    assert_eq!(export(&run, &settings("d")).unwrap().files, ["apm.onnx", "apm.onnx.data"]);
    assert!(bytes(&out("d")).iter().all(|(name, bytes)| made[name] == *bytes), "the same graph as in the bundle");
    std::fs::write(out("d").join("apm.onnx"), "mine").unwrap();
    let error = export(&run, &settings("d")).unwrap_err().to_string();
    assert!(error.contains("not a bundle"), "{error}");
    std::fs::remove_file(run.file(run::APM)).unwrap();
    let error = export(&run, &settings("e")).unwrap_err().to_string();
    assert!(error.contains("no model to export"), "{error}");
    let left: BTreeSet<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["a", "b", "c", "d", "p", "tiny"].map(String::from).into());
}
