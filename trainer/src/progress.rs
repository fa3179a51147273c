//! Progress on standard error: a bar on a terminal, elsewhere a line from time to time.

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Time between two lines where standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

static SILENT: AtomicBool = AtomicBool::new(false);

/// From now on this process shows no progress: of several processes the first one does.
pub fn silence() {
    SILENT.store(true, Relaxed);
}

/// Prints a line on standard error, unless the process is silent.
pub fn say(line: &str) {
    if !SILENT.load(Relaxed) {
        eprintln!("{line}");
    }
}

/// A progress bar over `total` items, with rate and remaining time.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    if SILENT.load(Relaxed) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_prefix(what.to_string())
}

/// Progress of a training stage.
pub struct Meter {
    bar: ProgressBar,
    what: String,
    started: Instant,
    first: u64,
    told: Instant,
}

impl Meter {
    /// Progress over `total` steps, of which `first` are done.
    pub fn new(what: &str, first: u64, total: u64) -> Self {
        let bar = bar(total, what);
        bar.set_position(first);
        bar.reset_eta();
        Self { bar, what: what.into(), started: Instant::now(), first, told: Instant::now() }
    }

    /// Shows that `done` steps are done, with a message about the latest ones.
    pub fn set(&mut self, done: u64, message: String) {
        self.bar.set_position(done);
        let total = self.bar.length().unwrap_or(done);
        if self.bar.is_hidden() && (self.told.elapsed() >= INTERVAL || done == total) {
            self.told = Instant::now();
            let rate = (done - self.first) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            let left = Duration::try_from_secs_f64(total.saturating_sub(done) as f64 / rate.max(1e-9)).unwrap_or(Duration::MAX);
            say(&format!("{}: step {done} of {total}, {rate:.2} steps/s, {} left, {message}", self.what, HumanDuration(left)));
        }
        self.bar.set_message(message);
    }

    /// Prints a line that stays.
    pub fn print(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
