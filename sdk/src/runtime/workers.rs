//! Threads for the work of an engine outside the graphs.

use super::error::RuntimeError;
use crate::cause::source;
use crate::parallel::{self, cores};
use rayon::ThreadPool;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

/// Thread pools for the callers of an engine. Each caller gets a pool with the requested number of threads. If there are more callers than
/// cores for their threads, callers share pools.
pub(crate) struct Workers {
    threads: usize,
    /// Largest number of pools. All pools together have a thread for each core.
    most: usize,
    first: Arc<ThreadPool>,
    /// Pools that were started when all others had callers.
    more: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Workers {
    /// Starts a pool of `threads` threads, by default one for each core.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: Option<usize>) -> Result<Self, RuntimeError> {
        let cores = cores();
        let threads = threads.unwrap_or(cores);
        Ok(Self { threads, most: cores.div_ceil(threads), first: start(threads)?, more: Mutex::default() })
    }

    /// Runs a caller's work in a pool.
    ///
    /// A caller may be a thread of a pool of its own. While such a thread waits for this pool it would begin other work of its own pool,
    /// which comes here again, deeper and deeper until the stack overflows. Another thread waits in its place.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pool = self.pool();
        if rayon::current_thread_index().is_none() || pool.current_thread_index().is_some() {
            return pool.install(work);
        }
        let (mut work, mut done) = (Some(work), None);
        let mut run = || done = work.take().map(|work| pool.install(work));
        let waited = thread::scope(|scope| thread::Builder::new().spawn_scoped(scope, &mut run).map(ScopedJoinHandle::join));
        match waited {
            Ok(Err(panic)) => resume_unwind(panic),
            // The system refuses the thread.
            Err(_) => run(),
            Ok(Ok(())) => {}
        }
        done.unwrap_or_else(|| unreachable!("the work was done"))
    }

    /// The pool with the fewest callers. A new pool is started if all have callers and there are fewer than `most`.
    fn pool(&self) -> Arc<ThreadPool> {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let least = [&self.first].into_iter().chain(more.iter()).min_by_key(|pool| Arc::strong_count(pool)).unwrap_or(&self.first);
        let least = Arc::clone(least);
        // One reference is in `self`, one is in `least`, and each caller has one.
        let is_busy = Arc::strong_count(&least) > 2;
        // Callers share pools if the system refuses more threads.
        let another = (is_busy && more.len() + 1 < self.most).then(|| start(self.threads).ok()).flatten();
        more.extend(another.clone());
        another.unwrap_or(least)
    }
}

fn start(threads: usize) -> Result<Arc<ThreadPool>, RuntimeError> {
    parallel::start(threads).map_err(|e| RuntimeError::Threads { threads, source: source(e) })
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::Meeting;
    use super::*;
    use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread::{ThreadId, current, scope};
    use std::time::Duration;

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
    fn a_caller_in_a_pool_of_its_own_waits_for_its_work_and_does_no_other() {
        thread_local!(static DEPTH: Cell<usize> = const { Cell::new(0) });
        let (workers, callers) = (Workers::new(Some(1)).unwrap(), start(1).unwrap());
        let call = |number: usize| {
            DEPTH.set(DEPTH.get() + 1);
            let result = workers.within(|| (thread::sleep(Duration::from_millis(1)), number).1);
            DEPTH.set(DEPTH.get() - 1);
            (result, DEPTH.get())
        };
        let results: Vec<(usize, usize)> = callers.install(|| (0..100).into_par_iter().with_max_len(1).map(call).collect());
        assert_eq!(results, (0..100).map(|number| (number, 0)).collect::<Vec<_>>());
        let panics = || catch_unwind(AssertUnwindSafe(|| workers.within(|| panic!("in the pool"))));
        let panicked = callers.install(panics).unwrap_err();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"in the pool"));
    }

    #[test]
    fn all_pools_together_have_a_thread_for_each_core() {
        for (threads, pools) in [(None, 1), (Some(cores()), 1), (Some(1), cores())] {
            let workers = Workers::new(threads).unwrap();
            assert_eq!((workers.most, workers.first.current_num_threads()), (pools, cores() / pools));
        }
    }
}
