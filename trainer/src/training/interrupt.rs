//! Ctrl-C and SIGTERM: a training stage finishes its step, saves a checkpoint, and ends.

use crate::progress::say;
use anyhow::{Context, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

static ASKED: AtomicBool = AtomicBool::new(false);
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

/// Makes signals ask the training stage to stop. A second signal ends the program at once.
///
/// # Errors
/// If the signals cannot be handled.
pub fn listen() -> Result<()> {
    let handler = || {
        if ASKED.swap(true, SeqCst) {
            std::process::exit(130);
        }
        say("stopping after this step (once more: at once)");
    };
    let listening = LISTENING.get_or_init(|| ctrlc::set_handler(handler).map_err(|e| e.to_string()));
    listening.clone().map_err(anyhow::Error::msg).context("Ctrl-C cannot be handled")
}

/// Whether a signal asked to stop.
pub fn asked() -> bool {
    ASKED.load(SeqCst)
}
