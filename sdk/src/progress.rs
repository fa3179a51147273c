//! How far a call has come, for the program that waits for it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// How far a call has come, which its progress callback receives: [`EngineBuilder::progress`](crate::EngineBuilder::progress) and
/// [`PerceiveOptions::progress`](crate::PerceiveOptions::progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What the call is doing.
    pub phase: Phase,
    /// How much of the phase is done, 0 to `total`; it never decreases within a phase. The unit is that of the phase.
    pub done: u64,
    /// How much there is to do in the phase.
    pub total: u64,
}

/// A part of a call that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Opening or verifying a bundle compares the hashes of its files; counted in bytes.
    Hashes,
    /// Verifying a bundle checks its whole sentence database; counted in databases, of which there is one.
    Sentences,
    /// Opening loads the graphs; counted in graphs.
    Graphs,
    /// Opening runs the golden input; counted in graphs.
    GoldenCheck,
    /// Radiographs are perceived, as many at a time as one run takes; counted in radiographs, those that failed included.
    Perceive,
}

impl Phase {
    /// The stable name: `hashes`, `sentences`, `graphs`, `golden_check` or `perceive`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hashes => "hashes",
            Self::Sentences => "sentences",
            Self::Graphs => "graphs",
            Self::GoldenCheck => "golden_check",
            Self::Perceive => "perceive",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Callback = dyn Fn(Progress) + Send + Sync;

/// The callback that receives a call's progress, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Watcher(Option<Arc<Callback>>);

impl Watcher {
    pub fn new(callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    /// Passes the progress on. A panic in the callback is caught.
    pub fn report(&self, phase: Phase, done: u64, total: u64) {
        if let Some(callback) = &self.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| callback(Progress { phase, done, total })));
        }
    }

    /// Begins a phase that several threads may advance.
    pub fn begin(&self, phase: Phase, total: u64) -> Meter {
        self.report(phase, 0, total);
        Meter { watcher: self.clone(), phase, total, done: Mutex::default() }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.0.is_some()).finish()
    }
}

/// How much of a phase is done.
#[derive(Debug)]
pub(crate) struct Meter {
    watcher: Watcher,
    phase: Phase,
    total: u64,
    done: Mutex<u64>,
}

impl Meter {
    /// Adds to what is done. The callback is called by one thread at a time, in the order of what is done.
    pub fn advance(&self, by: usize) {
        if by > 0 {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            *done += by as u64;
            self.watcher.report(self.phase, *done, self.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_in_order_and_a_panic_stays_inside() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let watcher = Watcher::new(move |Progress { phase, done, total }| {
            kept.lock().unwrap().push((phase.name(), done, total));
            assert_ne!(done, 0, "provoked by a test");
        });
        let meter = watcher.begin(Phase::Perceive, 100);
        std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(|| (0..25).for_each(|_| meter.advance(1)))));
        meter.advance(0);
        assert_eq!(*seen.lock().unwrap(), (0..=100).map(|done| ("perceive", done, 100)).collect::<Vec<_>>());
    }
}
