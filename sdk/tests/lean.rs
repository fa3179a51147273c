//! Decoding takes no more memory the longer it goes on. A test of its own: nothing else may run in the process.
#![cfg(target_os = "linux")]

use anatomix::{Engine, Provider, Question, Radiograph, Sampling, Task};
use std::path::Path;

/// Memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn ten_thousand_tokens_at_constant_memory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = Engine::builder().provider(Provider::Cpu).open(root.join("../examples/reference-bundle")).unwrap();
    let mut study = engine.study(&Radiograph::open(root.join("../examples/phantom.dcm")).unwrap()).unwrap();
    let (mut tokens, mut after, mut peak) = (0, None, 0);
    for seed in 0.. {
        // Drawn so freely that answers go on and differ.
        let sampling = Sampling { temperature: 2.0, seed, ..Sampling::default() };
        let answer = study.ask(Question::from(Task::Report).sampling(sampling).max_tokens(200)).unwrap();
        tokens += answer.tokens;
        peak = peak.max(resident());
        // What is looked up is kept, up to a limit; the first thousand tokens make the cache and the arenas.
        if tokens > 1_000 && after.is_none() {
            after = Some(resident());
        }
        if tokens >= 11_000 {
            break;
        }
    }
    let grown = peak.saturating_sub(after.unwrap());
    println!("{tokens} tokens: {} KiB more than after the first thousand", grown >> 10);
    assert!(grown < 2 << 20, "{grown} bytes");
}
