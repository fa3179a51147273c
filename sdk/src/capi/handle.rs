//! Handles that C owns, and how calls borrow them.

use super::failure::{Failure, catch};
use super::status::anx_status;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// A type that C owns through a pointer. Calls borrow it as a shared reference; C frees it once.
pub(super) trait Handle: Sized {
    /// What messages call an argument of this type.
    const NAME: &'static str;

    /// Drops the handle; does nothing for NULL.
    ///
    /// # Safety
    /// NULL, or from a function of `call.rs` and not used afterwards.
    unsafe fn free(handle: *mut Self) {
        if !handle.is_null() {
            // SAFETY: the caller's promise: it came out of a box and nobody else holds it.
            let boxed = unsafe { Box::from_raw(handle) };
            // A panic in a destructor must not reach C, and a function that frees has no way to report it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
        }
    }
}

/// A handle that its calls change, so that a panic in one of them leaves it in an unknown state: a study.
pub(super) trait Poisonable: Handle {
    /// Its record of a panic.
    fn poison(&self) -> &Poison;
}

/// Whether a call on the handle panicked. Every later call on it is refused.
#[derive(Debug, Default)]
pub(super) struct Poison(AtomicBool);

/// Runs a call on a handle that threads share and that no call changes, unless it is NULL. A panic fails this call only.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn with<H: Handle, T>(handle: *const H, body: impl FnOnce(&H) -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    let handle = unsafe { handle.as_ref() };
    body(handle.ok_or_else(|| Failure::argument(H::NAME, "is NULL; pass a handle that the library made"))?)
}

/// Runs a call on a handle that the call may change, unless it is NULL or poisoned; a panic poisons it.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn on<H: Poisonable, T>(handle: *const H, body: impl FnOnce(&H) -> Result<T, Failure>) -> Result<T, Failure> {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    let handle = unsafe { handle.as_ref() }.ok_or_else(|| Failure::argument(H::NAME, "is NULL; pass a handle that the library made"))?;
    let Poison(poisoned) = handle.poison();
    if poisoned.load(Ordering::Acquire) {
        return Err(Failure::poisoned(H::NAME));
    }
    let outcome = catch(|| body(handle));
    if matches!(&outcome, Err(failure) if failure.status == anx_status::ANX_PANIC) {
        poisoned.store(true, Ordering::Release);
    }
    outcome
}

/// Reads from a handle; `other` for NULL. The reader must not panic: it looks up values that exist already.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn read<H: Handle, T>(handle: *const H, other: T, reader: impl FnOnce(&H) -> T) -> T {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    unsafe { handle.as_ref() }.map_or(other, reader)
}

/// Checks that `count` values can lie at an address that the caller passed. Nothing is read.
pub(super) fn check_array<T>(values: *const T, count: usize, name: &str) -> Result<(), Failure> {
    if values.is_null() {
        return Err(Failure::argument(name, "is NULL; pass the address of the data"));
    }
    if !values.is_aligned() {
        return Err(Failure::argument(name, format!("is not aligned to {} bytes; copy the data", align_of::<T>())));
    }
    // No object is larger than this, and a Rust slice must not be.
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::argument(name, format!("cannot hold {count} values; pass how many there are")));
    }
    Ok(())
}
