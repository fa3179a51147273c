//! Ctrl-C and SIGTERM: a training stage finishes its step, saves a checkpoint, and ends.

use crate::progress::say;
use anyhow::{Context, Result};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When a signal first asked to stop.
static ASKED: OnceLock<Instant> = OnceLock::new();
/// A second signal within this time is the same request: `timeout` signals the program and then its group.
const SAME: Duration = Duration::from_millis(500);
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

/// Makes signals ask the training stage to stop. A second signal, half a second later or more, ends the program at once.
///
/// # Errors
/// If the signals cannot be handled.
pub fn listen() -> Result<()> {
    let handler = || match ASKED.get().map(Instant::elapsed) {
        None => {
            ASKED.get_or_init(Instant::now);
            say("stopping after this step (once more: at once)");
        }
        Some(elapsed) if elapsed < SAME => {}
        Some(_) => std::process::exit(130),
    };
    let listening = LISTENING.get_or_init(|| ctrlc::set_handler(handler).map_err(|e| e.to_string()));
    listening.clone().map_err(anyhow::Error::msg).context("Ctrl-C cannot be handled")
}

/// Whether a signal asked to stop.
pub fn asked() -> bool {
    ASKED.get().is_some()
}
