//! What leaves the SDK: JSON records, overlays, files written whole or not at all.

/// DejaVu Sans, cut down to Latin letters; its licence stands beside it in `assets/`.
pub const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
