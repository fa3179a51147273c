//! The Anatomy Perception Module (paper, section 3.1): an image encoder, a transformer with one query for each structure, feature
//! extraction, and heads. Parameter names are those of the published checkpoint.
//!
//! In the shapes, `B` is the number of images, `S` the side of the square image, `G = S / 32` the side of the grid of patches, `P = G * G`
//! their number, and `D` the width of the transformer.

mod attention;
mod config;
mod heads;
mod position;
mod resnet;
mod transformer;

use super::dino;
use crate::graph::{Linear, Ops};
pub use config::ApmConfig;
use heads::{boxes, image_labels, object_embeddings};
use position::sine_positions;
use resnet::resnet;
use transformer::Transformer;

/// Outputs of the module for `B` images with `P` patches.
#[derive(Clone, Debug)]
pub struct ApmOutput<T> {
    /// Boxes `[B, 36, 4]` in the letterboxed square: centre x, centre y, width, height, 0..1.
    pub boxes: T,
    /// Object embeddings `[B, 36, embedding]`, not normalised.
    pub object_embeddings: T,
    /// Image tokens `[B, P, width]`.
    pub image_tokens: T,
    /// Logits of the image labels `[B, 14]`.
    pub image_logits: T,
    /// Boxes of each decoder layer, as [`ApmOutput::boxes`], if they were asked for; the last ones are those.
    pub layer_boxes: Vec<T>,
}

/// The module on images `[B, 1, S, S]` with values 0..1.
pub fn apm<O: Ops>(ops: &O, config: &ApmConfig, image: &O::Tensor) -> ApmOutput<O::Tensor> {
    apm_with_layers(ops, config, image, false)
}

/// The module, with the boxes of each decoder layer if `all` is true, for losses on them.
pub fn apm_with_layers<O: Ops>(ops: &O, config: &ApmConfig, image: &O::Tensor, all: bool) -> ApmOutput<O::Tensor> {
    let (patches, width) = (config.patches(), config.width);
    // The image encoder: [B, 1, S, S] -> [B, C, G, G].
    let (features, channels) = match &config.dino {
        None => (resnet(ops, config, image), config.planes * 32),
        Some(encoder) => (dino_map(ops, config, encoder, image), encoder.width),
    };
    ops.scope("input_proj");
    // [B, C, G, G] -> [B, P, D]
    let tokens = ops.pixels(&features, "input_proj", Linear::new(channels, width));
    let sine = ops.constant("position_encoding", &sine_positions(config.grid() as usize, width as usize), &[1, patches, width]);

    let transformer = Transformer::of(config);
    // cls [B, 1, D] and memory [B, P, D]: the image as a whole, and its patches.
    let (cls, memory) = transformer.encode(ops, &tokens, &sine, patches);
    // [B, 36, D]; row i is structure i, always. There is no matching and no "no object".
    let (objects, earlier) = transformer.decode(ops, &memory, &sine, all);

    ops.scope("heads");
    let earlier = earlier.iter().map(|objects| boxes(ops, width, objects));
    let mut layer_boxes: Vec<O::Tensor> = earlier.collect();
    let boxes = boxes(ops, width, &objects);
    if all {
        layer_boxes.push(boxes.clone());
    }
    ApmOutput {
        boxes,
        object_embeddings: object_embeddings(ops, config, &objects, &memory),
        image_logits: image_labels(ops, width, &cls),
        image_tokens: memory,
        layer_boxes,
    }
}

/// DINOv3 in the place of the ResNet (section S5): its tokens `[B, P, C]` as a map `[B, C, G, G]`.
fn dino_map<O: Ops>(ops: &O, config: &ApmConfig, encoder: &dino::DinoConfig, image: &O::Tensor) -> O::Tensor {
    let tokens = ops.transpose(&dino::dinov3(ops, encoder, config.image_size, image), &[0, 2, 1]);
    ops.reshape(&tokens, &[0, encoder.width, config.grid(), config.grid()])
}
