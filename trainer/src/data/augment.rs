//! Augmentation of a batch of images with their boxes.
//!
//! A flip mirrors the boxes but does not swap the names of left and right structures, which are the patient's: a flipped image looks like
//! situs inversus. This makes grounding robust against mirrored images (paper, section 5).

use anatomix::NormalizedBox;
use anyhow::{Result, ensure};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The box of a structure after a rotation, which is the bounding box of some points of the box before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotatedBoxes {
    /// Of an octagon inside it: structures seldom fill the corners of their boxes, and the box grows little.
    #[default]
    Octagon,
    /// Of its corners, as published.
    Published,
}

/// Ranges of random changes. The defaults are the paper's, which does not change intensities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Largest rotation in degrees.
    pub rotate: f64,
    /// What a rotation makes of boxes.
    pub boxes: RotatedBoxes,
    /// Largest shift as a fraction of the side.
    pub translate: f64,
    /// Smallest and largest zoom factor.
    pub scale: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Range of the tone curve: its exponent is between `1 / (1 + gamma)` and `1 + gamma`.
    pub gamma: f64,
    /// Largest standard deviation of added noise.
    pub noise: f64,
    /// Largest amplitude of a smooth change of brightness across the image.
    pub shade: f64,
    /// Probability that a rectangle is filled with a constant.
    pub cutout: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        let boxes = RotatedBoxes::Octagon;
        Self { rotate: 15.0, boxes, translate: 0.1, scale: [0.9, 1.1], flip: 0.3, gamma: 0.0, noise: 0.0, shade: 0.0, cutout: 0.0 }
    }
}

impl Augmentation {
    /// Checks the ranges.
    ///
    /// # Errors
    /// If a value cannot be used; the error names it.
    pub fn check(&self) -> Result<()> {
        let [least, most] = self.scale;
        ensure!(least > 0.0 && most >= least && most.is_finite(), "scale = [{least}, {most}] is not a range of positive factors");
        for (name, value, limit) in [
            ("rotate", self.rotate, 180.0),
            ("translate", self.translate, 1.0),
            ("flip", self.flip, 1.0),
            ("gamma", self.gamma, 10.0),
            ("noise", self.noise, 1.0),
            ("shade", self.shade, 1.0),
            ("cutout", self.cutout, 1.0),
        ] {
            ensure!((0.0..=limit).contains(&value), "{name} = {value} is not between 0 and {limit}");
        }
        Ok(())
    }
}

/// The affine transform of one image, in coordinates -1..1.
struct Affine {
    /// From the source to the output, for boxes.
    forward: [f64; 6],
    /// From the output to the source, for the sampling grid.
    inverse: [f64; 6],
}

impl Affine {
    fn sample(settings: &Augmentation, rng: &mut impl Rng) -> Self {
        let mut within = |limit: f64| if limit > 0.0 { rng.random_range(-limit..limit) } else { 0.0 };
        let angle = within(settings.rotate).to_radians();
        let (tx, ty) = (2.0 * within(settings.translate), 2.0 * within(settings.translate));
        let zoom =
            if settings.scale[1] > settings.scale[0] { rng.random_range(settings.scale[0]..settings.scale[1]) } else { settings.scale[0] };
        let flip = if rng.random_bool(settings.flip) { -1.0 } else { 1.0 };
        let (sin, cos) = angle.sin_cos();
        // The image is flipped, then rotated, zoomed and shifted.
        let forward = [zoom * cos * flip, -zoom * sin, tx, zoom * sin * flip, zoom * cos, ty];
        let [a, b, c, d, e, f] = forward;
        let det = a * e - b * d;
        let inverse = [e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det];
        Self { forward, inverse }
    }

    /// Transforms a box. Returns `None` if at most a third of it stays in the image; as published, if nothing does.
    fn apply(&self, b: &NormalizedBox, boxes: RotatedBoxes) -> Option<NormalizedBox> {
        let (points, least) = match boxes {
            RotatedBoxes::Octagon => ([(1.0, 0.7), (0.7, 1.0)], 0.33),
            RotatedBoxes::Published => ([(1.0, 1.0); 2], 0.0),
        };
        let [cx, cy, w, h] = b.to_center().map(f64::from);
        let [a, bx, c, d, e, f] = self.forward;
        let mut hull = [f64::MAX, f64::MAX, f64::MIN, f64::MIN];
        for (ux, uy) in points {
            for (sx, sy) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
                let (x, y) = (2.0 * cx - 1.0 + ux * sx * w, 2.0 * cy - 1.0 + uy * sy * h);
                let (px, py) = (a * x + bx * y + c, d * x + e * y + f);
                hull = [hull[0].min(px), hull[1].min(py), hull[2].max(px), hull[3].max(py)];
            }
        }
        let unit = hull.map(|v| ((v + 1.0) / 2.0) as f32);
        let clipped = NormalizedBox::from(unit.map(|v| v.clamp(0.0, 1.0)));
        (clipped.area() > least * NormalizedBox::from(unit).area()).then_some(clipped)
    }
}

/// Changes images `[B, 1, S, S]` and their boxes at random; the numbers of each image come from its own generator. A box of which too
/// little stays in the image becomes `None`.
pub fn augment(images: &Tensor, boxes: &mut [Vec<Option<NormalizedBox>>], settings: &Augmentation, rngs: &mut [impl Rng]) -> Tensor {
    let size = images.size();
    let (batch, side) = (size[0], size[2]);
    let mut grid = Vec::with_capacity(6 * batch as usize);
    for (boxes, rng) in boxes.iter_mut().zip(rngs.iter_mut()) {
        let affine = Affine::sample(settings, rng);
        grid.extend(affine.inverse.map(|v| v as f32));
        for bounds in boxes {
            *bounds = bounds.and_then(|b| affine.apply(&b, settings.boxes));
        }
    }
    let grid = Tensor::affine_grid_generator(&Tensor::from_slice(&grid).reshape([batch, 2, 3]), [batch, 1, side, side], false);
    let mut out = images.grid_sampler(&grid, 0, 0, false);
    let column = |values: Vec<f32>| Tensor::from_slice(&values).reshape([batch, 1, 1, 1]);
    // A value for each image, and `side * side` normally distributed ones for each image.
    let uniform = |rngs: &mut [_], low: f64, high: f64| rngs.iter_mut().map(|rng| within(rng, low, high) as f32).collect::<Vec<f32>>();
    let normal = |rngs: &mut [_], side: i64| {
        let values: Vec<f32> = rngs.iter_mut().flat_map(|rng| normals(rng, (side * side) as usize)).collect();
        Tensor::from_slice(&values).reshape([batch, 1, side, side])
    };
    if settings.gamma > 0.0 {
        let limit = (1.0 + settings.gamma).ln();
        let exponents = uniform(rngs, -limit, limit).into_iter().map(f32::exp).collect();
        out = out.clamp_min(0.0).pow(&column(exponents));
    }
    if settings.shade > 0.0 {
        let amplitudes = column(uniform(rngs, 0.0, settings.shade));
        let coarse = normal(rngs, 3) * amplitudes;
        out = (out + coarse.upsample_bicubic2d([side, side], true, None, None)).clamp(0.0, 1.0);
    }
    if settings.noise > 0.0 {
        let amplitudes = column(uniform(rngs, 0.0, settings.noise));
        out = (out + normal(rngs, side) * amplitudes).clamp(0.0, 1.0);
    }
    if settings.cutout > 0.0 {
        for (image, rng) in rngs.iter_mut().enumerate() {
            if within(rng, 0.0, 1.0) < settings.cutout {
                let mut span = || {
                    let length = (side as f64 * within(rng, 0.05, 0.25)) as i64;
                    ((within(rng, 0.0, 1.0) * (side - length) as f64) as i64, length)
                };
                let ((y, h), (x, w)) = (span(), span());
                let _ = out.narrow(0, image as i64, 1).narrow(2, y, h).narrow(3, x, w).fill_(within(rng, 0.0, 1.0));
            }
        }
    }
    out
}

fn within(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random_range(0.0..1.0)
}

fn normals(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    rng.sample_iter(StandardNormal).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tch::Kind;

    #[test]
    fn boxes_follow_the_picture() {
        let _guard = tch::no_grad_guard();
        let mut rng = [rand_chacha::ChaCha8Rng::seed_from_u64(3)];
        let settings = Augmentation { flip: 0.5, ..Default::default() };
        for _ in 0..20 {
            // The pixels of a bright rectangle and its box must be transformed alike.
            let image = Tensor::zeros([1, 1, 128, 128], (Kind::Float, tch::Device::Cpu));
            let _ = image.narrow(2, 40, 30).narrow(3, 70, 20).fill_(1.0);
            let mut boxes = vec![vec![Some(NormalizedBox::new(70.0 / 128.0, 40.0 / 128.0, 90.0 / 128.0, 70.0 / 128.0))]];
            let out = augment(&image, &mut boxes, &settings, &mut rng);
            let lit = out.gt(0.5).nonzero();
            let edge = |axis: i64, max: bool| {
                let v = lit.select(1, axis);
                (if max { v.max() } else { v.min() }).int64_value(&[]) as f32 / 128.0
            };
            let found = NormalizedBox::new(edge(3, false), edge(2, false), edge(3, true), edge(2, true));
            let iou = found.iou(&boxes[0][0].expect("inside"));
            assert!(iou > 0.75, "{iou} {found:?} {boxes:?}");
        }
    }

    /// A square that is rotated by 45 degrees in the middle of the image: its corners are at half its diagonal.
    #[test]
    fn rotated_boxes_are_those_of_an_octagon_or_as_published_of_the_corners() {
        let turn = std::f64::consts::FRAC_PI_4;
        let (sin, cos) = turn.sin_cos();
        let affine = |tx: f64| Affine { forward: [cos, -sin, tx, sin, cos, 0.0], inverse: [cos, sin, 0.0, -sin, cos, 0.0] };
        let square = NormalizedBox::new(0.4, 0.4, 0.6, 0.6);
        let half = |boxes| f64::from(affine(0.0).apply(&square, boxes).unwrap().x1 - 0.5);
        assert!((half(RotatedBoxes::Published) - 0.1 * 2f64.sqrt()).abs() < 1e-6);
        assert!((half(RotatedBoxes::Octagon) - 0.17 / 2f64.sqrt()).abs() < 1e-6);
        // A tenth of it stays in the image, and then nothing.
        let kept = |tx: f64| [RotatedBoxes::Octagon, RotatedBoxes::Published].map(|boxes| affine(tx).apply(&square, boxes).is_some());
        assert_eq!((kept(1.22), kept(1.4)), ([false, true], [false, false]));
    }

    #[test]
    fn an_image_is_changed_alike_in_every_batch() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(1);
        let images = Tensor::rand([3, 1, 32, 32], (Kind::Float, tch::Device::Cpu));
        let settings = Augmentation { gamma: 0.3, noise: 0.1, shade: 0.2, cutout: 0.9, ..Default::default() };
        let change = |first: i64, count: i64| {
            let mut rngs: Vec<_> = (first..first + count).map(|i| rand_chacha::ChaCha8Rng::seed_from_u64(i as u64)).collect();
            let mut boxes = vec![vec![Some(NormalizedBox::new(0.2, 0.3, 0.5, 0.6))]; count as usize];
            (augment(&images.narrow(0, first, count), &mut boxes, &settings, &mut rngs), boxes)
        };
        let (whole, boxes) = change(0, 3);
        for at in 0..3 {
            let (one, own) = change(at, 1);
            assert_eq!(one, whole.narrow(0, at, 1));
            assert_eq!(own[0], boxes[at as usize]);
        }
        assert_ne!(boxes[0], boxes[1]);
    }
}
