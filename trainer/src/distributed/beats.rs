//! Signs of a process that it runs, for the others.

use super::c10d::Store;
use anyhow::Result;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two signs.
const BEAT: Duration = Duration::from_millis(500);

/// A thread that tells that this process runs.
#[derive(Debug)]
pub struct Beats {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    /// Starts the thread, with a connection of its own.
    ///
    /// # Errors
    /// If the store cannot be reached, or the system refuses the thread.
    pub fn start(store: Store, rank: usize) -> Result<Self> {
        let key = key(rank);
        store.set(&key, "0")?;
        let (stop, stopped) = channel();
        let run = move || {
            for count in 1u64.. {
                // Without the store nobody reads it.
                let told = store.set(&key, &count.to_string());
                if told.is_err() || !matches!(stopped.recv_timeout(BEAT), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("beats".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The key of a process's signs.
pub fn key(rank: usize) -> String {
    format!("beat/{rank}")
}
