//! What the decoders of PNG and JPEG return.

use crate::radiograph::RadiographError;
use crate::radiograph::decoded::Noticed;
use crate::radiograph::stored::Samples;

/// A picture as it is displayed.
pub(super) struct Raster {
    pub width: u32,
    pub height: u32,
    pub samples: Samples<'static>,
    pub noticed: Noticed,
}

/// The error of a damaged picture.
pub(super) fn damaged(name: &str, problem: impl std::fmt::Display) -> RadiographError {
    RadiographError::Damaged { name: name.into(), message: problem.to_string() }
}
