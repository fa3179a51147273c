//! How the bytes of a saved study are recognised.

/// The key under which the metadata of a saved study hold its header.
pub(super) const KEY: &str = "anatomix.study";

/// Whether the bytes begin as a saved study does.
pub fn is_saved_study(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    bytes.get(8) == Some(&b'{') && start.windows(KEY.len()).any(|window| window == KEY.as_bytes())
}
