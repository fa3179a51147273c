//! What all functions of the interface do: catch panics, set outputs, report failures.

use super::error::anx_error;
use super::failure::{Failure, catch};
use super::handle::{Handle, check_array};
use super::status::anx_status;
use std::ptr::null_mut;

/// Runs a call that makes no handle: catches panics, and turns a failure into a status and, if the caller asks for it, an error.
///
/// # Safety
/// `error` is NULL or writable.
pub(super) unsafe fn call(error: *mut *mut anx_error, body: impl FnOnce() -> Result<(), Failure>) -> anx_status {
    // SAFETY: the same promise.
    unsafe { report(error, catch(body)) }
}

/// Runs a call that makes one handle, which `output` receives. See [`make_several`].
///
/// # Safety
/// `output` and `error` are NULL or writable.
pub(super) unsafe fn make<H: Handle>(
    output: *mut *mut H,
    error: *mut *mut anx_error,
    body: impl FnOnce() -> Result<H, Failure>,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe { make_several(H::NAME, output, 1, error, || Ok(vec![body()?])) }
}

/// Runs a call that makes `count` handles, all of them or none. `name` is what messages call the outputs.
///
/// # Safety
/// `outputs` is NULL or `count` writable pointers, `error` NULL or writable.
pub(super) unsafe fn make_several<H: Handle>(
    name: &'static str,
    outputs: *mut *mut H,
    count: usize,
    error: *mut *mut anx_error,
    body: impl FnOnce() -> Result<Vec<H>, Failure>,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe {
        let outputs = Outputs::cleared(name, outputs, count);
        let outcome = outputs.and_then(|outputs| {
            let made = catch(|| outputs.checked(body()?))?;
            made.into_iter().enumerate().for_each(|(index, handle)| outputs.give(index, handle));
            Ok(())
        });
        report(error, outcome)
    }
}

/// Runs a call that makes `count` handles, each of which may fail by itself: `outputs` receives a handle or NULL for each, `errors` NULL or
/// the error. The call returns the status of the first failure.
///
/// # Safety
/// `outputs` and `errors` are NULL or `count` writable pointers, `error` NULL or writable.
pub(super) unsafe fn make_each<H: Handle>(
    name: &'static str,
    outputs: *mut *mut H,
    errors: *mut *mut anx_error,
    count: usize,
    error: *mut *mut anx_error,
    body: impl FnOnce() -> Result<Vec<Result<H, Failure>>, Failure>,
) -> anx_status {
    // SAFETY: the same promise.
    unsafe {
        let outputs = Outputs::cleared(name, outputs, count);
        let errors = if errors.is_null() { Ok(None) } else { Outputs::cleared("errors", errors, count).map(Some) };
        let outcome = outputs.and_then(|outputs| {
            let errors = errors?;
            let mut first = Ok(());
            for (index, made) in catch(|| outputs.checked(body()?))?.into_iter().enumerate() {
                match made {
                    Ok(handle) => outputs.give(index, handle),
                    Err(failure) => {
                        first = first.and_then(|()| Err(failure.clone()));
                        errors.iter().for_each(|errors| errors.give(index, failure.clone().into()));
                    }
                }
            }
            first
        });
        report(error, outcome)
    }
}

/// The caller's memory for new handles. Only this type writes to it. It is set to NULL when a call begins and to handles when the call's
/// body has succeeded, so it is NULL after every failure, a panic included.
struct Outputs<H> {
    first: *mut *mut H,
    count: usize,
}

impl<H: Handle> Outputs<H> {
    /// Sets the outputs to NULL.
    ///
    /// # Safety
    /// `first` is NULL or `count` writable pointers, for as long as this is used.
    unsafe fn cleared(name: &str, first: *mut *mut H, count: usize) -> Result<Self, Failure> {
        if count > 0 {
            check_array(first, count, name)?;
        }
        // SAFETY: not NULL, aligned, and `count` of them by the caller's promise. `write` does not drop what was there.
        (0..count).for_each(|index| unsafe { first.add(index).write(null_mut()) });
        Ok(Self { first, count })
    }

    /// Checks that a call made as many handles as there are outputs.
    fn checked<T>(&self, made: Vec<T>) -> Result<Vec<T>, Failure> {
        assert_eq!(made.len(), self.count, "a call made another number of handles than there are outputs");
        Ok(made)
    }

    fn give(&self, index: usize, handle: H) {
        assert!(index < self.count, "there is no output {index}");
        // SAFETY: one of the outputs, which are writable by the constructor's promise.
        unsafe { self.first.add(index).write(Box::into_raw(Box::new(handle))) }
    }
}

/// Sets the caller's error, or NULL on success, and returns the status.
///
/// # Safety
/// `error` is NULL or writable.
unsafe fn report(error: *mut *mut anx_error, outcome: Result<(), Failure>) -> anx_status {
    let status = outcome.as_ref().map_or_else(|f| f.status, |()| anx_status::ANX_OK);
    if !error.is_null() {
        let given = outcome.err().map_or(null_mut(), |failure| Box::into_raw(Box::new(anx_error::from(failure))));
        // SAFETY: not NULL, hence writable. An error that was there before belongs to the caller and is not read.
        unsafe { error.write(given) };
    }
    status
}

#[cfg(test)]
mod tests {
    use super::super::error::{anx_error_cause, anx_error_code, anx_error_free};
    use super::super::handle::{Poison, Poisonable, on, with};
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
    fn a_panic_is_caught_and_poisons_the_handle() {
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
        let mut bomb = null_mut();
        // SAFETY: a writable output; the handle is freed once.
        unsafe {
            assert_eq!(make(&mut bomb, null_mut(), || Ok(Bomb)), anx_status::ANX_OK);
            Handle::free(bomb);
        }
    }

    #[test]
    fn outputs_are_null_after_every_failure() {
        type Body = fn() -> Result<Vec<Fragile>, Failure>;
        let two = || vec![Fragile::default(), Fragile::default()];
        let bodies: [(Body, anx_status); 4] = [
            (|| Err(Failure::busy("x")), anx_status::ANX_BUSY),
            (|| panic!("provoked by a test"), anx_status::ANX_PANIC),
            (|| Ok(vec![]), anx_status::ANX_PANIC),
            (|| Ok(vec![Fragile::default()]), anx_status::ANX_PANIC),
        ];
        for (body, expected) in bodies {
            let mut outputs = [std::ptr::dangling_mut::<Fragile>(); 2];
            // SAFETY: two writable outputs.
            let status = unsafe { make_several("outputs", outputs.as_mut_ptr(), 2, null_mut(), body) };
            assert_eq!((status, outputs), (expected, [null_mut(); 2]));
        }
        let mut outputs = [std::ptr::dangling_mut::<Fragile>(); 3];
        // SAFETY: three writable outputs, of which two are named; handles are freed once.
        unsafe {
            let misplaced = outputs.as_mut_ptr().byte_add(1);
            let refused = |first, count| make_several("outputs", first, count, null_mut(), || Ok(two()));
            for (first, count) in [(null_mut(), 2), (misplaced, 2), (outputs.as_mut_ptr(), usize::MAX)] {
                assert_eq!(refused(first, count), anx_status::ANX_INVALID_ARGUMENT);
            }
            assert_eq!(make_several("outputs", outputs.as_mut_ptr(), 2, null_mut(), || Ok(two())), anx_status::ANX_OK);
            assert_eq!(outputs[2], std::ptr::dangling_mut());
            outputs[..2].iter().for_each(|&handle| Handle::free(handle));
            assert_eq!(make_several::<Fragile>("outputs", null_mut(), 0, null_mut(), || Ok(vec![])), anx_status::ANX_OK);
        }
    }
}
