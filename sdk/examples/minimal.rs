//! The example of README.md.

use anatomix::{Engine, Flow, Radiograph, Task};

fn main() -> anatomix::Result<()> {
    let engine = Engine::builder().open("examples/reference-bundle")?;
    let mut study = engine.study(&Radiograph::open("chest.dcm")?)?;
    for found in study.structures() {
        println!("{:<32} {} {}", found.structure, found.bounds, found.sentence.text);
    }
    println!("{}", study.ask(Task::Report)?.text);
    let answer = study.ask_streaming("Where is the left lung?", |piece| {
        print!("{piece}");
        Flow::Continue
    })?;
    for grounding in &answer.groundings {
        for bounds in &grounding.boxes {
            println!("{} at {bounds}", grounding.phrase); // pixels of chest.dcm
        }
    }
    Ok(())
}
