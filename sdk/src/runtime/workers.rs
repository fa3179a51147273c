//! Threads for the work of an engine outside the graphs.

use super::error::RuntimeError;
use crate::cause::source;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of cores that the process may use, which is the largest number of threads that an engine may be given.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Thread pools for the callers of an engine that uses fewer threads than there are cores. Each caller gets a pool with the requested
/// number of threads. If there are more callers than cores for their threads, callers share pools.
pub(crate) struct Workers {
    threads: usize,
    /// Largest number of pools. All pools together have a thread for each core.
    most: usize,
    first: Arc<ThreadPool>,
    /// Pools that were started when all others had callers.
    more: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Workers {
    /// Starts a pool of `threads` threads. Returns `None` if rayon's global pool, which has a thread for each core, has no more threads
    /// than that.
    ///
    /// # Errors
    /// If the system cannot start the threads.
    pub fn new(threads: Option<usize>) -> Result<Option<Self>, RuntimeError> {
        let cores = cores();
        let Some(threads) = threads.filter(|&threads| threads < cores) else { return Ok(None) };
        Ok(Some(Self { threads, most: cores.div_ceil(threads), first: start(threads)?, more: Mutex::default() }))
    }

    /// Runs a caller's work in a pool.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool().install(work)
    }

    /// The pool with the fewest callers. A new pool is started if all have callers and there are fewer than `most`.
    fn pool(&self) -> Arc<ThreadPool> {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let least = [&self.first].into_iter().chain(more.iter()).min_by_key(|pool| Arc::strong_count(pool)).unwrap_or(&self.first);
        let least = Arc::clone(least);
        // One reference is in `self`, one is in `least`, and each caller has one.
        let is_busy = Arc::strong_count(&least) > 2;
        // Callers share pools if the system cannot start more threads.
        let another = (is_busy && more.len() + 1 < self.most).then(|| start(self.threads).ok()).flatten();
        more.extend(another.clone());
        another.unwrap_or(least)
    }
}

fn start(threads: usize) -> Result<Arc<ThreadPool>, RuntimeError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map(Arc::new).map_err(|e| RuntimeError::Threads { threads, source: source(e) })
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::Meeting;
    use super::*;
    use std::thread::{ThreadId, current, scope};

    #[test]
    fn callers_have_their_own_threads_as_long_as_there_are_cores() {
        let workers = Workers { threads: 1, most: 2, first: start(1).unwrap(), more: Mutex::default() };
        let meeting = Meeting::of(2);
        let meet = || workers.within(|| (meeting.arrive(), current().id()).1);
        let [one, two]: [ThreadId; 2] = scope(|scope| [scope.spawn(meet), scope.spawn(meet)].map(|caller| caller.join().unwrap()));
        assert_ne!(one, two);
        // No further pool is started for callers that come one after the other, nor for more callers than cores.
        let used: Vec<_> = (0..4).map(|_| workers.within(|| current().id())).collect();
        assert!(used.iter().all(|id| [one, two].contains(id)));
        scope(|scope| (0..8).for_each(|_| _ = scope.spawn(|| workers.within(|| ()))));
        assert_eq!(workers.more.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_global_pool_is_used_if_it_has_no_more_threads() {
        assert!(Workers::new(None).unwrap().is_none());
        assert!(Workers::new(Some(cores())).unwrap().is_none());
        assert_eq!(Workers::new(Some(1)).unwrap().is_some(), cores() > 1);
    }
}
