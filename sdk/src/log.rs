//! Messages about what an engine does, for the program that uses it.

use crate::text::controls_terminal;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How important a message is; see [`EngineBuilder::log`](crate::EngineBuilder::log).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LogLevel {
    /// A study or an answer: its size, times and flags.
    Debug,
    /// The opening of an engine.
    Info,
    /// Something that may make results wrong or slow.
    Warning,
    /// A failure that ONNX Runtime reports. The call that failed returns an error, too.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

type Callback = dyn Fn(LogLevel, &str) + Send + Sync;

/// The callback that receives an engine's messages, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Log(Option<Arc<Callback>>);

impl Log {
    pub fn new(callback: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    /// Whether there is a callback.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Passes a message on as one line. It is composed only if there is a callback. A panic in the callback is caught.
    pub fn write(&self, level: LogLevel, compose: impl FnOnce() -> String) {
        let Some(callback) = &self.0 else { return };
        let line = compose().replace(controls_terminal, " ");
        let _ = catch_unwind(AssertUnwindSafe(|| callback(level, &line)));
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Log").field(&self.is_on()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_message_is_one_line_and_a_panic_stays_inside() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log = Log::new(move |level, line| {
            kept.lock().unwrap().push(format!("{level}: {line}"));
            assert_ne!(level, LogLevel::Error, "provoked by a test");
        });
        for level in [LogLevel::Error, LogLevel::Debug] {
            // The lock is poisoned by neither: it was given back before.
            log.write(level, || "two\nlines\u{1b}[31m".into());
        }
        assert_eq!(*lines.lock().unwrap(), ["error: two lines [31m", "debug: two lines [31m"]);
    }

    #[test]
    fn nothing_is_composed_without_a_callback() {
        Log::default().write(LogLevel::Info, || unreachable!("nobody receives this"));
        assert!(!Log::default().is_on());
    }
}
