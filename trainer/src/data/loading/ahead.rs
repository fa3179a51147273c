//! Threads that read items ahead of the one who takes them, in a given order and never more than a few.

use anyhow::{Result, anyhow, ensure};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Items = Box<dyn Iterator<Item = usize> + Send>;
type Reader<T> = dyn Fn(usize) -> Result<T> + Send + Sync;

struct State<T> {
    /// The items that nobody has begun.
    items: Items,
    /// Number of items that were begun, and that were taken.
    begun: u64,
    taken: u64,
    /// What was read and not taken, by its number, with the item.
    read: BTreeMap<u64, (usize, Result<T>)>,
    stopping: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was read.
    arrived: Condvar,
    /// Something was taken, or the threads are to end.
    room: Condvar,
    window: u64,
    reader: Box<Reader<T>>,
}

/// Items that are read ahead by threads, and taken in their order. Dropping it ends the threads.
pub struct Ahead<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts `workers` threads that read `items` in their order. At most `window` items, at least 1, are in memory at once.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        workers: usize,
        window: usize,
        items: impl Iterator<Item = usize> + Send + 'static,
        reader: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let state = State { items: Box::new(items), begun: 0, taken: 0, read: BTreeMap::new(), stopping: false };
        let (arrived, room, window) = (Condvar::new(), Condvar::new(), window.max(1) as u64);
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived, room, window, reader: Box::new(reader) });
        let mut ahead = Self { shared: shared.clone(), threads: Vec::new(), waited: Duration::ZERO };
        for number in 0..workers.clamp(1, window as usize) {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("loading-{number}")).spawn(move || shared.work());
            ahead.threads.push(thread.map_err(|error| anyhow!("cannot start a thread that loads images: {error}"))?);
        }
        Ok(ahead)
    }

    /// Takes the next item, which must be this one.
    ///
    /// # Errors
    /// What the reader said of the item; or if the item is not the next one of the order.
    pub fn take(&mut self, item: usize) -> Result<T> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        let number = state.taken;
        let (found, result) = loop {
            if let Some(read) = state.read.remove(&number) {
                break read;
            }
            ensure!(state.begun > number || state.items.size_hint().1 != Some(0), "the order has ended before sample {item}");
            state = self.shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.taken += 1;
        drop(state);
        self.shared.room.notify_one();
        self.waited += started.elapsed();
        ensure!(found == item, "sample {found} was loaded where {item} was asked for");
        result
    }

    /// How long all calls of [`Self::take`] have waited.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopping && state.begun - state.taken >= self.window {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopping {
                return;
            }
            let Some(item) = state.items.next() else {
                // Whoever waits for more than there is must not wait for ever.
                state.items = Box::new(std::iter::empty());
                drop(state);
                self.arrived.notify_all();
                return;
            };
            let number = state.begun;
            state.begun += 1;
            drop(state);
            let result = catch_unwind(AssertUnwindSafe(|| (self.reader)(item)));
            let result = result.unwrap_or_else(|panic| Err(anyhow!("loading sample {item} failed: {}", message(&*panic))));
            self.lock().read.insert(number, (item, result));
            self.arrived.notify_all();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the reader was caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn items_come_in_their_order_and_few_at_once() {
        let (begun, taken, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = (begun.clone(), taken.clone(), most.clone());
        let mut ahead = Ahead::start(4, 6, (0..200).map(|i| i * 7 % 200), move |item| {
            let open = seen.0.fetch_add(1, Ordering::SeqCst) + 1 - seen.1.load(Ordering::SeqCst);
            seen.2.fetch_max(open, Ordering::SeqCst);
            // Later items are ready sooner.
            std::thread::sleep(Duration::from_micros(200 - item as u64));
            Ok(item * 2)
        })
        .unwrap();
        for i in 0..200 {
            assert_eq!(ahead.take(i * 7 % 200).unwrap(), i * 7 % 200 * 2);
            taken.fetch_add(1, Ordering::SeqCst);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 200);
        // The count of taken items is raised a moment after the item was taken.
        assert!(most.load(Ordering::SeqCst) <= 7, "{most:?}");
        assert!(ahead.take(0).unwrap_err().to_string().contains("the order has ended"));
    }

    #[test]
    fn errors_and_panics_reach_the_step() {
        let mut ahead = Ahead::start(2, 4, 0..4, |item| match item {
            1 => bail!("image 1 is cut"),
            2 => panic!("image 2 is odd"),
            _ => Ok(item),
        })
        .unwrap();
        assert_eq!(ahead.take(0).unwrap(), 0);
        assert_eq!(ahead.take(1).unwrap_err().to_string(), "image 1 is cut");
        assert!(ahead.take(2).unwrap_err().to_string().contains("image 2 is odd"));
        assert!(ahead.take(7).unwrap_err().to_string().contains("sample 3 was loaded where 7"));
    }

    #[test]
    fn dropping_it_ends_the_threads() {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let mut ahead = Ahead::start(3, 5, 0..1_000_000, move |item| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(item)
        })
        .unwrap();
        assert_eq!(ahead.take(0).unwrap(), 0);
        drop(ahead);
        assert!(count.load(Ordering::SeqCst) <= 6);
    }
}
