//! Work on several threads.
//!
//! It runs in the pool of the thread that asks for it, which is the engine's pool in every call of an engine. Threads without a pool, such
//! as one that opens a radiograph before there is an engine, share a pool of this module; if the system refuses its threads, the work is
//! done on the calling thread. Rayon's global pool is never used: if the system once refuses its threads, it panics for the rest of the
//! process's life.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The pool of threads that have none. It is started when it is first needed, or later if the system refused its threads then.
static SHARED: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
/// Number of threads of the shared pool; 0 for all cores.
static SHARED_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Number of cores that the process may use, which is the largest number of threads that an engine may be given.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Sets the number of threads of the shared pool, unless it was started before.
pub fn limit(threads: usize) {
    SHARED_THREADS.store(threads, Ordering::Relaxed);
}

/// Starts a pool.
///
/// # Errors
/// If the system refuses its threads.
pub(crate) fn start(threads: usize) -> Result<Arc<ThreadPool>, ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("anatomix {index}")).build().map(Arc::new)
}

/// Runs both closures, at the same time if there is a thread for it.
pub(crate) fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    in_pool(|is_pool| if is_pool { rayon::join(a, b) } else { (a(), b()) })
}

/// The results of `work` for each item, in order.
pub fn map<T: Send, R: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    map_init(items, || (), |(), item| work(item))
}

/// The results of `work` for each item, in order. Work that is done one after the other on a thread shares what `init` made.
pub(crate) fn map_init<T: Send, S, R: Send>(
    items: impl IntoIterator<Item = T>,
    init: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, T) -> R + Send + Sync,
) -> Vec<R> {
    let items: Vec<T> = items.into_iter().collect();
    in_pool(|is_pool| {
        if is_pool {
            return items.into_par_iter().map_init(init, work).collect();
        }
        let mut shared = init();
        items.into_iter().map(|item| work(&mut shared, item)).collect()
    })
}

/// Number of threads that work is divided among.
pub(crate) fn threads() -> usize {
    if is_in_pool() { rayon::current_num_threads() } else { shared().map_or(1, |pool| pool.current_num_threads()) }
}

/// Runs `work` in a pool, if there is one, which its argument says.
pub(crate) fn in_pool<T: Send>(work: impl FnOnce(bool) -> T + Send) -> T {
    if is_in_pool() {
        return work(true);
    }
    match shared() {
        Some(pool) => pool.install(|| work(true)),
        None => work(false),
    }
}

/// Whether this is a thread of a pool. (Other functions of rayon would start the global pool to find out.)
fn is_in_pool() -> bool {
    rayon::current_thread_index().is_some()
}

fn shared() -> Option<Arc<ThreadPool>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        let threads = SHARED_THREADS.load(Ordering::Relaxed);
        *shared = start(if threads == 0 { cores() } else { threads }).ok();
    }
    shared.clone()
}
