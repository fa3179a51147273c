//! Memory whose amount follows from a file: where it cannot be had, that is an error of that file and not the end of the program.

use super::RadiographError;

/// Left for tables and the like, whose amount does not follow from a file: they are not asked for in this way.
const FIXED: usize = 4 << 20;

/// Room for so many values.
pub(super) fn room<T>(count: usize, name: &str) -> Result<Vec<T>, RadiographError> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| missing(count.saturating_mul(size_of::<T>()), name))?;
    available(0, name)?;
    Ok(values)
}

/// So many copies of a value.
pub(super) fn filled<T: Clone>(value: T, count: usize, name: &str) -> Result<Vec<T>, RadiographError> {
    let mut values = room(count, name)?;
    values.resize(count, value);
    Ok(values)
}

/// A copy of bytes.
pub(super) fn copied(bytes: &[u8], name: &str) -> Result<Vec<u8>, RadiographError> {
    let mut copy = room(bytes.len(), name)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Makes sure that so many bytes can be had, before a library is called that ends the program where they cannot.
pub(super) fn available(bytes: usize, name: &str) -> Result<(), RadiographError> {
    let mut tried = Vec::<u8>::new();
    let had = tried.try_reserve_exact(bytes.saturating_add(FIXED));
    // A compiler may leave out an allocation that nobody looks at.
    std::hint::black_box(&tried);
    had.map_err(|_| missing(bytes, name))
}

fn missing(bytes: usize, name: &str) -> RadiographError {
    RadiographError::Memory { name: name.into(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(filled(7u16, 3, "x").unwrap(), [7, 7, 7]);
        assert_eq!(copied(b"abc", "x").unwrap(), b"abc");
        assert!(available(1 << 20, "x").is_ok());
        let errors = [filled(0u32, usize::MAX / 8, "x").map(|_| ()), available(isize::MAX as usize, "x")];
        for error in errors {
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("x takes ") && message.contains(';'), "{message}");
        }
    }
}
