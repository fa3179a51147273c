//! Files with one JSON object a line that others wrote.

use anatomix::parts::files;
use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line in bytes.
pub const MAX_LINE: u64 = 1 << 20;
/// Largest number of lines of a file.
const MAX_LINES: usize = 4 << 20;

/// Passes on the object of each line with the line's number, which begins at 1. Empty lines are left out.
///
/// # Errors
/// If the file cannot be read, is too large, has no objects or a line that is not such an object, or `each` fails; the error names file and
/// line.
pub fn read<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T, usize) -> Result<()>) -> Result<()> {
    let file = files::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut reader, mut line, mut count) = (BufReader::new(file), Vec::new(), 0);
    for number in 1.. {
        let failed = || format!("{} line {number}", path.display());
        line.clear();
        if (&mut reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).with_context(failed)? == 0 {
            break;
        }
        ensure!(line.len() as u64 <= MAX_LINE, "{} has more than {MAX_LINE} bytes", failed());
        if line.trim_ascii().is_empty() {
            continue;
        }
        count += 1;
        ensure!(count <= MAX_LINES, "{} has more than {MAX_LINES} predictions", path.display());
        // A list would be taken for the values of an object in their order.
        ensure!(line.trim_ascii_start().starts_with(b"{"), "{} is not a JSON object", failed());
        serde_json::from_slice(&line).map_err(Into::into).and_then(|object| each(object, number)).with_context(failed)?;
    }
    ensure!(count > 0, "{} has no predictions; it needs one JSON object a line", path.display());
    Ok(())
}
