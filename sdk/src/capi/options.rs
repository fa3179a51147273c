//! Structs that the caller fills and that can grow: their first field is their size.

use super::failure::Failure;
use std::mem::{MaybeUninit, size_of};
use std::ptr::copy_nonoverlapping;
use std::slice;

/// A field of an options struct that switches something on or off. Such a field is a size_t, like its neighbours, and takes one of
/// these values; any other fails with ANX_INVALID_ARGUMENT.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum anx_switch {
    /// On or off, as the field's description says.
    ANX_SWITCH_DEFAULT = 0,
    /// On.
    ANX_SWITCH_ON = 1,
    /// Off.
    ANX_SWITCH_OFF = 2,
}

/// The value of a switch.
pub(super) fn switch(value: usize, default: bool, name: &str) -> Result<bool, Failure> {
    const ON: usize = anx_switch::ANX_SWITCH_ON as usize;
    const OFF: usize = anx_switch::ANX_SWITCH_OFF as usize;
    match value {
        0 => Ok(default),
        ON => Ok(true),
        OFF => Ok(false),
        _ => Err(Failure::argument(name, format!("is {value}; pass ANX_SWITCH_DEFAULT, ANX_SWITCH_ON or ANX_SWITCH_OFF"))),
    }
}

/// A larger size is uninitialised memory, not the struct of a later version.
const MAX_SIZE: usize = 4096;
const WORD: usize = size_of::<usize>();

/// A struct that the caller fills.
///
/// # Safety
/// `repr(C)`; the first field is `struct_size: usize`; every field is one machine word, or half a word in a pair, so that no size cuts a
/// field in two; and all bytes zero is a valid value, with the default of every option.
pub(super) unsafe trait Options: Sized {
    /// The C type's name.
    const NAME: &'static str;
}

/// Reads options. The missing fields of a smaller struct take their defaults, the unknown fields of a larger one must be zero, and NULL
/// stands for all defaults.
///
/// # Safety
/// NULL, or as many readable bytes as the first word says.
pub(super) unsafe fn read_options<T: Options>(options: *const T) -> Result<T, Failure> {
    // SAFETY: the same promise.
    unsafe { read_sized(options, "options") }
}

/// Reads a struct as [`read_options`] does; `argument` is its name in messages.
///
/// # Safety
/// NULL, or as many readable bytes as the first word says.
pub(super) unsafe fn read_sized<T: Options>(options: *const T, argument: &str) -> Result<T, Failure> {
    const { assert!(size_of::<T>().is_multiple_of(WORD) && size_of::<T>() <= MAX_SIZE) };
    let mut read = MaybeUninit::<T>::zeroed();
    if !options.is_null() {
        // SAFETY: the first word is readable by the caller's promise.
        let size = unsafe { options.cast::<usize>().read() };
        if size == 0 || size > MAX_SIZE || !size.is_multiple_of(WORD) {
            return Err(Failure::argument(argument, format!("has the struct_size {size}; set it to sizeof({})", T::NAME)));
        }
        let known = size.min(size_of::<T>());
        // SAFETY: `size` bytes are readable, `known` of them fit, and whole words only are copied.
        unsafe { copy_nonoverlapping(options.cast::<u8>(), read.as_mut_ptr().cast::<u8>(), known) };
        // SAFETY: the rest of the `size` bytes; empty if the struct is not larger than ours.
        let tail = unsafe { slice::from_raw_parts(options.cast::<u8>().add(known), size - known) };
        if tail.iter().any(|&byte| byte != 0) {
            let problem = format!(
                "sets an option beyond the {known} bytes of {} that this library knows; update the library, or set all later fields to \
                 zero",
                T::NAME
            );
            return Err(Failure::argument(argument, problem));
        }
    }
    // SAFETY: zeroed, which the trait makes valid, then overwritten by whole fields of the caller's valid struct.
    Ok(unsafe { read.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sample {
        struct_size: usize,
        first: usize,
        second: usize,
    }
    // SAFETY: words only.
    unsafe impl Options for Sample {
        const NAME: &'static str = "sample";
    }

    fn read(words: &[usize]) -> Result<(usize, usize), String> {
        // SAFETY: every test gives at least as many words as it says, or a size that is refused unread.
        unsafe { read_options(words.as_ptr().cast::<Sample>()) }.map(|s| (s.first, s.second)).map_err(|f| f.message)
    }

    #[test]
    fn switches() {
        for default in [true, false] {
            assert_eq!([0, 1, 2].map(|value| switch(value, default, "x").ok()), [default, true, false].map(Some));
        }
        let wrong = switch(3, true, "options.x").unwrap_err();
        assert_eq!(wrong.message, "the argument options.x is 3; pass ANX_SWITCH_DEFAULT, ANX_SWITCH_ON or ANX_SWITCH_OFF");
    }

    #[test]
    fn sizes() {
        assert_eq!(read(&[3 * WORD, 5, 6]), Ok((5, 6)));
        assert_eq!(read(&[2 * WORD, 5, 6]), Ok((5, 0)));
        assert_eq!(read(&[WORD, 5, 6]), Ok((0, 0)));
        assert_eq!(read(&[5 * WORD, 5, 6, 0, 0]), Ok((5, 6)));
        let unknown = read(&[5 * WORD, 5, 6, 0, 1]).unwrap_err();
        assert!(unknown.contains("24 bytes of sample") && unknown.contains("update") && !unknown.contains("struct_size"), "{unknown}");
        for size in [0, 1, WORD + 4, MAX_SIZE + WORD, usize::MAX] {
            let message = read(&[size, 5, 6]).unwrap_err();
            assert!(message.contains(&format!("struct_size {size}; set it to")) && message.contains("sizeof(sample)"), "{message}");
        }
        // SAFETY: NULL is allowed.
        let defaults = unsafe { read_options(std::ptr::null::<Sample>()) }.unwrap();
        assert_eq!((defaults.struct_size, defaults.first, defaults.second), (0, 0, 0));
    }
}
