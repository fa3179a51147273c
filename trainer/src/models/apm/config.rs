//! Configuration of the Anatomy Perception Module.

use crate::models::dino::DinoConfig;
use crate::models::sizes::check_sizes;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Largest side of the input in pixels.
const MAX_IMAGE: i64 = 1 << 14;

/// Configuration of the module. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApmConfig {
    /// Side of the square input in pixels; a multiple of 32, or of the patch size with DINOv3.
    pub image_size: i64,
    /// Blocks in each of the four stages of the ResNet.
    pub blocks: [i64; 4],
    /// Inner width of a block in the first stage; it doubles with each stage. A block's output is four times as wide.
    pub planes: i64,
    /// Width of the transformer.
    pub width: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Width of the feed-forward layers.
    pub feed_forward: i64,
    /// Number of encoder layers.
    pub encoder_layers: i64,
    /// Number of decoder layers.
    pub decoder_layers: i64,
    /// Width of an object embedding.
    pub embedding: i64,
    /// Whether object embeddings come from the feature extractor, or directly from the decoder's output (an ablation).
    pub feature_extractor: bool,
    /// Whether batch norms are trained, for a backbone from scratch, or frozen, for a pretrained one.
    pub train_batch_norm: bool,
    /// Number of the ResNet's four stages whose convolutions are frozen, from the first on: 1 as published, for a pretrained backbone. The
    /// stem is trained always, because its input has one channel instead of three.
    pub frozen_stages: i64,
    /// Dropout in the transformer, of attention weights, too.
    pub dropout: f64,
    /// Configuration of DINOv3, which then replaces the ResNet as the image encoder (an ablation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dino: Option<DinoConfig>,
}

impl Default for ApmConfig {
    fn default() -> Self {
        Self {
            image_size: 1024,
            blocks: [3, 4, 6, 3],
            planes: 64,
            width: 256,
            heads: 4,
            feed_forward: 1024,
            encoder_layers: 4,
            decoder_layers: 4,
            embedding: 16,
            feature_extractor: true,
            train_batch_norm: false,
            frozen_stages: 1,
            dropout: 0.1,
            dino: None,
        }
    }
}

impl ApmConfig {
    /// Number of patches along one side of the image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.dino.as_ref().map_or(32, |dino| dino.patch)
    }

    /// Number of patches of the image.
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// Whether a parameter is of a frozen stage of the ResNet.
    pub fn is_frozen(&self, name: &str) -> bool {
        (1..=self.frozen_stages).any(|stage| name.starts_with(&format!("backbone.0.body.layer{stage}.")))
    }

    /// Checks that the sizes fit together, so that no operation fails later.
    ///
    /// # Errors
    /// If they do not; the message names the first size that does not fit.
    pub fn check(&self) -> Result<()> {
        let patch = self.dino.as_ref().map_or(32, |dino| dino.patch);
        let (size, width, heads) = (self.image_size, self.width, self.heads);
        check_sizes(&[
            ("image_size", self.image_size),
            ("planes", self.planes),
            ("width", self.width),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("encoder_layers", self.encoder_layers),
            ("decoder_layers", self.decoder_layers),
            ("embedding", self.embedding),
        ])?;
        ensure!(size <= MAX_IMAGE, "image_size {size} is more than {MAX_IMAGE}");
        ensure!(
            patch > 0 && size > 0 && size % patch == 0,
            "image_size {size} is not a multiple of the encoder's patches of {patch} pixels"
        );
        ensure!(
            heads > 0 && width > 0 && width % heads == 0 && width % 2 == 0,
            "width {width} is not even or not a multiple of heads {heads}"
        );
        let frozen = self.frozen_stages;
        ensure!((0..=4).contains(&frozen), "frozen_stages {frozen} is not between 0 and 4");
        ensure!((0.0..1.0).contains(&self.dropout), "dropout {} is not between 0 and 1", self.dropout);
        if let Some(dino) = &self.dino {
            let fits = dino.heads > 0 && dino.width > 0 && dino.width % (4 * dino.heads) == 0;
            ensure!(fits, "dino.width {} is not a multiple of four times dino.heads {}", dino.width, dino.heads);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let check = |change: fn(&mut ApmConfig)| {
            let mut config = ApmConfig::default();
            change(&mut config);
            config.check().map_err(|e| e.to_string())
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert!(check(|c| c.image_size = 100).unwrap_err().contains("image_size 100"));
        assert!(check(|c| c.heads = 7).unwrap_err().contains("heads 7"));
        let dino = |patch, heads| Some(DinoConfig { patch, heads, ..Default::default() });
        assert!(ApmConfig { dino: dino(16, 6), ..Default::default() }.check().is_ok());
        assert!(ApmConfig { dino: dino(15, 6), ..Default::default() }.check().is_err());
        assert!(ApmConfig { dino: dino(0, 6), ..Default::default() }.check().is_err());
        assert!(ApmConfig { dino: dino(16, 5), ..Default::default() }.check().is_err());
    }
}
