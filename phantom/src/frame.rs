//! Pose and field of view: the mapping from world units to pixels.

use anatomix::PixelBox;
use libm::{sincosf, sinf};
use rand::{Rng, RngExt};

/// A point in world units, in which half the width of a thorax is about 1: x towards the patient's left, y down from the lung apices.
pub(crate) type Point = [f32; 2];

/// Size of the picture, and pose of the patient in it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether the picture is mirrored, so that the patient's left is on the picture's left.
    pub mirrored: bool,
    scale: [f32; 2],
    center: Point,
    origin: Point,
    rotation: f32,
    shear: f32,
    bend: [f32; 4],
}

impl Frame {
    pub(crate) fn sample(rng: &mut impl Rng, longest_side: u32) -> Self {
        let aspect: f32 = rng.random_range(0.78..1.28);
        let side = longest_side as f32;
        let (width, height) = if aspect < 1.0 { (side * aspect, side) } else { (side, side / aspect) };
        // The thorax spans 0.52 to 1.04 of the picture's width, in most pictures 0.72 to 0.96.
        let span = if rng.random_bool(0.8) { rng.random_range(0.72..0.96) } else { rng.random_range(0.52..1.04) };
        let x = width * span / 2.1;
        let y = x * rng.random_range(0.82..1.22);
        // The height is limited so that most of the lungs is in the picture.
        let y = y.min(height * rng.random_range(0.38..0.49));
        Self {
            width: width as u32,
            height: height as u32,
            mirrored: rng.random_bool(0.15),
            scale: [x, y],
            center: [width * rng.random_range(0.455..0.545), height * rng.random_range(0.44..0.56)],
            origin: [0.0, rng.random_range(0.92..1.06)],
            rotation: if rng.random_bool(0.8) { rng.random_range(-0.06..0.06) } else { rng.random_range(-0.14..0.14) },
            shear: rng.random_range(-0.05..0.05),
            bend: std::array::from_fn(|_| rng.random_range(-0.03..0.03)),
        }
    }

    /// Pixels per world unit, the geometric mean of both axes.
    pub fn pixels(&self) -> f32 {
        (self.scale[0] * self.scale[1]).sqrt()
    }

    pub(crate) fn map(&self, p: Point) -> Point {
        // A slight bend models scoliosis and rotation of the patient.
        let x = p[0] + self.bend[0] * sinf(p[1] * 2.3 + self.bend[1] * 60.0) + self.shear * (p[1] - 1.0);
        let y = p[1] + self.bend[2] * sinf(p[0] * 1.9 + self.bend[3] * 60.0);
        let (dx, dy) = ((x - self.origin[0]) * self.scale[0], (y - self.origin[1]) * self.scale[1]);
        let (sin, cos) = sincosf(self.rotation);
        let px = self.center[0] + cos * dx - sin * dy;
        let py = self.center[1] + sin * dx + cos * dy;
        [if self.mirrored { self.width as f32 - px } else { px }, py]
    }

    pub(crate) fn map_all(&self, points: &[Point]) -> Vec<Point> {
        points.iter().map(|&p| self.map(p)).collect()
    }

    /// The bounding box of world points in pixels, clipped to the picture; `None` if less than a third of it is visible.
    pub(crate) fn bounds(&self, points: &[Point]) -> Option<PixelBox> {
        let mut full = PixelBox::new(f32::MAX, f32::MAX, f32::MIN, f32::MIN);
        for [x, y] in points.iter().map(|&p| self.map(p)) {
            full = PixelBox::new(full.x0.min(x), full.y0.min(y), full.x1.max(x), full.y1.max(y));
        }
        let (w, h) = (self.width as f32, self.height as f32);
        let clip = PixelBox::new(full.x0.clamp(0.0, w), full.y0.clamp(0.0, h), full.x1.clamp(0.0, w), full.y1.clamp(0.0, h));
        (clip.area() > 9.0 && clip.area() > 0.33 * full.area()).then_some(clip)
    }
}
