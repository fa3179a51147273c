//! Weights are memory-mapped, and the memory of decoding does not grow over time. The file has one test, because no other may run in the
//! same process.
#![cfg(target_os = "linux")]

use anatomix::{Engine, Provider, Question, Radiograph, Sampling, Structure, Task};
use std::path::Path;

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The memory mappings of this process, with one file per line.
fn mapped() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap()
}

#[test]
fn ten_thousand_tokens_at_constant_memory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = root.join("../examples/reference-bundle");
    let engine = Engine::builder().provider(Provider::Cpu).open(&bundle).unwrap();
    // ONNX Runtime maps the weights, and copies those that its kernels need in another layout.
    let weights = bundle.join("decoder.onnx.data").canonicalize().unwrap();
    assert!(mapped().contains(weights.to_str().unwrap()), "{} is not mapped", weights.display());
    assert!(mapped().contains("sentences.safetensors"));

    let mut study = engine.study(&Radiograph::open(root.join("../examples/phantom.dcm")).unwrap()).unwrap();
    let questions: Vec<Question> =
        Structure::all().map(|structure| Question::new(format!("Where is the {}?", structure.name().to_lowercase()))).collect();
    let (mut tokens, mut after, mut peak) = (0, None, 0);
    for seed in 0.. {
        // A high temperature gives long and varied answers. The other questions use prompt look-up, one by one and together.
        let sampling = Sampling { temperature: 2.0, seed, ..Sampling::default() };
        let drawn = study.ask(Question::from(Task::Report).sampling(sampling).max_tokens(200)).unwrap();
        let alone = study.ask(questions[seed as usize % questions.len()].clone()).unwrap();
        let follow_up = study.ask(Question::from(Task::Report).follow_up()).unwrap();
        let together = study.ask_many(questions.iter().skip(seed as usize % 30).take(6).cloned()).unwrap();
        tokens += [drawn, alone, follow_up].iter().chain(&together).map(|answer| answer.tokens).sum::<usize>();
        peak = peak.max(resident());
        // Memory is compared after 6,000 tokens, when the KV cache, the arenas and the texts for prompt look-up have their final sizes.
        if tokens > 6_000 && after.is_none() {
            (after, peak) = (Some(resident()), 0);
        }
        if tokens >= 16_000 {
            break;
        }
    }
    let grown = peak.saturating_sub(after.unwrap());
    println!("{tokens} tokens: {} KiB more than after the first 6,000", grown >> 10);
    assert!(grown < 2 << 20, "{grown} bytes");
}
