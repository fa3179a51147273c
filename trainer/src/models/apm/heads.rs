//! What is read from the transformer's output: boxes, object embeddings and image labels.

use super::attention::multi_head;
use super::config::ApmConfig;
use crate::graph::{Activation, Attention, Init, Linear, Ops};
use anatomix::LABEL_COUNT;

/// Boxes `[B, 36, 4]` of the decoded queries `[B, 36, D]` (paper, eq. 2 and 3 are their losses): centre x, centre y, width and height, each
/// 0..1 of the letterboxed square.
pub fn boxes<O: Ops>(ops: &O, width: i64, objects: &O::Tensor) -> O::Tensor {
    let mut hidden = objects.clone();
    for layer in 0..2 {
        let size = Linear::new(width, width);
        hidden = ops.activate(&ops.linear(&hidden, &format!("bbox_embed.layers.{layer}"), size), Activation::Relu);
    }
    let boxes = ops.linear(&hidden, "bbox_embed.layers.2", Linear::new(width, 4));
    ops.activate(&boxes, Activation::Sigmoid)
}

/// Object embeddings `[B, 36, embedding]`. Feature extraction (paper, eq. 4) is cross-attention from the decoded queries `[B, 36, D]` to
/// the encoded patches `[B, P, D]`, without positions; the ablation of section S5 leaves it out.
pub fn object_embeddings<O: Ops>(ops: &O, config: &ApmConfig, objects: &O::Tensor, memory: &O::Tensor) -> O::Tensor {
    let width = config.width;
    let described = if config.feature_extractor {
        let how = Attention { heads: 2, width, mask: None, dropout: 0.0 };
        multi_head(ops, "anat_obj_embs.mha", &how, Init::Fan, [objects, memory, memory])
    } else {
        objects.clone()
    };
    ops.linear(&described, "anat_obj_embs.linear", Linear::new(width, config.embedding))
}

/// Logits `[B, 14]` of the image's labels, from the class token `[B, 1, D]`.
pub fn image_labels<O: Ops>(ops: &O, width: i64, cls: &O::Tensor) -> O::Tensor {
    let cls = ops.reshape(cls, &[0, width]);
    ops.linear(&cls, "image_class_embed", Linear::new(width, LABEL_COUNT as i64))
}
