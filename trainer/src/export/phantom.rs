//! Phantoms that an export looks at.

use crate::run::ModelConfig;
use anatomix::Radiograph;
use anatomix_phantom::Scene;
use anyhow::Result;

/// The phantom of a seed, with as many pixels on its longer side as the network's input: it is then padded, but not resampled, which
/// processors do in different orders of the same sums.
pub(super) fn phantom(seed: u64, models: &ModelConfig) -> Result<Radiograph> {
    let picture = Scene::sample_sized(seed, models.apm.image_size as u32).render();
    let pixels: Vec<u16> = picture.data.iter().map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
    Ok(Radiograph::from_pixels_u16(picture.width, picture.height, &pixels)?)
}
