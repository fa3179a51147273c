//! Allocations whose size follows from a file. If there is too little memory, reading that file fails; the process goes on.

use super::RadiographError;

/// Bytes that have to remain free for tables and other allocations of fixed size, which are not checked.
const FIXED: usize = 4 << 20;

/// An empty vector with room for `count` values.
pub(crate) fn room<T>(count: usize, name: &str) -> Result<Vec<T>, RadiographError> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| missing(count.saturating_mul(size_of::<T>()), name))?;
    available(0, name)?;
    Ok(values)
}

/// `count` copies of a value.
pub(crate) fn filled<T: Clone>(value: T, count: usize, name: &str) -> Result<Vec<T>, RadiographError> {
    let mut values = room(count, name)?;
    values.resize(count, value);
    Ok(values)
}

/// A copy of bytes.
pub(crate) fn copied(bytes: &[u8], name: &str) -> Result<Vec<u8>, RadiographError> {
    let mut copy = room(bytes.len(), name)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Checks that this many bytes can be allocated, before a library is called that aborts the process if it cannot allocate them.
pub(crate) fn available(bytes: usize, name: &str) -> Result<(), RadiographError> {
    let mut trial = Vec::<u8>::new();
    let reserved = trial.try_reserve_exact(bytes.saturating_add(FIXED));
    // Compilers may remove an allocation that is not used.
    std::hint::black_box(&trial);
    reserved.map_err(|_| missing(bytes, name))
}

fn missing(bytes: usize, name: &str) -> RadiographError {
    RadiographError::Memory { name: name.into(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_an_error() {
        assert_eq!(filled(7u16, 3, "x").unwrap(), [7, 7, 7]);
        assert_eq!(copied(b"abc", "x").unwrap(), b"abc");
        assert!(available(1 << 20, "x").is_ok());
        let errors = [filled(0u32, usize::MAX / 8, "x").map(|_| ()), available(isize::MAX as usize, "x")];
        for error in errors {
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("x needs ") && message.contains(';'), "{message}");
        }
    }
}
