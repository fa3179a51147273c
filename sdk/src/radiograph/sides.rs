//! Accepted sizes of radiographs.

use super::RadiographError;
use std::ops::RangeInclusive;

/// Smallest and largest accepted side in pixels.
const SIDES: RangeInclusive<u32> = 32..=20_000;
/// Largest accepted number of pixels.
pub(super) const MAX_PIXELS: u64 = 100_000_000;

/// Checks the sides of an image. It is called before anything of the image's size is allocated.
///
/// # Errors
/// [`RadiographError::Sides`].
pub(crate) fn check_sides(width: u32, height: u32, name: &str) -> Result<(), RadiographError> {
    if SIDES.contains(&width) && SIDES.contains(&height) && u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    let (least, most) = (*SIDES.start(), *SIDES.end());
    Err(RadiographError::Sides { name: name.into(), width, height, least, most, pixels: MAX_PIXELS })
}
