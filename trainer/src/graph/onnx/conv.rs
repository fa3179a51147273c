//! Convolutions as nodes. In 8 bits one of a single channel with stride 2 (the stem) reads the image's four phases as channels:
//! a product over one channel at a time would leave most of a register empty.

use super::proto::AttributeProto;
use super::writer::{OnnxTensor, Writer};
use crate::graph::Conv;
use tch::Tensor;

impl Writer<'_> {
    /// A convolution with a kernel `[out, in, k, k]` that the other reader has to know, too, as it is rounded.
    pub(super) fn convolution(&self, x: &OnnxTensor, name: &str, kernel: Tensor, bias: Tensor, size: Conv) -> OnnxTensor {
        let weight = format!("{name}.weight");
        let folds = self.calibration.is_wanted() && size.inputs == 1 && size.stride == 2 && size.kernel % 4 == 3;
        let pad = size.kernel / 2;
        // Phases have the values of the image.
        let like = x.name.clone();
        let (x, side, stride, pads) = if folds {
            let phases = self.node("SpaceToDepth", &[x], vec![AttributeProto::int("blocksize", 2)]);
            let before = (pad + 1) / 2;
            (phases, pad + 1, 1, [before, before, before - 1, before - 1])
        } else {
            (x.clone(), size.kernel, size.stride, [pad; 4])
        };
        let fold = |kernel: &Tensor| if folds { folded(kernel) } else { kernel.shallow_clone() };
        let (x, kernel, bias) = match self.activation_and_scale(&x, &like) {
            Some((x, step)) => {
                let ([kernel, bias], back) = self.rounded_kernel(name, &fold(&kernel), &bias, step);
                self.settled.insert(&weight, if folds { unfolded(&back) } else { back });
                (x, kernel, bias)
            }
            None => {
                let kernel = fold(&self.settle(&weight, kernel));
                (x, self.known(weight, kernel), self.known(format!("{name}.bias"), bias))
            }
        };
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[side; 2]),
            AttributeProto::ints("pads", &pads),
            AttributeProto::ints("strides", &[stride; 2]),
        ];
        let out = self.named_node(name.into(), "Conv", &[&x, &kernel, &bias], attributes);
        // Known from here on, should a sum need it in 8 bits.
        if !self.calibration.is_applied() {
            self.activation(&out);
        }
        out
    }
}

/// A kernel `[out, 1, k, k]` of stride 2 over pixels as one of stride 1 over their phases, `[out, 4, h, h]` with `h = (k + 1) / 2`:
/// the padding, half of `k`, is odd, so with a row and a column of zeros in front the kernel begins at an even pixel.
fn folded(kernel: &Tensor) -> Tensor {
    let (outputs, half) = (kernel.size()[0], (kernel.size()[2] + 1) / 2);
    let even = kernel.constant_pad_nd([1, 0, 1, 0]).reshape([outputs, half, 2, half, 2]);
    even.permute([0, 2, 4, 1, 3]).reshape([outputs, 4, half, half])
}

/// The kernel that was [`folded`].
fn unfolded(kernel: &Tensor) -> Tensor {
    let (outputs, half) = (kernel.size()[0], kernel.size()[2]);
    let even = kernel.reshape([outputs, 2, 2, half, half]).permute([0, 3, 1, 4, 2]).reshape([outputs, 1, 2 * half, 2 * half]);
    even.slice(2, 1, 2 * half, 1).slice(3, 1, 2 * half, 1).contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn phases_give_the_same() {
        for side in [3, 7] {
            let image = Tensor::randn([2, 1, 16, 16], (Kind::Double, Device::Cpu));
            let kernel = Tensor::randn([5, 1, side, side], (Kind::Double, Device::Cpu));
            let expected = image.conv2d(&kernel, None::<&Tensor>, [2, 2], [side / 2; 2], [1, 1], 1);
            let before = (side / 2 + 1) / 2;
            let phases = image.pixel_unshuffle(2).constant_pad_nd([before, before - 1, before, before - 1]);
            let found = phases.conv2d(&folded(&kernel), None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
            assert!(found.allclose(&expected, 0.0, 1e-12, false));
            assert_eq!(unfolded(&folded(&kernel)), kernel);
        }
    }
}
