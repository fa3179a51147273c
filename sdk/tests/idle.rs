//! An engine that has nothing to do leaves the cores to others. The file has one test, because no other may run in the same process.
#![cfg(target_os = "linux")]

use anatomix::{Engine, Provider, Radiograph, Task};
use std::path::Path;
use std::time::Duration;

/// The processor time of this process in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the process, in parentheses, may contain spaces. User and system time are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn threads_do_not_spin_for_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // All cores: ONNX Runtime's threads wait for the next run, in which they are to compute.
    let engine = Engine::builder().provider(Provider::Cpu).open(root.join("../examples/reference-bundle")).unwrap();
    let radiograph = Radiograph::open(root.join("../examples/phantom.dcm")).unwrap();
    let mut spent = 0;
    for _ in 0..10 {
        engine.study(&radiograph).unwrap().ask(Task::Report).unwrap();
        let before = ticks();
        std::thread::sleep(Duration::from_millis(50));
        spent += ticks() - before;
    }
    assert!(spent <= 5, "{spent} ticks of 10 ms were spent while 500 ms were slept");
}
