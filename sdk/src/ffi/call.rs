//! What every function of the interface does alike: take handles, report failures, hold panics back.

use super::error::anx_error;
use super::status::anx_status;
use crate::error::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// A type that C owns through a pointer: given once, borrowed shared, freed once.
pub(super) trait Handle: Sized {
    /// What messages call an argument of this type.
    const NAME: &'static str;

    /// Hands it over to the caller.
    fn give(self) -> *mut Self {
        Box::into_raw(Box::new(self))
    }

    /// Takes it back and drops it; nothing for NULL.
    ///
    /// # Safety
    /// NULL, or from [`Handle::give`] and not used afterwards.
    unsafe fn free(handle: *mut Self) {
        if !handle.is_null() {
            // SAFETY: the caller's promise: it came out of a box and nobody else holds it.
            let boxed = unsafe { Box::from_raw(handle) };
            // There is nobody to tell about a panic in a destructor, and it must not cross the boundary.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
        }
    }
}

/// A handle whose calls change it, so that a panic in one of them leaves it in an unknown state: a study.
pub(super) trait Poisonable: Handle {
    /// Its mark.
    fn poison(&self) -> &Poison;
}

/// Set by a panic in a call on the handle; every later call on it is refused.
#[derive(Debug, Default)]
pub(super) struct Poison(AtomicBool);

/// Why a call failed; becomes an [`anx_error`].
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub status: anx_status,
    pub message: String,
    pub cause: Option<String>,
}

impl Failure {
    /// An argument that cannot be used; the problem reads on from "the argument NAME".
    pub fn argument(name: &str, problem: impl std::fmt::Display) -> Self {
        Self { status: anx_status::ANX_INVALID_ARGUMENT, message: format!("the argument {name} {problem}"), cause: None }
    }

    fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
        let message = "a defect in AnatomiX stopped the call; report this with the cause, and if the call was on a study, free the study";
        Self { status: anx_status::ANX_PANIC, message: message.into(), cause: Some(text.unwrap_or("no message").into()) }
    }

    /// The handle was poisoned by an earlier call.
    pub fn poisoned(name: &str) -> Self {
        let message = format!("an earlier call on this {name} ended with ANX_PANIC; free it and make a new one");
        Self { status: anx_status::ANX_POISONED, message, cause: None }
    }

    /// The handle is in use.
    pub fn busy(name: &str) -> Self {
        let message = format!("another call is using this {name}; wait for it to return, or make one for each thread");
        Self { status: anx_status::ANX_BUSY, message, cause: None }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let root = std::iter::successors(std::error::Error::source(&error), |e| e.source()).last();
        Self { status: anx_status::of(&error), message: error.to_string(), cause: root.map(ToString::to_string) }
    }
}

/// A place that the caller keeps for a new handle. It holds NULL until there is one.
pub(super) struct Out<H>(*mut *mut H);

impl<H: Handle> Out<H> {
    /// # Safety
    /// NULL or writable.
    pub unsafe fn new(place: *mut *mut H) -> Result<Self, Failure> {
        if place.is_null() {
            return Err(Failure::argument(H::NAME, "is NULL; pass the address of a pointer that takes the result"));
        }
        // SAFETY: not NULL, hence writable. Written, not assigned: what was there before is nobody's to drop.
        unsafe { place.write(null_mut()) };
        Ok(Self(place))
    }

    pub fn give(self, handle: H) {
        // SAFETY: the constructor's caller promised a writable place, for the length of the call.
        unsafe { self.0.write(handle.give()) }
    }
}

/// Runs a call: holds panics back and turns a failure into a status and, where the caller wants one, an error.
///
/// # Safety
/// `error` is NULL or writable.
pub(super) unsafe fn call(error: *mut *mut anx_error, body: impl FnOnce() -> Result<(), Failure>) -> anx_status {
    let outcome = catch(body);
    let status = outcome.as_ref().map_or_else(|f| f.status, |()| anx_status::ANX_OK);
    if !error.is_null() {
        let given = outcome.err().map_or(null_mut(), |failure| anx_error::from(failure).give());
        // SAFETY: not NULL, hence writable. What was there before is the caller's: it is not read.
        unsafe { error.write(given) };
    }
    status
}

/// Runs a call on a handle that threads share and no call changes, unless it is NULL. A panic fails this call alone: [`call`] holds it
/// back, and what other threads see of the handle is as it was.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn with<H: Handle>(handle: *const H, body: impl FnOnce(&H) -> Result<(), Failure>) -> Result<(), Failure> {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    let handle = unsafe { handle.as_ref() };
    body(handle.ok_or_else(|| Failure::argument(H::NAME, "is NULL; pass a handle that was made before"))?)
}

/// Runs a call on a handle that the call may change, unless it is NULL or poisoned; a panic poisons it.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn on<H: Poisonable>(handle: *const H, body: impl FnOnce(&H) -> Result<(), Failure>) -> Result<(), Failure> {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    let handle = unsafe { handle.as_ref() }.ok_or_else(|| Failure::argument(H::NAME, "is NULL; pass a handle that was made before"))?;
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

/// Reads from a handle; `other` for NULL. The reader must not be able to panic: it looks up what is there already.
///
/// # Safety
/// `handle` is NULL or live for the length of the call.
pub(super) unsafe fn read<H: Handle, T>(handle: *const H, other: T, reader: impl FnOnce(&H) -> T) -> T {
    // SAFETY: NULL or live, by the caller's promise; only ever borrowed shared.
    unsafe { handle.as_ref() }.map_or(other, reader)
}

/// Runs something and turns a panic in it into a failure.
pub(super) fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Unwind safety: whatever the panic left half done is behind a handle that is poisoned, or was dropped. What calls on an engine
    // share (graphs, the count of memory, prepared schemas) is changed in single steps, each whole or not begun.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)))
}

#[cfg(test)]
mod tests {
    use super::super::error::{anx_error_cause, anx_error_code, anx_error_free};
    use super::*;
    use std::ffi::CStr;

    #[derive(Default)]
    struct Fragile {
        poison: Poison,
    }
    impl Handle for Fragile {
        const NAME: &'static str = "fragile";
    }
    impl Poisonable for Fragile {
        fn poison(&self) -> &Poison {
            &self.poison
        }
    }

    fn run(handle: &Fragile, body: impl FnOnce() -> Result<(), Failure>) -> anx_status {
        // SAFETY: the handle is live, and no error is asked for.
        unsafe { call(null_mut(), || on(handle, |_| body())) }
    }

    #[test]
    fn a_panic_is_held_back_and_poisons_the_handle() {
        let handle = Fragile::default();
        assert_eq!(run(&handle, || Ok(())), anx_status::ANX_OK);
        assert_eq!(run(&handle, || Err(Failure::busy("x"))), anx_status::ANX_BUSY);
        assert_eq!(run(&handle, || panic!("provoked by a test")), anx_status::ANX_PANIC);
        assert_eq!(run(&handle, || Ok(())), anx_status::ANX_POISONED);
        assert_eq!(run(&Fragile::default(), || Ok(())), anx_status::ANX_OK);
    }

    #[test]
    fn a_panic_on_a_shared_handle_fails_that_call_alone() {
        let handle = Fragile::default();
        // SAFETY: the handle is live, and no error is asked for.
        let run = |body: fn() -> Result<(), Failure>| unsafe { call(null_mut(), || with(&raw const handle, |_| body())) };
        assert_eq!(run(|| panic!("provoked by a test")), anx_status::ANX_PANIC);
        assert_eq!(run(|| Ok(())), anx_status::ANX_OK);
        // SAFETY: NULL is refused.
        let none = unsafe { with(std::ptr::null::<Fragile>(), |_| Ok(())) };
        assert!(none.unwrap_err().message.contains("fragile is NULL"));
    }

    #[test]
    fn a_panic_outside_a_handle_is_an_error_too() {
        let mut error = null_mut();
        // SAFETY: `error` is writable, the error is live until it is freed.
        unsafe {
            let number = 7;
            let status = call(&mut error, || panic!("provoked by test {number}"));
            assert_eq!((status, anx_error_code(error)), (anx_status::ANX_PANIC, anx_status::ANX_PANIC));
            assert_eq!(CStr::from_ptr(anx_error_cause(error)), c"provoked by test 7");
            anx_error_free(error);
        }
    }

    #[test]
    fn a_panicking_destructor_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("provoked by a test");
            }
        }
        impl Handle for Bomb {
            const NAME: &'static str = "bomb";
        }
        // SAFETY: given above, freed once.
        unsafe { Handle::free(Bomb.give()) }
    }
}
