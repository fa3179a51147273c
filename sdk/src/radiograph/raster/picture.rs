//! What the decoders of PNG and JPEG return.

use crate::cause::Problem;
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

/// The message about a file for which a decoder has an error.
pub(super) const UNDECODED: &str = "its picture cannot be decoded";

/// The error of a damaged picture.
pub(super) fn damaged(name: &str, problem: impl Into<Problem>) -> RadiographError {
    let Problem { message, source } = problem.into();
    RadiographError::Damaged { name: name.into(), message, source }
}
