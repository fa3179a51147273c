//! The image encoder (paper, section 3.1): a bottleneck ResNet (He et al. 2016) for one grey channel, with the stride in the 3 x 3
//! convolution as in torchvision.

use super::config::ApmConfig;
use crate::graph::{Activation, Conv, Ops};

/// Prefix of the parameter names.
const BODY: &str = "backbone.0.body";

/// `[B, 1, S, S]` to `[B, 32 planes, S/32, S/32]`.
pub fn resnet<O: Ops>(ops: &O, config: &ApmConfig, image: &O::Tensor) -> O::Tensor {
    ops.scope("backbone/stem");
    // [B, 1, S, S] -> [B, planes, S/2, S/2] -> [B, planes, S/4, S/4]
    let stem = Conv { inputs: 1, outputs: config.planes, kernel: 7, stride: 2 };
    let x = ops.conv_norm(image, &format!("{BODY}.conv1"), &format!("{BODY}.bn1"), stem);
    let mut x = ops.max_pool(&ops.activate(&x, Activation::Relu));
    let mut channels = config.planes;
    for (stage, &blocks) in config.blocks.iter().enumerate() {
        let planes = config.planes << stage;
        for block in 0..blocks {
            ops.scope(&format!("backbone/layer{}.{block}", stage + 1));
            let name = format!("{BODY}.layer{}.{block}", stage + 1);
            // The first block of a stage halves the sides, but for that of the first stage.
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = bottleneck(ops, &name, &x, Block { channels, planes, stride, is_first: block == 0 });
            channels = 4 * planes;
        }
    }
    x
}

/// Sizes of a block.
struct Block {
    /// Number of channels of the input.
    channels: i64,
    /// Inner number of channels; the output has four times as many.
    planes: i64,
    stride: i64,
    /// Whether it is the first of its stage, whose shortcut is a convolution.
    is_first: bool,
}

/// `[B, channels, H, W]` to `[B, 4 planes, H / stride, W / stride]`: `relu(F(x) + shortcut(x))`.
fn bottleneck<O: Ops>(ops: &O, name: &str, x: &O::Tensor, Block { channels, planes, stride, is_first }: Block) -> O::Tensor {
    let conv = |x: &O::Tensor, i: i64, size| ops.conv_norm(x, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), size);
    let out = conv(x, 1, Conv { inputs: channels, outputs: planes, kernel: 1, stride: 1 });
    let out = conv(&ops.activate(&out, Activation::Relu), 2, Conv { inputs: planes, outputs: planes, kernel: 3, stride });
    let out = conv(&ops.activate(&out, Activation::Relu), 3, Conv { inputs: planes, outputs: 4 * planes, kernel: 1, stride: 1 });
    let shortcut = if is_first {
        let size = Conv { inputs: channels, outputs: 4 * planes, kernel: 1, stride };
        ops.conv_norm(x, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), size)
    } else {
        x.clone()
    };
    ops.activate(&ops.add(&out, &shortcut), Activation::Relu)
}
