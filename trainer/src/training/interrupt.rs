//! Ctrl-C and SIGTERM: a training stage finishes its step, saves a checkpoint, and ends.

use crate::progress::say;
use anyhow::{Context, Result};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When a signal first asked to stop.
static ASKED: OnceLock<Instant> = OnceLock::new();
/// A second signal within this time is the same request: `timeout` signals the program and then its group.
const SAME: Duration = Duration::from_millis(500);
/// The same under torchrun, to whose processes a terminal sends Ctrl-C, and torchrun SIGTERM some time later. It kills them itself after
/// this time.
const SAME_OF_TORCHRUN: Duration = Duration::from_secs(30);
static LISTENING: OnceLock<Result<(), String>> = OnceLock::new();

/// The end of a training stage that was asked to stop; the program's exit code is then 130.
#[derive(Debug, thiserror::Error)]
#[error("{stage} was stopped after step {step}, which is saved; --resume continues")]
pub struct Stopped {
    /// The training stage.
    pub stage: &'static str,
    /// Number of steps that are done.
    pub step: u64,
}

/// Whether a signal, this long after the first one, is the same request.
fn is_same(elapsed: Duration, under_torchrun: bool) -> bool {
    elapsed < if under_torchrun { SAME_OF_TORCHRUN } else { SAME }
}

/// Makes signals ask the training stage to stop. A second signal, half a second later or more, ends the program at once; under torchrun it
/// does not.
///
/// # Errors
/// If the signals cannot be handled.
pub fn listen() -> Result<()> {
    let under_torchrun = std::env::var_os("TORCHELASTIC_RUN_ID").is_some();
    let handler = move || match ASKED.get().map(Instant::elapsed) {
        None => {
            ASKED.get_or_init(Instant::now);
            say(if under_torchrun { "stopping after this step" } else { "stopping after this step (once more: at once)" });
        }
        Some(elapsed) if is_same(elapsed, under_torchrun) => {}
        Some(_) => std::process::exit(130),
    };
    let listening = LISTENING.get_or_init(|| ctrlc::set_handler(handler).map_err(|e| e.to_string()));
    listening.clone().map_err(anyhow::Error::msg).context("Ctrl-C cannot be handled")
}

/// Whether a signal asked to stop.
pub fn asked() -> bool {
    ASKED.get().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_torchrun_sends_after_a_terminal_is_the_same_request() {
        let [soon, later] = [100, 2000].map(Duration::from_millis);
        assert!(is_same(soon, false) && is_same(soon, true) && is_same(later, true) && !is_same(later, false));
        assert!(!is_same(Duration::from_secs(40), true));
    }
}
