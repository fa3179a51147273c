//! Progress bars, which appear on terminals only.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar over `total` items, with rate and remaining time.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_prefix(what.to_string())
}
