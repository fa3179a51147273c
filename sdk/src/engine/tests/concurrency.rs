//! Callers of one engine compute at the same time.

use crate::engine::Engine;
use crate::radiograph::Radiograph;
use crate::runtime::{Meeting, Provider, cores};
use std::path::Path;
use std::sync::Arc;
use std::thread::scope;

/// Each graph holds the first run back until another caller's is in flight too. Wherever in the engine one caller waits for the other's
/// run to end, they do not meet, and the test fails.
#[test]
fn runs_of_two_callers_are_in_flight_at_the_same_time() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let mut engine = Engine::builder().provider(Provider::Cpu).threads(1).open(file("reference-bundle")).unwrap();
    let inner = Arc::get_mut(&mut engine.0).unwrap();
    let mut graphs = Vec::from(Arc::get_mut(&mut inner.model).unwrap().decoder.graphs());
    if cores() > 1 {
        // On one core callers wait for its thread before they perceive.
        graphs.push(inner.module.graph());
    }
    graphs.into_iter().for_each(|graph| graph.meeting = Some(Arc::new(Meeting::of(2))));

    let radiograph = Radiograph::open(file("phantom.dcm")).unwrap();
    let ask = || {
        let mut study = engine.study(&radiograph).unwrap();
        (study.structures().to_vec(), study.ask("Where is the left lung?").unwrap().raw)
    };
    let together = scope(|scope| [scope.spawn(ask), scope.spawn(ask)].map(|caller| caller.join().unwrap()));
    // They have met: from here on one caller is enough.
    let alone = ask();
    assert_eq!(together, [alone.clone(), alone]);
}
