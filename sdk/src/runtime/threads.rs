//! The threads of a graph, which ONNX Runtime asks for when it loads the graph. Its own error would not say that the system refused one.

use ort::environment::ThreadManager;
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};

/// Stack of a thread in bytes, as the system gives it to a program's own threads.
const STACK: usize = 8 << 20;

/// Starts threads and remembers if the system refused one.
#[derive(Clone, Default)]
pub(super) struct GraphThreads {
    refused: Arc<OnceLock<String>>,
}

impl GraphThreads {
    /// Why the system refused a thread, if it did.
    pub fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }
}

impl ThreadManager for GraphThreads {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        Builder::new().name("anatomix graph".into()).stack_size(STACK).spawn(work).map_err(|error| {
            self.refused.get_or_init(|| error.to_string());
            ort::Error::wrap(error)
        })
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of the graph panicked"))
    }
}
