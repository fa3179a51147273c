//! Limits of the models' sizes.

use anyhow::{Result, ensure};

/// Largest width or other size of a model, and largest number of its layers. Larger ones are mistakes, which would take all memory.
const MAX_SIZE: i64 = 1 << 20;
const MAX_LAYERS: i64 = 1 << 12;

/// Checks that sizes, whose names are given, are at least 1 and not too large.
pub fn check_sizes(sizes: &[(&str, i64)]) -> Result<()> {
    sizes.iter().try_for_each(|&(name, size)| {
        let most = if name.ends_with("layers") { MAX_LAYERS } else { MAX_SIZE };
        ensure!((1..=most).contains(&size), "{name} {size} is not between 1 and {most}");
        Ok(())
    })
}
