//! Convolutions. In 8 bits, the stem (one channel, stride 2) is written as a convolution with stride 1 over the image's four phases as
//! channels, because with a single channel the kernel would use a small part of each register.

use super::proto::AttributeProto;
use super::writer::{OnnxTensor, Writer};
use crate::graph::Conv;
use tch::Tensor;

impl Writer<'_> {
    /// Writes a convolution with the kernel `[out, in, k, k]`, and keeps the kernel as the graph holds it.
    pub(super) fn convolution(&self, x: &OnnxTensor, name: &str, kernel: Tensor, bias: Tensor, size: Conv) -> OnnxTensor {
        let weight = format!("{name}.weight");
        let folds = self.calibration.is_wanted() && size.inputs == 1 && size.stride == 2 && size.kernel % 4 == 3;
        let pad = size.kernel / 2;
        // The phases have the range of the image.
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
            Some((x, scale)) => {
                let ([kernel, bias], dequantized) = self.quantized_kernel(name, &fold(&kernel), &bias, scale);
                self.kept.insert(&weight, if folds { unfolded(&dequantized) } else { dequantized });
                (x, kernel, bias)
            }
            None => {
                let kernel = fold(&self.keep(&weight, kernel));
                (x, self.known(weight, kernel), self.known(format!("{name}.bias"), bias))
            }
        };
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[side; 2]),
            AttributeProto::ints("pads", &pads),
            AttributeProto::ints("strides", &[stride; 2]),
        ];
        let out = self.named_node(name.into(), "Conv", &[&x, &kernel, &bias], attributes);
        // Requests the range of the result, because a sum may need it in 8 bits.
        if !self.calibration.is_applied() {
            self.activation(&out);
        }
        out
    }
}

/// Converts a kernel `[out, 1, k, k]` with stride 2 to a kernel with stride 1 over phases, `[out, 4, h, h]` with `h = (k + 1) / 2`. The
/// padding, `k / 2`, is odd, so a row and a column of zeros are put in front, with which the kernel begins at an even pixel.
fn folded(kernel: &Tensor) -> Tensor {
    let (outputs, half) = (kernel.size()[0], (kernel.size()[2] + 1) / 2);
    let even = kernel.constant_pad_nd([1, 0, 1, 0]).reshape([outputs, half, 2, half, 2]);
    even.permute([0, 2, 4, 1, 3]).reshape([outputs, 4, half, half])
}

/// The inverse of [`folded`].
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
    fn a_kernel_over_phases_is_equal() {
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
