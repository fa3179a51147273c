//! Threads for what an engine does beside the graphs.

use super::error::RuntimeError;
use crate::cause::source;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// How many threads the machine runs at a time: its cores, or fewer where the process may use fewer. More than that cannot be asked for.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Threads for callers of an engine that is to use fewer threads than there are cores: each caller gets as many as were asked for. Where
/// there are more callers than cores for them, callers share.
pub(crate) struct Workers {
    threads: usize,
    /// Most pools: all of them together have a thread for each core.
    most: usize,
    first: Arc<ThreadPool>,
    /// Those that were needed besides.
    more: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Workers {
    /// Workers of so many threads for each caller; nothing where rayon's own threads, one for each core, serve.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(threads: Option<usize>) -> Result<Option<Self>, RuntimeError> {
        let cores = cores();
        let Some(threads) = threads.filter(|&threads| threads < cores) else { return Ok(None) };
        Ok(Some(Self { threads, most: cores.div_ceil(threads), first: start(threads)?, more: Mutex::default() }))
    }

    /// Does a caller's work on its threads.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool().install(work)
    }

    /// The pool with the fewest callers: one without any, as long as there may be more pools.
    fn pool(&self) -> Arc<ThreadPool> {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let least = [&self.first].into_iter().chain(more.iter()).min_by_key(|pool| Arc::strong_count(pool)).unwrap_or(&self.first);
        let least = Arc::clone(least);
        // One reference is kept here, one is ours, and each caller has one.
        let is_busy = Arc::strong_count(&least) > 2;
        // Where the system gives no more threads, callers share.
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
    fn callers_have_threads_of_their_own_as_far_as_there_are_cores() {
        let workers = Workers { threads: 1, most: 2, first: start(1).unwrap(), more: Mutex::default() };
        let meeting = Meeting::of(2);
        let meet = || workers.within(|| (meeting.arrive(), current().id()).1);
        let [one, two]: [ThreadId; 2] = scope(|scope| [scope.spawn(meet), scope.spawn(meet)].map(|caller| caller.join().unwrap()));
        assert_ne!(one, two);
        // One caller after the other needs no more, and neither do more callers than cores.
        let used: Vec<_> = (0..4).map(|_| workers.within(|| current().id())).collect();
        assert!(used.iter().all(|id| [one, two].contains(id)));
        scope(|scope| (0..8).for_each(|_| _ = scope.spawn(|| workers.within(|| ()))));
        assert_eq!(workers.more.lock().unwrap().len(), 1);
    }

    #[test]
    fn rayons_own_threads_serve_where_they_are_no_more() {
        assert!(Workers::new(None).unwrap().is_none());
        assert!(Workers::new(Some(cores())).unwrap().is_none());
        assert_eq!(Workers::new(Some(1)).unwrap().is_some(), cores() > 1);
    }
}
