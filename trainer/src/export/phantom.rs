//! Phantoms for calibration and the golden input.

use crate::run::ModelConfig;
use anatomix::Radiograph;
use anatomix_phantom::Scene;
use anyhow::Result;

/// The phantom of a seed. Its longer side has as many pixels as the network's input, so it is padded but not resampled: the order of the
/// sums in resampling depends on the processor.
pub(super) fn phantom(seed: u64, models: &ModelConfig) -> Result<Radiograph> {
    let picture = Scene::sample_sized(seed, models.apm.image_size as u32).render();
    let pixels: Vec<u16> = picture.data.iter().map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
    Ok(Radiograph::from_pixels_u16(picture.width, picture.height, &pixels)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pixels_are_not_resampled() {
        let mut models = ModelConfig::default();
        models.apm.image_size = 96;
        let radiograph = phantom(5, &models).unwrap();
        let (width, height) = (radiograph.width(), radiograph.height());
        assert_eq!(width.max(height), 96);
        let distinct = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<BTreeSet<_>>().len();
        // Each level of the picture becomes one value of the input. The padding may add zero.
        let input = radiograph.preprocess(&models.preprocess()).unwrap();
        let picture = Scene::sample_sized(5, 96).render();
        let levels: Vec<f32> = picture.data.iter().map(|v| (v.clamp(0.0, 1.0) * 65535.0).round()).collect();
        assert!(distinct(&input) <= distinct(&levels) + 1, "{} of {}", distinct(&input), distinct(&levels));
    }
}
