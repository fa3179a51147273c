//! Weights are mapped, and decoding takes no more memory the longer it goes on. One test by itself: nothing else may run in the process.
#![cfg(target_os = "linux")]

use anatomix::{Engine, Provider, Question, Radiograph, Sampling, Structure, Task};
use std::path::Path;

/// Memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The files that are mapped into this process, the whole of each line.
fn mapped() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap()
}

#[test]
fn ten_thousand_tokens_at_constant_memory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = root.join("../examples/reference-bundle");
    let engine = Engine::builder().provider(Provider::Cpu).open(&bundle).unwrap();
    // Mapped by ONNX Runtime, which copies what its kernels want in another order.
    let weights = bundle.join("decoder.onnx.data").canonicalize().unwrap();
    assert!(mapped().contains(weights.to_str().unwrap()), "{} is not mapped", weights.display());
    assert!(mapped().contains("sentences.safetensors"));

    let mut study = engine.study(&Radiograph::open(root.join("../examples/phantom.dcm")).unwrap()).unwrap();
    let questions: Vec<Question> =
        Structure::all().map(|structure| Question::new(format!("Where is the {}?", structure.name().to_lowercase()))).collect();
    let (mut tokens, mut after, mut peak) = (0, None, 0);
    for seed in 0.. {
        // Drawn so freely that answers go on and differ; then what is looked up, alone and together.
        let sampling = Sampling { temperature: 2.0, seed, ..Sampling::default() };
        let drawn = study.ask(Question::from(Task::Report).sampling(sampling).max_tokens(200)).unwrap();
        let alone = study.ask(questions[seed as usize % questions.len()].clone()).unwrap();
        let follow_up = study.ask(Question::from(Task::Report).follow_up()).unwrap();
        let together = study.ask_many(questions.iter().skip(seed as usize % 30).take(6).cloned()).unwrap();
        tokens += [drawn, alone, follow_up].iter().chain(&together).map(|answer| answer.tokens).sum::<usize>();
        peak = peak.max(resident());
        // What is looked up is kept, up to a limit; the first tokens make the cache, the arenas and that.
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
