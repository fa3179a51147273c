//! The memory that all studies' caches together may take.

use super::error::DecoderError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory of an engine's caches.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: limit.unwrap_or(u64::MAX) })
    }

    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, DecoderError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reserved { budget: Arc::clone(self), bytes }),
            Err(used) => Err(DecoderError::Memory { needed: bytes, used, limit: self.limit }),
        }
    }
}

/// A part of the budget; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_comes_back() {
        let budget = Budget::new(Some(100));
        let first = budget.reserve(60).unwrap();
        let error = budget.reserve(41).unwrap_err();
        assert!(matches!(error, DecoderError::Memory { needed: 41, used: 60, limit: 100 }), "{error}");
        let second = budget.reserve(40).unwrap();
        drop(first);
        assert!(budget.reserve(61).is_err() && budget.reserve(60).is_ok());
        drop(second);
        assert!(budget.reserve(100).is_ok());
        assert!(Budget::new(None).reserve(u64::MAX).is_ok());
    }
}
