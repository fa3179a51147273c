//! The limits of perceiving, a cancel handle and a deadline, and its progress.

use crate::cause::source;
use crate::control::{CancelHandle, StoppedError, Until};
use crate::error::{Error, Result};
use crate::progress::{Meter, Phase, Progress, Watcher};
use crate::runtime::{RuntimeError, StopSignal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Options of perceiving.
///
/// ```
/// use anatomix::{CancelHandle, PerceiveOptions};
/// use std::time::Duration;
/// let cancel = CancelHandle::new();
/// let options = PerceiveOptions::new().deadline(Duration::from_secs(2)).cancel(&cancel);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PerceiveOptions {
    /// Time after which the call ends with [`StoppedError::Deadline`] for what is not perceived by then; no limit by default.
    pub deadline: Option<Duration>,
    /// A handle with which any thread ends the call with [`StoppedError::Cancelled`] for what is not perceived by then.
    pub cancel: Option<CancelHandle>,
    /// Receives how many radiographs are perceived.
    pub(crate) progress: Watcher,
}

impl PerceiveOptions {
    /// Makes default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the call this long after it began.
    #[must_use]
    pub fn deadline(self, time: Duration) -> Self {
        Self { deadline: Some(time), ..self }
    }

    /// Ends the call when this handle is cancelled, or at once if it was cancelled before.
    #[must_use]
    pub fn cancel(self, handle: &CancelHandle) -> Self {
        Self { cancel: Some(handle.clone()), ..self }
    }

    /// Calls this with how many radiographs are perceived: when the call begins, and after each run of the perception module, which takes
    /// up to [`Engine::batch_size`](crate::Engine::batch_size) of them. Those that failed count, those that were not reached before a stop
    /// do not.
    ///
    /// The callback is called during the call only, by one thread at a time, which may be another than the caller's. The call waits for it.
    /// A panic in it is caught and ignored.
    #[must_use]
    pub fn progress(self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { progress: Watcher::new(callback), ..self }
    }
}

/// The limits of one call, and its progress.
pub(crate) struct Limits {
    until: Until,
    meter: Meter,
    /// Stops the call's runs of graphs; `None` if there is no limit.
    stop: Option<Arc<StopSignal>>,
}

impl Default for Limits {
    /// None, and nobody looks at the progress.
    fn default() -> Self {
        Self { until: Until::default(), meter: Watcher::default().begin(Phase::Perceive, 0), stop: None }
    }
}

impl Limits {
    /// The limits of a call that begins now and perceives `count` radiographs.
    ///
    /// # Errors
    /// If ONNX Runtime or the system lacks the memory or the thread for it.
    pub(super) fn new(options: &PerceiveOptions, count: usize, timer: &Timer) -> Result<Self> {
        let PerceiveOptions { deadline, cancel, progress } = options;
        let until = Until::begin(cancel.as_ref(), *deadline);
        Self::within(until, timer, || progress.begin(Phase::Perceive, count as u64))
    }

    /// The limits of a call, or of a part of it, that does what `meter` counts.
    ///
    /// # Errors
    /// If ONNX Runtime or the system lacks the memory or the thread for it.
    pub(super) fn within(until: Until, timer: &Timer, meter: impl FnOnce() -> Meter) -> Result<Self> {
        if until.cancel.is_none() && until.end.is_none() {
            return Ok(Self { until, stop: None, meter: meter() });
        }
        let stop = Arc::new(StopSignal::new()?);
        until.cancel.iter().for_each(|handle| handle.watch(&stop));
        until.end.map_or(Ok(()), |end| timer.request_at(end, &stop))?;
        Ok(Self { until, stop: Some(stop), meter: meter() })
    }

    /// Adds to the call's progress.
    pub fn advance(&self, by: usize) {
        self.meter.advance(by);
    }

    /// The stop that the call's runs of graphs are given; `None` if there is no limit.
    pub(super) fn stop(&self) -> Option<&StopSignal> {
        self.stop.as_deref()
    }

    /// The outcome of a run of a graph. If the run failed because it was stopped, the error says why it was.
    pub(super) fn of_run<T>(&self, outcome: Result<T, RuntimeError>) -> Result<T> {
        outcome.map_err(|error| match self.check() {
            Err(stopped) if self.stop().is_some_and(StopSignal::is_requested) => stopped.into(),
            _ => Error::Runtime(error),
        })
    }

    /// Checks that the call may go on.
    ///
    /// # Errors
    /// If it was cancelled or its deadline has passed.
    pub fn check(&self) -> Result<(), StoppedError> {
        self.until.check()?;
        // A request that stopped this call may have been withdrawn since, or taken by a question.
        if self.stop().is_some_and(StopSignal::is_requested) { Err(StoppedError::Cancelled) } else { Ok(()) }
    }
}

/// Requests stops at their deadlines, for all calls of an engine: on one thread, which begins with the first deadline and ends with the
/// engine.
#[derive(Default)]
pub(super) struct Timer(Mutex<Option<Sender<Alarm>>>);

type Alarm = (Instant, Weak<StopSignal>);

impl Timer {
    /// Requests a stop at a time, unless it is dropped before.
    ///
    /// # Errors
    /// If the system gives no thread.
    fn request_at(&self, end: Instant, stop: &Arc<StopSignal>) -> Result<(), RuntimeError> {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            let (send, receive) = channel();
            let started = thread::Builder::new().name("anatomix timer".into()).spawn(move || keep_time(&receive));
            started.map_err(|e| RuntimeError::Threads { threads: 1, source: source(e) })?;
            *sender = Some(send);
        }
        // The thread receives for as long as there is a sender.
        sender.iter().for_each(|sender| _ = sender.send((end, Arc::downgrade(stop))));
        Ok(())
    }
}

/// Receives alarms and requests their stops, until there is no sender.
fn keep_time(receive: &Receiver<Alarm>) {
    let mut alarms: Vec<Alarm> = Vec::new();
    loop {
        let next = alarms.iter().map(|(end, _)| *end).min();
        let received = match next {
            Some(end) => receive.recv_timeout(end.saturating_duration_since(Instant::now())),
            None => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(alarm) => alarms.push(alarm),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        alarms.retain(|(end, stop)| {
            let Some(stop) = stop.upgrade() else { return false };
            if *end <= now {
                stop.request();
            }
            *end > now
        });
    }
}
