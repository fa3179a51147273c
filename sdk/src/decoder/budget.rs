//! The memory budget of an engine: how many bytes the KV caches of all its studies may take together.

use super::error::MemoryError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes are reserved, and how many may be.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    /// A budget of `limit` bytes; `None` means no limit.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: limit.unwrap_or(u64::MAX) })
    }

    /// Reserves bytes.
    ///
    /// # Errors
    /// [`MemoryError::Budget`] if fewer are left.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, MemoryError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reserved { budget: Arc::clone(self), bytes }),
            Err(used) => Err(MemoryError::Budget { needed: bytes, used, limit: self.limit }),
        }
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.limit < u64::MAX
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// How many bytes are reserved.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

/// A reserved part of the budget. Dropping it releases the bytes.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reserved {
    /// Number of reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds another part of the same budget.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget));
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Keeps at most `bytes` bytes and releases the rest.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.release(surplus);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_and_dropped_parts_are_released() {
        let budget = Budget::new(Some(100));
        let first = budget.reserve(60).unwrap();
        let error = budget.reserve(41).unwrap_err();
        assert!(matches!(error, MemoryError::Budget { needed: 41, used: 60, limit: 100 }), "{error}");
        let second = budget.reserve(40).unwrap();
        drop(first);
        assert!(budget.reserve(61).is_err() && budget.reserve(60).is_ok());
        drop(second);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(100).is_ok());
        assert!(Budget::new(None).reserve(u64::MAX).is_ok());
    }

    #[test]
    fn parts_are_joined_and_shrunk() {
        let budget = Budget::new(Some(100));
        let mut part = budget.reserve(30).unwrap();
        part.join(budget.reserve(40).unwrap());
        assert_eq!((part.bytes(), budget.used()), (70, 70));
        part.shrink(50);
        part.shrink(60);
        assert_eq!((part.bytes(), budget.used()), (50, 50));
        drop(part);
        assert_eq!(budget.used(), 0);
    }
}
